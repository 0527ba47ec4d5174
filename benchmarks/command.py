"""`cxredge benchmark`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from cxredge.benchmarks.compare import Comparison, compare
from cxredge.benchmarks.limits import read_limits, violations
from cxredge.benchmarks.measure import PROFILES
from cxredge.benchmarks.report import accuracy_table, check_folder, speed_table, unjudged, write
from cxredge.benchmarks.run import Report, benchmark
from cxredge.runtimes import MOST_THREADS


def benchmark_command(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL...",
            help="Bundles (folders or shipped names), runs, ONNX files, in any mix.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="A data set in its published layout, or a labels table (.csv); repeat.", show_default=False),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")] = Path("benchmark"),
    runtime: Annotated[str, typer.Option(help="Engines, separated by commas; all: every one that runs here.")] = "all",
    threads: Annotated[str, typer.Option(help="Threads of the engine to try, separated by commas.")] = "1",
    batch: Annotated[str, typer.Option(help="Films per query to try, separated by commas.")] = "1",
    quick: Annotated[bool, typer.Option("--quick", help="10 s a setting instead of 60 s: a first look.")] = False,
    mlperf: Annotated[
        bool, typer.Option("--mlperf", help="600 s a setting, as MLPerf Inference's single stream asks.")
    ] = False,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Full-precision model to measure drift against; the one a bundle carries unless told.",
            show_default=False,
        ),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(help="For lone ONNX files: the bundle whose findings they share.", show_default=False),
    ] = None,
    gate: Annotated[
        Path | None, typer.Option(help="TOML with limits; exit code 1 when one is broken.", show_default=False)
    ] = None,
    compared: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--compare", help="Two benchmark.json: what changed, and what is noise.", show_default=False),
    ] = None,
) -> None:
    """Is the small model good enough, on this machine? Accuracy and drift against latency, memory and size, on one page.

    Every model runs on every engine in fresh processes, interleaved. Writes OUTPUT/benchmark.html (open it in any browser),
    benchmark.md, benchmark.json and samples.npz with every sample. Limits for --gate: a table [limits] with drift,
    worst_drift, p90_ms, peak_rss_mb, size_mb, and [models.NAME] for one model.

    Exit code 0: measured, limits kept; 1: a limit is broken; 2: could not run.

    Example: `cxredge benchmark chestxray14 --data data/chestxray14 --threads 1,2 --quick -o report`

    Example: `cxredge benchmark --compare before/benchmark.json after/benchmark.json`
    """
    # Without markup: a name with brackets is a name.
    console = Console(markup=False)
    if compared is not None:
        if models or data or gate is not None:
            raise typer.BadParameter(
                "two reports are compared as they are: leave MODEL, --data and --gate out", param_hint="--compare"
            )
        show_changes(compare(*compared), console)
        return
    if not models or not data:
        raise typer.BadParameter("name at least one MODEL and its films with --data, or two reports with --compare")
    if quick and mlperf:
        raise typer.BadParameter("--quick and --mlperf are two different lengths; choose one")
    limits = read_limits(gate) if gate is not None else None
    check_folder(output)
    screen = Console(stderr=True)
    report, raw = benchmark(
        models,
        data,
        profile=PROFILES["quick" if quick else "mlperf" if mlperf else "default"],
        runtimes=None if runtime == "all" else runtime.split(","),
        threads=_numbers(threads, "--threads"),
        batches=_numbers(batch, "--batch"),
        reference=reference,
        like=like,
        command=shlex.join(["cxredge", *sys.argv[1:]]),
        say=lambda line: screen.print(line, markup=False, highlight=False),
    )
    write(report, raw, output)
    _show(report, output, console)
    broken = []
    if limits is not None:
        reference, added = report.reference, report.reference_added
        broken = violations(limits, report.measured, report.accuracy, reference=reference, added=added)
    for line in broken:
        console.print(f"Limit broken: {line}", style="red", highlight=False, soft_wrap=True)
    if limits is not None and not broken:
        console.print("Every limit kept.")
    raise typer.Exit(1 if broken else 0)


def _numbers(text: str, option: str) -> list[int]:
    try:
        numbers = sorted({int(word) for word in text.split(",")})
    except ValueError:
        numbers = [0]
    if numbers[0] < 1:
        raise typer.BadParameter(f"{text!r} is not a list of whole numbers such as 1,2,4", param_hint=option)
    if option == "--threads" and numbers[-1] > MOST_THREADS:
        raise typer.BadParameter(
            f"{numbers[-1]} is more than {MOST_THREADS}, and than any machine has cores", param_hint=option
        )
    return numbers


def _show(report: Report, output: Path, console: Console) -> None:
    # What fits a terminal; the page has the rest.
    judged, speed = accuracy_table(report), speed_table(report)
    short = ["setting", "p50 ms", "p90", "film p50", "films/s", "cold", "RSS MB", "file"]
    _print(console, [judged[0][:4], *(row[:4] for row in judged[1:])])
    _print(console, [short, *([row[n] for n in (0, 1, 2, 5, 7, 8, 9, 11)] for row in speed[1:])])
    for line in unjudged(report):
        console.print(f"Not judged: {line}", highlight=False, soft_wrap=True)
    for line in report.left_out:
        console.print(f"Left out: {line}", highlight=False, soft_wrap=True)
    console.print("Open", Text(str(output / "benchmark.html"), "bold"), soft_wrap=True)


def _print(console: Console, rows: list[list[str]]) -> None:
    table = Table(*(Column(name, overflow="fold") for name in rows[0]), box=None, padding=(0, 2, 0, 0))
    for row in rows[1:]:
        table.add_row(*row)
    console.print(table)
    console.print()


def show_changes(found: Comparison, console: Console) -> None:
    columns = ("setting", "figure", "before", "after", "ratio (95 %)", "machine", "verdict")
    # A narrow terminal breaks a name; cut off, the end of an interval would be another number.
    table = Table(*(Column(name, overflow="fold", no_wrap=name.startswith("ratio")) for name in columns), box=None)
    for one in found.changes:
        digits = 4 if one.figure == "mean AUROC" else 2
        table.add_row(
            one.setting, one.figure, f"{one.a:.{digits}f}", f"{one.b:.{digits}f}",
            f"{one.ratio.value:.2f} ({one.ratio.low:.2f}-{one.ratio.high:.2f})", f"{one.machine:.2f}",
            one.verdict, style="" if one.verdict in {"noise", "same"} else "bold",
        )  # fmt: skip
    console.print(table)
    for line in found.notes:
        console.print(line, style="yellow", highlight=False, soft_wrap=True)
    console.print(
        "Noise: the interval over rounds reaches within 5 % of no change, as measured or with the machine's own change"
        " (a fixed piece of work) taken out.",
        soft_wrap=True,
    )
