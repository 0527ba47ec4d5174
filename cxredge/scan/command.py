"""`cxredge scan`."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cxredge.bundle.bundle import DEFAULT
from cxredge.bundle.manifest import Accuracy
from cxredge.errors import CxredgeError
from cxredge.metrics import in_words
from cxredge.runtimes import MOST_THREADS
from cxredge.scan.reading import Reading, Status
from cxredge.scan.run import Options, Run, Tick, scan
from cxredge.scan.summary import DicomOut, LabelledFinding, Latency, Summary


def scan_command(
    paths: Annotated[
        list[Path], typer.Argument(help="Films, or folders of films (searched to the bottom).", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path("cxredge-scan"),
    model: Annotated[
        str, typer.Option(help="A shipped model's name (see `cxredge models`), a bundle's folder or its .zip.")
    ] = DEFAULT,
    trust: Annotated[
        Path | None,
        typer.Option(
            help="Public key (.pub) that must have signed the bundle; see `cxredge keys`.", show_default=False
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="CSV with `file` and 0/1 columns per finding: adds AUROC, sensitivity and specificity of this run. A column"
            " `patient` says whose films are counted together."
        ),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget earlier results in OUTPUT and read every film again.")
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            help="Heat maps of up to three flagged findings a film, in the report and in OUTPUT/heatmaps.",
        ),
    ] = True,
    dicom_out: Annotated[
        bool,
        typer.Option(
            "--dicom-out",
            help="Also write OUTPUT/dicom: per DICOM film a Structured Report and a picture with its first heat map, in the"
            " film's own study. These files carry the patient's identity as the film does.",
        ),
    ] = False,
    with_patient_ids: Annotated[
        bool,
        typer.Option(
            "--with-patient-ids",
            help="Put patients' names and numbers into results.csv and results.json. Without it a film carries its file name and"
            " a pseudonym that means nothing to others.",
        ),
    ] = False,
    reduced_decoding: Annotated[
        bool,
        typer.Option(
            "--reduced-decoding",
            help="Decode DICOM films in JPEG 2000 and JPEG at half or quarter size where that is enough: large JPEG 2000 films take"
            " a tenth of the time. Scores move a little (a logit by 0.014 on average, by 0.13 at most of 2,800).",
        ),
    ] = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Stay, and read films as they arrive; results are written anew after each batch. Ctrl-C ends it.",
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_THREADS, help="Films read at once; one per core unless told.", show_default=False),
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:DEVICE]",
            help="Engine: onnxruntime, openvino (openvino:GPU, openvino:NPU), tensorrt or tensorrt_rtx. Unless told, the first"
            " of the bundle's order that is installed and passes the self-test.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_THREADS,
            help="Threads of the engine per film; as the bundle's device says unless told.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Read films (DICOM, PNG, JPEG, TIFF, BMP) into a worklist: who needs a person first.

    Writes into OUTPUT: report.html (open it in any browser), heatmaps/, results.csv and results.json (a row per film),
    summary.json, and journal.sqlite: run the same command again after a power cut and it goes on where it stopped. Files that
    hold no readable film are listed as refused, never as normal.

    Exit code 0: every film was read or refused; 1: some failed and the same command tries them again; 2: could not run.

    Example: `cxredge scan /media/usb/films --output results`

    Example: `cxredge scan /media/usb/films --output results --dicom-out`

    Example: `cxredge scan /srv/incoming --output results --watch`
    """
    if watch and labels:
        raise CxredgeError("--labels judges a finished run; run it once more without --watch")
    screen = Console(stderr=True)
    options: Options = {
        "model": model,
        "trust": trust,
        "labels": labels,
        "restart": restart,
        "workers": workers,
        "explain": explain,
        "dicom_out": dicom_out,
        "with_patient_ids": with_patient_ids,
        "reduced_decoding": reduced_decoding,
        "runtime": runtime,
        "threads": threads,
        "say": lambda line: screen.print(line, markup=False, highlight=False, soft_wrap=True),
    }
    try:
        with _bar(screen) if screen.is_terminal else nullcontext() as tick:
            if watch:
                _watch(paths, output, options, tick, screen)
                return
            summary, unread = scan(paths, output, tick=tick, **options)
    except KeyboardInterrupt:
        screen.print("Stopped; what was read is kept. The same command goes on from here.")
        raise typer.Exit(130) from None
    show(summary, unread, output, Console())
    raise typer.Exit(1 if summary.failed else 0)


@contextmanager
def _bar(screen: Console) -> Iterator[Tick]:
    """Films done, on a terminal; a service or a pipe loads none of it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("Reading films"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task("films", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _watch(paths: list[Path], output: Path, options: Options, tick: Tick | None, screen: Console) -> None:
    """Read what arrives until Ctrl-C or SIGTERM, a line for each batch."""
    from cxredge.scan.watch import watch

    def interrupted(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    def line(text: str) -> None:
        screen.print(text, markup=False, highlight=False, soft_wrap=True)

    written = False

    def told(summary: Summary, _unread: list[Reading]) -> None:
        nonlocal written
        written = True
        counts = ", ".join(f"{count} {name}" for name, count in summary.priorities.items())
        line(f"{summary.films} films: {counts}. {output / 'report.html'}")
        if summary.ages and summary.ages.note:
            line(f"{summary.ages.note}.")

    # What stops a service stops it as Ctrl-C does.
    signal.signal(signal.SIGTERM, interrupted)
    with Run(paths, output, **options) as run:
        line(f"Watching {', '.join(map(str, paths))}; Ctrl-C ends it.")
        if earlier := run.watched():
            line(f"Going on with {len(earlier)} films of a watch that was cut off; --restart forgets them.")
        watch(run, paths, batch=told, say=line, tick=tick)
    said = "the results are written" if written else "no film arrived, so no results were written"
    screen.print(f"Stopped watching; {said}.")


def show(summary: Summary, unread: list[Reading], output: Path, console: Console) -> None:
    """The closing table: what to do first, what was refused and why, how fast, how far to trust it.

    unread: the first few films without a score.
    """
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, count in summary.priorities.items():
        table.add_row(name, str(count), _meaning(name))
    console.print(table)
    for status in (Status.REFUSED, Status.FAILED):
        count = {Status.REFUSED: summary.refused, Status.FAILED: summary.failed}[status]
        _list_unread([reading for reading in unread if reading.status is status], status, count, summary.films, console)
    facts = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    facts.add_row(
        "model",
        f"{summary.model['title']} {summary.model['version']} ({summary.model['precision']}, {summary.model['sha256'][:12]})",
    )
    facts.add_row(
        "engine", f"{summary.runtime['name']} {summary.runtime['version']}, self-test {summary.runtime['self_test']}"
    )
    if "notice" in summary.runtime:
        facts.add_row("notice", Text(f"not used: {summary.runtime['notice']}"))
    if summary.whole and summary.inference and summary.films_per_second:
        facts.add_row(
            "speed",
            f"{summary.films_per_second:.1f} films/s; a film {_ms(summary.whole)}; inference {_ms(summary.inference)}",
        )
    if summary.reduced_decoding:
        facts.add_row("decoding", "reduced: DICOM films in JPEG 2000 and JPEG no larger than the network needs")
    if summary.resumed:
        facts.add_row("taken over", f"{summary.resumed} films read by an earlier run")
    if summary.peak_rss_mb is not None:
        facts.add_row("peak memory", f"{summary.peak_rss_mb:.0f} MB")
    if summary.ages and summary.ages.note:
        facts.add_row("age", Text(summary.ages.note))
    facts.add_row("AUROC", _drift(summary.drift))
    if "caveat" in summary.runtime:
        facts.add_row("", Text(summary.runtime["caveat"]))
    facts.add_row("operating point", _points(summary))
    if summary.dicom_out:
        facts.add_row("DICOM", _dicom(summary.dicom_out))
    if summary.labelled and summary.labelled.note:
        facts.add_row("labels", Text(summary.labelled.note))
    for row in summary.labels:
        facts.add_row(f"this run, {row.finding}", _labelled(row))
    console.print(facts)
    console.print(
        f"\nOpen [bold]{escape(str(output / 'report.html'))}[/bold]. Research use; not a medical device.",
        highlight=False,
        soft_wrap=True,
    )


def _meaning(priority: str) -> str:
    return {
        "urgent": "look at these first",
        "review": "something is flagged, or so near to it that it might as well be",
        "routine": "nothing with enough evidence is flagged, which is not the same as normal",
        "refused": "no score: somebody must look at the film or the file",
    }[priority]


def _list_unread(unread: list[Reading], status: Status, count: int, films: int, console: Console) -> None:
    if not unread:
        return
    named = ", ".join(f"{reading.file} ({reading.detail})" for reading in unread)
    more = f" and {count - len(unread)} more, see results.csv" if count > len(unread) else ""
    console.print(
        f"\n{status.value.capitalize()} {count} of {films}: {named}{more}",
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


def _dicom(written: DicomOut) -> str:
    left_out = [
        f"{count} {what}"
        for count, what in (
            (written.not_dicom, "are no DICOM files"),
            (written.unfit, "name no study, have a broken header or cannot be read again"),
        )
        if count
    ]
    said = f"{written.reports} reports and {written.pictures} heat maps in dicom/, with the patients' identity"
    return f"{said}; left out: {', '.join(left_out)}" if left_out else said


def _points(summary: Summary) -> str:
    driving = [point for point in summary.points if not point.experimental]
    near = max((point.near for point in driving), default=0.0)
    return (
        f"{summary.operating_point}: flagged from Youden's index on validation films, urgent from 95 % specificity, review"
        f" from {near:.2f} log-odds below; {len(summary.points) - len(driving)} of {len(summary.points)} findings are"
        " experimental and drive no priority"
    )


def _labelled(row: LabelledFinding) -> str:
    counts = f"{row.positives} with it, {row.negatives} without"
    return f"AUROC {in_words(row.auroc, least=3)}, {counts}" if row.auroc else f"AUROC needs both kinds ({counts})"
