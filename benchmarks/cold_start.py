"""How long a person waits for the first film, and how much memory it takes, in a fresh process each time.

    python -m cxredge.benchmarks.cold_start examples/00000457_002.jpg

Each round starts `cxredge scan FILM` in a new process and, beside it, a process that only imports the libraries the
clinic's side stands on, so that a slow or busy machine hits both alike. The self-test runs in the first round only, as
on a clinic's machine. Memory is the peak RSS that the operating system reports for the child (wait4).
"""

import json
import os
import platform
import statistics
import sys
import tempfile
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cxredge import __version__
from cxredge.benchmarks.process import run
from cxredge.devices import this_machine

IMPORTS = "import numpy, onnxruntime, PIL.Image, typer, rich.progress, pydantic"


def main(
    film: Annotated[Path, typer.Argument(help="A film to scan.", show_default=False)],
    rounds: Annotated[int, typer.Option(min=1)] = 15,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON with every sample.", show_default=False)
    ] = None,
) -> None:
    """Cold start of `cxredge scan FILM`: median and p90 of the wall time, and its ratio to the bare imports."""
    scans, bare = [], []
    with tempfile.TemporaryDirectory() as scratch:
        # A cache of its own: the first scan runs the self-test, the others find that it passed.
        os.environ["XDG_CACHE_HOME"] = scratch
        # pip compiles what it installs; a developer's shell may forbid Python to keep that for an editable installation.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        for number in range(rounds + 1):
            out = f"{scratch}/out{number}"
            scans.append(run([sys.executable, "-m", "cxredge", "scan", str(film), "--output", out]))
            bare.append(run([sys.executable, "-c", IMPORTS]))
    first, scans, bare = scans[0], scans[1:], bare[1:]
    seconds, floor = [child.seconds for child in scans], statistics.median(child.seconds for child in bare)
    found = {
        "command": f"python -m cxredge.benchmarks.cold_start {film} --rounds {rounds}",
        "date": date.today().isoformat(),
        "cxredge": __version__,
        "python": platform.python_version(),
        "machine": this_machine().text,
        "median_s": round(statistics.median(seconds), 3),
        "p90_s": round(sorted(seconds)[int(0.9 * (len(seconds) - 1))], 3),
        "with_self_test_s": round(first.seconds, 3),
        "bare_imports_median_s": round(floor, 3),
        "ratio_to_bare_imports": round(statistics.median(seconds) / floor, 2),
        "peak_rss_mb": round(max(child.peak_rss_mb for child in scans), 1),
        "samples": [asdict(child) for child in scans],
    }
    Console().print_json(json.dumps({key: value for key, value in found.items() if key != "samples"}))
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
