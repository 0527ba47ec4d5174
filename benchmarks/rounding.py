"""How far do a model's logits move when a film moves by next to nothing, and how much of that is INT8 rounding?

    python -m cxredge.benchmarks.rounding data/chestxray14 --output benchmarks/results/rounding.json

Test films with one pixel in ten a grey level up or down, and WG-04's film RG1 in a reversible and an irreversible encoding (from
the package pydicom-data), through the shipped graph and its full-precision parent. Then the same with more and more of the first
convolutions taken out of the rounding, and what that costs in time: a compression recipe's `float_layers` is chosen by it.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

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
# Of the first convolutions, as many in float: the stem alone, then to the end of MobileNetV2's first, second and third block.
IN_FLOAT = (1, 3, 6, 9)
ROUNDS, BLOCK = 20, 5


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
    with tempfile.TemporaryDirectory() as scratch:
        fewer = {number: in_float(bundle.model, number, Path(scratch) / f"{number}.onnx") for number in IN_FLOAT}
        first = [
            {"convolutions": number, **_figures(graph, still, moved, encodings), "milliseconds": took}
            for (number, graph), took in zip(fewer.items(), _times(list(fewer.values()), still[0]), strict=True)
        ]
    found = {
        "command": f"python -m cxredge.benchmarks.rounding {data.name} --model {bundle.manifest.name} --films {films}",
        "date": date.today().isoformat(),
        "cxredge": __version__,
        "machine": this_machine().text,
        "model_sha256": bundle.model_sha256,
        "films": len(still),
        "pixels_of_rg1_that_differ": float((encodings[0] != encodings[1]).mean()),
        "graphs": {name: _figures(graph, still, moved, encodings) for name, graph in graphs.items()},
        "first_convolutions_in_float": first,
    }
    Console().print_json(json.dumps(found))
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def in_float(graph: Path, number: int, out: Path) -> Path:
    """Write a quantized graph with the first convolutions reading what was not rounded; their weights stay as they are."""
    import onnx

    model = onnx.load(graph)
    nodes = model.graph.node
    maker = {name: node for node in nodes for name in node.output}
    for convolution in [node for node in nodes if node.op_type == "Conv"][:number]:
        dequantize = maker[convolution.input[0]]
        if dequantize.op_type == "DequantizeLinear":
            convolution.input[0] = maker[dequantize.input[0]].input[0]
    # What nobody reads any more would still be computed.
    while unread := _unread(model):
        for node in unread:
            nodes.remove(node)
    onnx.save(model, out)
    return out


def _unread(model: Any) -> list[Any]:
    read = {name for node in model.graph.node for name in node.input} | {output.name for output in model.graph.output}
    return [node for node in model.graph.node if not read & set(node.output)]


def _times(graphs: Sequence[Path], film: NDArray[np.uint8]) -> list[dict[str, float]]:
    """Median milliseconds of each graph on one thread, by engine, the graphs in turns."""
    found: list[dict[str, float]] = [{} for _ in graphs]
    for engine in ("onnxruntime", "openvino"):
        if runtime(engine).available() is not True:
            continue
        sessions = [runtime(engine).load(Artifact(engine, graph), 1) for graph in graphs]
        samples: list[list[float]] = [[] for _ in graphs]
        for number in range(ROUNDS):
            for session, sample in zip(sessions, samples, strict=True):
                for _ in range(BLOCK):
                    begin = time.perf_counter()
                    session.run(film[None])
                    if number:
                        sample.append(1000 * (time.perf_counter() - begin))
        for session, sample, row in zip(sessions, samples, found, strict=True):
            row[engine] = round(statistics.median(sample), 2)
            session.close()
    return found


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
