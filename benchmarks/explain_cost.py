"""What heat maps cost a scan: the same films with and without them, in turn, in a fresh process each time.

    python -m cxredge.benchmarks.explain_cost data/chestxray14/images examples --films 300

The shares are medians over pairs: processor time (user and system) tells what the maps cost wherever something else
runs beside them; wall time is what a person waits.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cxredge import __version__
from cxredge.devices import this_machine


@dataclass(frozen=True)
class Spent:
    """Seconds of one scan: on the clock, and of all cores together."""

    wall: float
    processor: float


def scan(films: list[Path], *words: str) -> Spent:
    """Scan films into an empty folder. Raises CalledProcessError when it fails."""
    with tempfile.TemporaryDirectory() as out:
        before, started = _children(), time.perf_counter()
        subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "cxredge", "scan", *map(str, films), "--output", f"{out}/out", *words],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return Spent(time.perf_counter() - started, _children() - before)


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main(
    folders: Annotated[list[Path], typer.Argument(help="Folders of films.", show_default=False)],
    films: Annotated[int, typer.Option(min=1, help="Films of each folder, evenly drawn.")] = 300,
    pairs: Annotated[int, typer.Option(min=1)] = 9,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON with every sample.", show_default=False)
    ] = None,
) -> None:
    """The share of a scan that heat maps take, per folder."""
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = scratch
        for folder in folders:
            every = sorted(
                path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".dcm")
            )
            chosen = every[:: max(1, len(every) // films)][:films]
            scan(chosen[:1])
            both = [(scan(chosen, "--no-explain"), scan(chosen, "--explain")) for _ in range(pairs)]
            found.append(
                {
                    "folder": folder.name,
                    "films": len(chosen),
                    "processor_share": round(statistics.median(w.processor / p.processor - 1 for p, w in both), 4),
                    "wall_share": round(statistics.median(w.wall / p.wall - 1 for p, w in both), 4),
                    "samples": [{"plain": asdict(p), "explained": asdict(w)} for p, w in both],
                }
            )
    result = {
        "command": f"python -m cxredge.benchmarks.explain_cost {' '.join(map(str, folders))} --films {films} --pairs {pairs}",
        "date": date.today().isoformat(),
        "cxredge": __version__,
        "python": platform.python_version(),
        "machine": this_machine().text,
        "folders": found,
    }
    Console().print_json(
        json.dumps(result | {"folders": [{k: v for k, v in row.items() if k != "samples"} for row in found]})
    )
    if output is not None:
        output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
