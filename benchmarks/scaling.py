"""How time and memory of a scan grow with the number of films, on one core and on more.

    python -m cxredge.benchmarks.scaling data/chestxray14 --output benchmarks/results

Each point is `cxredge scan` of a folder of so many films in a fresh process that may use so many cores, report and all. Beyond the
films at hand they are linked again under other names. `--large` adds 10,000 films.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import date
from itertools import cycle
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cxredge import __version__
from cxredge.devices import this_machine
from cxredge.errors import CxredgeError, DataError

SUFFIXES = {".jpg", ".jpeg", ".png", ".dcm"}


@dataclass(frozen=True)
class Point:
    """One scan. seconds: wall time from start to exit. cpu_seconds: of all its threads, which a busy machine moves least.
    peak_rss_mb: of the process, in MB (10^6 bytes)."""

    films: int
    cores: int
    seconds: float
    cpu_seconds: float
    peak_rss_mb: float

    @property
    def films_per_second(self) -> float:
        return self.films / self.seconds


def scan_once(films: list[Path], count: int, cores: int) -> Point:
    """Scan `count` films on `cores` cores. Raises CxredgeError when it fails; what it says of it goes to the error stream."""
    allowed = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "films"
        folder.mkdir()
        for number, film in zip(range(count), cycle(films), strict=False):
            (folder / f"{number:06}{film.suffix}").symlink_to(film.resolve())
        command = [sys.executable, "-m", "cxredge", "scan", str(folder), "--output", f"{scratch}/out"]
        os.sched_setaffinity(0, allowed[:cores])  # a child may use what its parent may
        try:
            started = time.perf_counter()
            child = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 - our own command
            _, status, usage = os.wait4(child.pid, 0)
            seconds = time.perf_counter() - started
        finally:
            os.sched_setaffinity(0, allowed)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise CxredgeError(f"the scan of {count} films ended with exit code {child.returncode}")
    return Point(count, cores, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6)


def _median(points: list[Point]) -> Point:
    """The same point of every round: median time, largest memory."""
    return Point(
        points[0].films,
        points[0].cores,
        statistics.median(point.seconds for point in points),
        statistics.median(point.cpu_seconds for point in points),
        max(point.peak_rss_mb for point in points),
    )


def main(
    data: Annotated[Path, typer.Argument(help="A folder of films, searched to the bottom.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for scaling.json and scaling.svg.")] = Path(),
    large: Annotated[bool, typer.Option("--large", help="10,000 films too.")] = False,
    sizes: Annotated[str, typer.Option(help="Numbers of films, separated by commas.")] = "10,100,1000",
    rounds: Annotated[int, typer.Option(min=1, help="Times each point is measured; 10,000 films once.")] = 3,
) -> None:
    """Draw time and memory of `cxredge scan` against the number of films, on one core and on all."""
    films = sorted(file for file in data.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not films:
        raise DataError(f"{data}: no films below it")
    counts = [int(size) for size in sizes.split(",")] + ([10_000] if large else [])
    cores = sorted({1, min(2, this_machine().cores), this_machine().cores})
    scan_once(films, 1, cores[-1])  # the self-test runs once in a machine's life, so not in a point
    # Interleaved, so that a busy machine is busy for all; a median is kept, with every sample.
    samples = [
        [scan_once(films, count, core) for count in counts if count < 10_000 or not number for core in cores]
        for number in range(rounds)
    ]
    points = [_median([one[i] for one in samples if i < len(one)]) for i in range(len(counts) * len(cores))]
    found = {
        "command": f"python -m cxredge.benchmarks.scaling {data.name} --sizes {sizes} --rounds {rounds}"
        + (" --large" if large else ""),
        "date": date.today().isoformat(),
        "cxredge": __version__,
        "machine": this_machine().text,
        "films_at_hand": len(films),
        "samples": [[asdict(point) for point in one] for one in samples],
        "points": [asdict(point) | {"films_per_second": round(point.films_per_second, 2)} for point in points],
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / "scaling.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (output / "scaling.svg").write_text(draw(points), encoding="utf-8")
    table = Table("films", "cores", "seconds", "CPU seconds", "films/s", "peak MB")
    for point in points:
        table.add_row(
            str(point.films), str(point.cores), f"{point.seconds:.1f}",
            f"{point.cpu_seconds:.1f}", f"{point.films_per_second:.1f}",
            f"{point.peak_rss_mb:.0f}",
        )  # fmt: skip
    Console().print(table)


def draw(points: list[Point]) -> str:
    """Two panels: seconds (logarithmic axes; a line of slope one is proportional) and peak memory."""
    from cxredge.train.plots import SERIES, drawing, svg

    with drawing(8, 3.4, 1, 2) as (figure, axes):
        clock, memory = axes[0]
        for number, cores in enumerate(sorted({point.cores for point in points})):
            colour, marker = SERIES[number]
            own = [point for point in points if point.cores == cores]
            counts = [point.films for point in own]
            name = f"{cores} core{'s' if cores > 1 else ''}"
            clock.plot(
                counts, [point.seconds for point in own], color=colour, marker=marker, label=f"{name}, by the clock"
            )
            clock.plot(
                counts, [point.cpu_seconds for point in own], color=colour, marker=marker, mfc="white", ls="--",
                label=f"{name}, of computing",
            )  # fmt: skip
            memory.plot(counts, [point.peak_rss_mb for point in own], color=colour, marker=marker, label=name)
        clock.set(xscale="log", yscale="log", xlabel="films", ylabel="seconds")
        memory.set(xscale="log", xlabel="films", ylabel="peak memory, MB")
        memory.set_ylim(0, 1.2 * max(point.peak_rss_mb for point in points))
        for ax in (clock, memory):
            shown = sorted({point.films for point in points})
            ax.set_xticks(shown, [f"{count:,}" for count in shown])
            ax.set_xticks([], minor=True)
            ax.legend()
        times = [value for point in points for value in (point.seconds, point.cpu_seconds)]
        ticks = [
            t for t in (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if min(times) / 1.5 <= t <= 1.5 * max(times)
        ]
        clock.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        clock.set_yticks([], minor=True)
        return svg(figure)


if __name__ == "__main__":
    typer.run(main)
