"""How far do a model's logits move when a film moves by next to nothing, and how much of that is INT8 rounding?

    python -m cxredge.benchmarks.rounding data/chestxray14 --output benchmarks/results/rounding.json

Test films with one pixel in ten a grey level up or down, and WG-04's film RG1 in a reversible and an irreversible encoding (from
the package pydicom-data), through the shipped graph and its full-precision parent.
"""

import json
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from cxredge import __version__
from cxredge.bundle import open_bundle
from cxredge.devices import this_machine
from cxredge.imaging import Preprocessing, read_film
from cxredge.runtimes import Artifact, runtime
from cxredge.train.sources import read_source

MOVED = 0.1


def main(
    data: Annotated[Path, typer.Argument(help="A data set in its published layout.", show_default=False)],
    model: Annotated[str, typer.Option(help="A shipped model's name or a bundle's folder.")] = "chestxray14",
    films: Annotated[int, typer.Option(min=1, help="Test films to move.")] = 200,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON with all figures.", show_default=False)
    ] = None,
) -> None:
    """Move films by one grey level in a tenth of their pixels and say how far the logits follow."""
    bundle = open_bundle(model)
    record = bundle.manifest.preprocessing
    preprocessing = Preprocessing(size=record.size, clahe=record.clahe)
    rng = np.random.default_rng(0)
    files = read_source(data).split("test").files
    chosen = np.sort(rng.choice(len(files), min(films, len(files)), replace=False))
    still = [read_film(files[i], preprocessing).image for i in chosen]
    moved = [_move(film, rng) for film in still]
    encodings = [
        read_film(Path(str(resources.files("data_store") / "data" / f"RG1_{name}.dcm")), preprocessing).image
        for name in ("UNCR", "UNCI")
    ]
    graphs = {"shipped": bundle.model} | ({"full precision": bundle.full_model} if bundle.full_model else {})
    found = {
        "command": f"python -m cxredge.benchmarks.rounding {data.name} --model {bundle.manifest.name} --films {films}",
        "date": date.today().isoformat(),
        "cxredge": __version__,
        "machine": this_machine().text,
        "model_sha256": bundle.model_sha256,
        "films": len(still),
        "pixels_of_rg1_that_differ": float((encodings[0] != encodings[1]).mean()),
        "graphs": {name: _figures(graph, still, moved, encodings) for name, graph in graphs.items()},
    }
    Console().print_json(json.dumps(found))
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _move(film: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    step = rng.choice([-1, 1], film.shape) * (rng.random(film.shape) < MOVED)
    moved: NDArray[np.uint8] = np.clip(film.astype(np.int16) + step, 0, 255).astype(np.uint8)
    return moved


def _figures(
    graph: Path, still: list[NDArray[np.uint8]], moved: list[NDArray[np.uint8]], encodings: list[NDArray[np.uint8]]
) -> dict[str, float]:
    """Absolute differences of logits, over films and findings; of the two encodings the largest."""
    session = runtime("onnxruntime").load(Artifact("onnxruntime", graph), 1)

    def logits(films: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        return np.concatenate([session.run(film[None]).logits for film in films])

    off = np.abs(logits(moved) - logits(still))
    one, other = logits(encodings)
    return {
        "mean": round(float(off.mean()), 4),
        "p99": round(float(np.quantile(off, 0.99)), 4),
        "largest": round(float(off.max()), 4),
        "rg1_largest": round(float(np.abs(one - other).max()), 4),
    }


if __name__ == "__main__":
    typer.run(main)
