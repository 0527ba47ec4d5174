"""`cxredge scan`."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cxredge.bundle.manifest import Accuracy
from cxredge.scan.reading import Reading, Status
from cxredge.scan.run import scan
from cxredge.scan.summary import Latency, Summary

NAMED = 8


def scan_command(
    paths: Annotated[
        list[Path], typer.Argument(help="Films, or folders of films (searched to the bottom).", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path("cxredge-scan"),
    model: Annotated[
        str, typer.Option(help="A shipped model's name (see `cxredge models`) or a bundle's folder.")
    ] = "chestxray14",
    labels: Annotated[
        Path | None,
        typer.Option(
            help="CSV with `file` and 0/1 columns per finding: adds AUROC, sensitivity and specificity of this run."
        ),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget earlier results in OUTPUT and read every film again.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Films read at once; one per core unless told.", show_default=False)
    ] = None,
) -> None:
    """Read films (DICOM, PNG, JPEG, TIFF, BMP) into a worklist: who needs a person first.

    Writes into OUTPUT: report.html (open it in any browser), results.csv, summary.json and journal.sqlite. Run the same
    command again after a power cut and it goes on where it stopped. Files that hold no readable film are listed as refused,
    never as normal.

    Exit code 0: every film was read or refused; 1: some failed and the same command tries them again; 2: could not run.

    Example: `cxredge scan /media/usb/films --output results`
    """
    screen = Console(stderr=True)
    bar = Progress(
        TextColumn("Reading films"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=screen,
        transient=True,
    )
    try:
        with bar if screen.is_terminal else nullcontext():
            task = bar.add_task("films", total=None)
            summary, readings = scan(
                paths,
                output,
                model=model,
                labels=labels,
                restart=restart,
                workers=workers,
                tick=lambda done, total: bar.update(task, completed=done, total=total),
            )
    except KeyboardInterrupt:
        screen.print("Stopped; what was read is kept. The same command goes on from here.")
        raise typer.Exit(130) from None
    show(summary, readings, output, Console())
    raise typer.Exit(1 if summary.failed else 0)


def show(summary: Summary, readings: list[Reading], output: Path, console: Console) -> None:
    """The closing table: what to do first, what was refused and why, how fast, how far to trust it."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, count in summary.priorities.items():
        table.add_row(name, str(count), _meaning(name))
    console.print(table)
    for status in (Status.REFUSED, Status.FAILED):
        _list_unread([reading for reading in readings if reading.status is status], status, summary.films, console)
    facts = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    facts.add_row(
        "model",
        f"{summary.model['title']} {summary.model['version']} ({summary.model['precision']}, {summary.model['sha256'][:12]})",
    )
    facts.add_row(
        "engine", f"{summary.runtime['name']} {summary.runtime['version']}, self-test {summary.runtime['self_test']}"
    )
    if summary.whole and summary.inference and summary.films_per_second:
        facts.add_row(
            "speed",
            f"{summary.films_per_second:.1f} films/s; a film {_ms(summary.whole)}; inference {_ms(summary.inference)}",
        )
    if summary.resumed:
        facts.add_row("taken over", f"{summary.resumed} films read by an earlier run")
    if summary.peak_rss_mb is not None:
        facts.add_row("peak memory", f"{summary.peak_rss_mb:.0f} MB")
    facts.add_row("AUROC", _drift(summary.drift))
    facts.add_row("operating point", f"{summary.operating_point} (Youden's index on validation films)")
    for row in summary.labels:
        facts.add_row(
            f"this run, {row.finding}", _labelled(row.auroc.value if row.auroc else None, row.positives, row.negatives)
        )
    console.print(facts)
    console.print(
        f"\nOpen [bold]{output / 'report.html'}[/bold]. Research use; not a medical device.",
        highlight=False,
        soft_wrap=True,
    )


def _meaning(priority: str) -> str:
    return {
        "urgent": "look at these first",
        "review": "something is flagged",
        "routine": "nothing with enough evidence is flagged, which is not the same as normal",
        "refused": "no score: somebody must look at the film or the file",
    }[priority]


def _list_unread(unread: list[Reading], status: Status, films: int, console: Console) -> None:
    if not unread:
        return
    named = ", ".join(f"{reading.file} ({reading.detail})" for reading in unread[:NAMED])
    more = f" and {len(unread) - NAMED} more, see results.csv" if len(unread) > NAMED else ""
    console.print(
        f"\n{status.value.capitalize()} {len(unread)} of {films}: {named}{more}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _ms(latency: Latency) -> str:
    return f"p50 {latency.p50:.1f} ms, p90 {latency.p90:.1f} ms"


def _drift(accuracy: Accuracy) -> str:
    small, full, drift = accuracy.compressed, accuracy.full, accuracy.drift
    return (
        f"mean {small.value:.3f} (full precision {full.value:.3f}, drift {drift.value:+.4f} [{drift.low:+.4f}, {drift.high:+.4f}])"
        f" on {accuracy.films} films of {accuracy.source}, measured at build"
    )


def _labelled(area: float | None, positives: int, negatives: int) -> str:
    counts = f"{positives} with it, {negatives} without"
    return f"AUROC {area:.3f} ({counts})" if area is not None else f"AUROC needs both kinds ({counts})"
