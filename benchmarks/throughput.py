"""How fast a folder of a clinic's films is read, beside a loop that only decodes them and beside a plain script.

    python tests/make_clinic_films.py data/chestxray14/images films 1000
    python -m cxredge.benchmarks.throughput films --output benchmarks/results/throughput.json

The films are split into rounds, or all of them are read in every round (`--whole`): then start-up and report are shared by as
many films as in a clinic's folder of that size. In each round the same films are read by `cxredge scan` (report, heat maps,
journal and all), by processes on all cores that decode them with cxredge's own decoders and do nothing else, and by a plain
script (pydicom or Pillow, then torch's DenseNet121, one film at a time, torch's own choice of threads); each in a process of its
own, the files read once before. Ratios are of wall times within a round; processor times stand beside them, since other work on
a machine moves those less. Memory is the peak RSS that the operating system reports for the child.
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
from cxredge.benchmarks.process import Child, run
from cxredge.bundle.bundle import DEFAULT, open_bundle
from cxredge.devices import this_machine

DECODE_ONLY = """
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from cxredge.benchmarks.process import Child, run
from cxredge.devices import this_machine
from cxredge.imaging.preprocess import decode

def one(file):
    decode(file, at_least=448, reduced=len(sys.argv) > 2)

if __name__ == "__main__":
    with ProcessPoolExecutor(this_machine().cores) as pool:
        for _ in pool.map(one, sorted(Path(sys.argv[1]).iterdir()), chunksize=4):
            pass
"""
# What somebody writes who has films, a network and an afternoon.
PLAIN = """
import sys
from pathlib import Path
import numpy as np
import pydicom
import torch
from PIL import Image
from cxredge.train.torchvision_guard import import_torchvision

network = import_torchvision().models.densenet121(weights=None, num_classes=14).eval()
for file in sorted(Path(sys.argv[1]).iterdir()):
    if file.suffix == ".dcm":
        pixels = pydicom.dcmread(file).pixel_array.astype(np.float32)
    else:
        pixels = np.asarray(Image.open(file).convert("L"), np.float32)
    pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min())
    film = torch.from_numpy(pixels)[None, None]
    film = torch.nn.functional.interpolate(film, (224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        torch.sigmoid(network(film.expand(1, 3, 224, 224)))
"""


def main(
    films: Annotated[
        Path, typer.Argument(help="A folder as tests/make_clinic_films.py writes it.", show_default=False)
    ],
    model: Annotated[str, typer.Option(help="That the scan reads with; a shipped model's name or a bundle.")] = DEFAULT,
    rounds: Annotated[int, typer.Option(min=1)] = 4,
    whole: Annotated[bool, typer.Option(help="Read all films in every round, not a part of them in each.")] = False,
    reduced_decoding: Annotated[
        bool, typer.Option("--reduced-decoding", help="Scan, and decode alone, with this option of the scan's.")
    ] = False,
    plain: Annotated[bool, typer.Option(help="Run the plain script too; it needs torch and torchvision.")] = True,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON with every sample.", show_default=False)
    ] = None,
) -> None:
    """Films a second of `cxredge scan`, of decoding alone and of a plain script, side by side."""
    files = sorted(films.iterdir())
    samples: dict[str, list[Child]] = {"scan": [], "decode": [], **({"plain": []} if plain else {})}
    counts = []
    with tempfile.TemporaryDirectory() as scratch:
        programs = {"decode": Path(scratch) / "decode_only.py", "plain": Path(scratch) / "plain.py"}
        programs["decode"].write_text(DECODE_ONLY, encoding="utf-8")
        programs["plain"].write_text(PLAIN, encoding="utf-8")
        # As installed: compiled modules are kept, which a developer's environment may have turned off.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["XDG_CACHE_HOME"] = os.environ["XDG_DATA_HOME"] = f"{scratch}/cache"
        for number in range(rounds):
            part = Path(scratch) / f"round{number}"
            part.mkdir()
            share = files if whole else files[len(files) * number // rounds : len(files) * (number + 1) // rounds]
            for file in share:
                (part / file.name).symlink_to(file.resolve())
                file.read_bytes()
            counts.append(len(list(part.iterdir())))
            scan = [sys.executable, "-m", "cxredge", "scan", str(part), "--model", model, "--output"]
            if number == 0:
                # The self-test runs here, as it does once on a clinic's machine, and modules are compiled.
                first = [str(file) for file in share[:20]]
                run([*scan[:4], *first, *scan[5:], f"{scratch}/first"])
            reduced = ["--reduced-decoding"] if reduced_decoding else []
            commands = {
                "scan": [*scan, f"{part}-out", *reduced],
                "decode": [sys.executable, str(programs["decode"]), str(part), *reduced],
                "plain": [sys.executable, str(programs["plain"]), str(part)],
            }
            for name in samples if number % 2 == 0 else reversed(samples):
                samples[name].append(run(commands[name]))
    found = {
        "command": f"python -m cxredge.benchmarks.throughput {films.name} --model {model} --rounds {rounds}"
        f"{' --whole' if whole else ''}{' --reduced-decoding' if reduced_decoding else ''}{'' if plain else ' --no-plain'}",
        "date": date.today().isoformat(),
        "cxredge": __version__,
        "python": platform.python_version(),
        "machine": this_machine().text,
        "model_sha256": open_bundle(model).model_sha256,
        "load_average_after": os.getloadavg(),
        "films": sum(counts),
        "films_per_second": {
            name: round(sum(counts) / sum(child.seconds for child in children), 2) for name, children in samples.items()
        },
        "processor_ms_per_film": {
            name: round(1000 * sum(child.processor_seconds for child in children) / sum(counts), 1)
            for name, children in samples.items()
        },
        "scan_peak_rss_mb": round(max(child.peak_rss_mb for child in samples["scan"]), 1),
        "ratios": {name: _ratios(samples["scan"], children) for name, children in samples.items() if name != "scan"},
        "samples": {name: [asdict(child) for child in children] for name, children in samples.items()},
    }
    Console().print_json(json.dumps({key: value for key, value in found.items() if key != "samples"}))
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _ratios(scan: list[Child], other: list[Child]) -> dict[str, object]:
    """How many times as fast as the other the scan is: per round, and the median."""
    wall = [theirs.seconds / ours.seconds for ours, theirs in zip(scan, other, strict=True)]
    work = [theirs.processor_seconds / ours.processor_seconds for ours, theirs in zip(scan, other, strict=True)]
    return {
        "wall_median": round(statistics.median(wall), 3),
        "wall": [round(ratio, 3) for ratio in wall],
        "processor_median": round(statistics.median(work), 3),
    }


if __name__ == "__main__":
    typer.run(main)
