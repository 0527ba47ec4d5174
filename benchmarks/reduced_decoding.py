"""What `cxredge scan --reduced-decoding` saves in time and does to scores: the same DICOM films decoded whole and reduced.

    python tests/make_clinic_films.py data/chestxray14/images films 1000
    python -m cxredge.benchmarks.reduced_decoding films --output benchmarks/results/reduced-decoding.json

Only films that the option decodes otherwise count. Times are processor times of the decoding alone, medians per transfer syntax;
logits come from the shipped graph and from its full-precision parent.
"""

import json
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from cxredge import Scanner, __version__
from cxredge.devices import this_machine
from cxredge.errors import CxredgeError
from cxredge.imaging import Film, read_film
from cxredge.imaging.preprocess import decode
from cxredge.runtimes import Artifact, runtime


def main(
    films: Annotated[Path, typer.Argument(help="A folder of DICOM films, searched to the bottom.", show_default=False)],
    model: Annotated[str, typer.Option(help="A shipped model's name or a bundle's folder.")] = "chestxray14",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON with all figures.", show_default=False)
    ] = None,
) -> None:
    """Decode films both ways and say what it saves and how far grey levels, logits and priorities move."""
    whole_times: dict[str, list[float]] = defaultdict(list)
    reduced_times: dict[str, list[float]] = defaultdict(list)
    kept: list[Path] = []
    pairs: list[tuple[Film, Film]] = []
    with Scanner(model) as scanner, Scanner(model, reduced_decoding=True) as reducing:
        side = scanner.preprocessing.size
        for file in track(sorted(films.rglob("*.dcm")), "Decoding", transient=True):
            if decode(file, at_least=2 * side, reduced=True).block == 1:
                continue
            kept.append(file)
            pairs.append((read_film(file, scanner.preprocessing), read_film(file, scanner.preprocessing, reduced=True)))
            syntax = pairs[-1][0].tags["transfer_syntax"]
            for times, reduced in ((whole_times, False), (reduced_times, True)):
                begin = time.process_time()
                decode(file, at_least=2 * side, reduced=reduced)
                times[syntax].append(time.process_time() - begin)
        if not kept:
            raise CxredgeError(f"{films} holds no DICOM film that --reduced-decoding decodes otherwise")
        readings = [(scanner.read(file), reducing.read(file)) for file in kept]
        moved = Counter(f"{a.priority} to {b.priority}" for a, b in readings if a.priority != b.priority)
        bundle = scanner.bundle
    grey = np.stack([np.abs(a.image.astype(int) - b.image) for a, b in pairs])
    graphs = {"shipped": bundle.model} | ({"full precision": bundle.full_model} if bundle.full_model else {})
    found = {
        "command": f"python -m cxredge.benchmarks.reduced_decoding {films.name} --model {bundle.manifest.name}",
        "date": date.today().isoformat(),
        "cxredge": __version__,
        "machine": this_machine().text,
        "model_sha256": bundle.model_sha256,
        "films": len(kept),
        "milliseconds": {
            syntax: {
                "films": len(whole),
                "whole": round(1000 * statistics.median(whole), 1),
                "reduced": round(1000 * statistics.median(reduced_times[syntax]), 1),
            }
            for syntax, whole in whole_times.items()
        },
        "grey_levels": {
            "mean": round(float(grey.mean()), 4),
            "pixels_moved": round(float((grey > 0).mean()), 4),
            "pixels_moved_by_more_than_one": round(float((grey > 1).mean()), 6),
            "most": int(grey.max()),
        },
        "logits": {name: _moved(graph, pairs) for name, graph in graphs.items()},
        "priorities_moved": dict(moved),
    }
    Console().print_json(json.dumps(found))
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _moved(graph: Path, pairs: Sequence[tuple[Film, Film]]) -> dict[str, float]:
    """Absolute differences of logits between the two ways of decoding."""
    engine = runtime("onnxruntime")
    session = engine.load(Artifact("onnxruntime", graph), 1)

    def logits(films: Sequence[Film]) -> NDArray[np.float32]:
        return np.concatenate([session.run(film.image[None]).logits for film in films])

    off = np.abs(logits([whole for whole, _ in pairs]) - logits([reduced for _, reduced in pairs]))
    session.close()
    return {
        "mean": round(float(off.mean()), 4),
        "one_in_a_hundred": round(float(np.quantile(off, 0.99)), 4),
        "most": round(float(off.max()), 4),
        "of": int(off.size),
    }


if __name__ == "__main__":
    typer.run(main)
