"""Does a scan's memory stay flat however many films there are?

    python tests/make_clinic_films.py data/chestxray14/images films 1000
    python -m cxredge.benchmarks.flat_memory films --copies 10 --output benchmarks/results/flat-memory.json

The folder is scanned as it is, and once more with so many copies of every film (as links of other names, which are read, decoded
and scored like any film, and told apart from their originals in the worklist only). Memory is the peak of the process, VmHWM,
which the kernel keeps; it is looked at once a second.
"""

import json
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
from cxredge.bundle.bundle import DEFAULT, open_bundle
from cxredge.devices import this_machine

LOOK_EVERY_S = 1.0


@dataclass(frozen=True)
class Look:
    """Seconds since the scan was started, and the peak so far in MB (10^6 bytes)."""

    seconds: float
    peak_rss_mb: float


@dataclass(frozen=True)
class Scan:
    """One scan to its end."""

    films: int
    seconds: float
    peak_rss_mb: float
    looks: list[Look]


def scan(folder: Path, out: Path, words: list[str]) -> Scan:
    """Scan a folder in a process of its own. Raises RuntimeError when it fails."""
    begin, looks = time.perf_counter(), []
    command = [sys.executable, "-m", "cxredge", "scan", str(folder), "--output", str(out), *words]
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)  # noqa: S603 - our own command
        while child.poll() is None:
            if (peak := _peak_mb(child.pid)) is not None:
                looks.append(Look(round(time.perf_counter() - begin, 1), peak))
            time.sleep(LOOK_EVERY_S)
        if child.returncode not in (0, 1):
            errors.seek(0)
            raise RuntimeError(f"{' '.join(command)}: {errors.read().decode(errors='replace')[-2000:]}")
    return Scan(
        films=json.loads((out / "summary.json").read_text(encoding="utf-8"))["films"],
        seconds=time.perf_counter() - begin,
        peak_rss_mb=max(look.peak_rss_mb for look in looks),
        looks=looks,
    )


def _peak_mb(process: int) -> float | None:
    """None when it has just ended."""
    status = Path(f"/proc/{process}/status")
    try:
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    told = [line for line in lines if line.startswith("VmHWM:")]
    return int(told[0].split()[1]) * 1024 / 1e6 if told else None


def main(
    films: Annotated[Path, typer.Argument(help="A folder of films.", show_default=False)],
    copies: Annotated[int, typer.Option(min=2, help="Of every film, in the second scan.")] = 10,
    model: Annotated[str, typer.Option(help="A shipped model's name or a bundle's folder.")] = DEFAULT,
    reduced_decoding: Annotated[bool, typer.Option("--reduced-decoding", help="Scan with that option.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON with the figures.", show_default=False)
    ] = None,
) -> None:
    """Peak memory of a scan of a folder, and of so many times as many films. Linux only."""
    words = ["--model", model, *(["--reduced-decoding"] if reduced_decoding else [])]
    files = sorted(path for path in films.rglob("*") if path.is_file())
    with tempfile.TemporaryDirectory() as scratch:
        many = Path(scratch) / "many"
        for number in range(copies):
            part = many / f"{number:02}"
            part.mkdir(parents=True)
            for file in files:
                (part / file.name).symlink_to(file.resolve())
        few, lots = (scan(folder, Path(scratch) / name, words) for folder, name in ((films, "few"), (many, "lots")))
    found = {
        "command": f"python -m cxredge.benchmarks.flat_memory {films.name} --copies {copies} {' '.join(words)}",
        "date": date.today().isoformat(),
        "cxredge": __version__,
        "machine": this_machine().text,
        "model_sha256": open_bundle(model).model_sha256,
        "once": asdict(few) | {"looks": []},
        "copies": asdict(lots) | {"looks": [asdict(look) for look in lots.looks[:: max(1, len(lots.looks) // 50)]]},
    }
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for each in (few, lots):
        Console().print(f"{each.films} films: peak {each.peak_rss_mb:.0f} MB, {each.seconds:.0f} s", highlight=False)


if __name__ == "__main__":
    typer.run(main)
