"""Does a scan that is killed again and again end like one that was left alone?

    python -m cxredge.benchmarks.kill_soak data/chestxray14/images --kills 30 --output benchmarks/results/kill-soak.json

The same command is started and killed (SIGKILL: no chance to clean up) at random moments until it has been killed as often as
asked for; then it runs to its end. Its results.csv must equal that of an undisturbed run but for the times.
"""

import csv
import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cxredge import __version__
from cxredge.devices import this_machine


def main(
    films: Annotated[Path, typer.Argument(help="A folder of films.", show_default=False)],
    kills: Annotated[int, typer.Option(min=1)] = 30,
    count: Annotated[int, typer.Option(min=1, help="Films to scan.")] = 600,
    seed: Annotated[int, typer.Option()] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON with the figures.", show_default=False)
    ] = None,
) -> None:
    """Kill a scan at random moments, let the same command end, and compare with an undisturbed run. Exit code 1: they differ."""
    chance, ends = random.Random(seed), 0
    moments: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder, out, alone = (Path(scratch) / name for name in ("films", "out", "alone"))
        folder.mkdir()
        for film in islice(sorted(path for path in films.rglob("*") if path.is_file()), count):
            (folder / film.name).symlink_to(film.resolve())
        started = time.perf_counter()
        _scan(folder, alone).wait()
        whole = time.perf_counter() - started
        while len(moments) < kills:
            running = _scan(folder, out)
            moment = chance.uniform(0.02, 1.0) * whole
            try:
                running.wait(timeout=moment)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()
                moments.append({"after_s": round(moment, 3), "films_read": _read(out)})
                continue
            # It ended before the moment came: begin anew, so that there is something to kill.
            ends += 1
            if not _compare(out, alone)[0]:
                raise RuntimeError("a run that had been killed ended with other rows")
            for file in out.glob("journal.sqlite*"):
                file.unlink()
        _scan(folder, out).wait()
        same, rows = _compare(out, alone)
        left = sorted(path.name for path in out.iterdir() if path.name.startswith("."))
    found = {
        "command": f"python -m cxredge.benchmarks.kill_soak {films.name} --kills {kills} --count {count} --seed {seed}",
        "date": date.today().isoformat(),
        "cxredge": __version__,
        "machine": this_machine().text,
        "films": rows,
        "kills": len(moments),
        "runs_that_ended_in_between": ends,
        "equal_but_for_times": same,
        "unfinished_files_left": left,
        "moments": moments,
    }
    Console().print_json(json.dumps({key: value for key, value in found.items() if key != "moments"}))
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    raise typer.Exit(0 if same else 1)


def _scan(folder: Path, out: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "cxredge", "scan", str(folder), "--output", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603 - our own command


def _read(out: Path) -> int:
    """Films in the journal that a killed scan left; 0 where it was killed before there was one."""
    try:
        # Closed, not only left: an open journal, even of a reader, keeps the next scan out.
        with closing(sqlite3.connect(out / "journal.sqlite")) as journal:
            return int(journal.execute("SELECT count(*) FROM readings").fetchone()[0])
    except sqlite3.Error:
        return 0


def _compare(one: Path, other: Path) -> tuple[bool, int]:
    """Whether two runs' rows are the same but for the times, in the same order; and how many there are."""
    tables = []
    for out in (one, other):
        with (out / "results.csv").open(newline="", encoding="utf-8") as lines:
            tables.append(
                [{key: value for key, value in row.items() if not key.endswith("_ms")} for row in csv.DictReader(lines)]
            )
    return tables[0] == tables[1], len(tables[0])


if __name__ == "__main__":
    typer.run(main)
