"""What single weights set to zero bring in each runtime, measured: why no step of a recipe makes a network sparse.

    python -m cxredge.compress.sparsity --output benchmarks/results/sparsity.json

Of every convolution of a bundle's network the smallest weights become zero, in the full-precision graph and in the 8-bit one, and
dense and sparse graphs run in turns. The zeros' accuracy is not asked for: that they are no faster settles it.
"""

import gzip
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import typer
from numpy.typing import NDArray
from onnx import numpy_helper
from rich.console import Console

from cxredge import __version__
from cxredge.bundle import open_bundle
from cxredge.devices import this_machine
from cxredge.errors import CxredgeError
from cxredge.runtimes import Artifact, Session, Tuning, runtime

ENGINES = ("onnxruntime", "openvino")
ROUNDS, BLOCK = 8, 20


def make_sparse(graph: Path, share: float, out: Path) -> float:
    """Write a graph whose kernels have that share of zeros, the smallest weights of each; returns the share there is in all."""
    model = onnx.load(graph)
    zeros = weights = 0
    for tensor in model.graph.initializer:
        if len(tensor.dims) != 4:
            continue
        values = numpy_helper.to_array(tensor).copy()
        flat = values.reshape(-1)
        # In 8 bits many weights are equally small, so they are counted and not compared with a threshold.
        flat[np.argsort(np.abs(flat.astype(np.float32)), kind="stable")[: round(share * flat.size)]] = 0
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        zeros, weights = zeros + int((flat == 0).sum()), weights + flat.size
    onnx.save(model, out)
    return zeros / weights


def _in_turns(sessions: Sequence[Session], image: NDArray[np.uint8]) -> list[list[float]]:
    """Of each session the milliseconds of processor time a film, one figure a round; image: uint8 [1, 1, H, W].

    Processor time and not the clock's: on one thread it is the same, and other programs on the machine do not enter it.
    """
    taken: list[list[float]] = [[] for _ in sessions]
    for number in range(ROUNDS + 1):
        for session, own in zip(sessions, taken, strict=True):
            begin = time.process_time()
            for _ in range(BLOCK):
                session.run(image)
            # The first round warms up.
            if number:
                own.append((time.process_time() - begin) * 1000 / BLOCK)
    return taken


def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON file to write.", show_default=False)],
    model: Annotated[str, typer.Option(help="A bundle's folder, or a shipped model's name.")] = "chestxray14",
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Of the weights of each convolution, zeros.")] = 0.7,
) -> None:
    """Time dense and sparse graphs in turns, one film at a time on one thread, and write what was measured."""
    bundle = open_bundle(model)
    if bundle.full_model is None:
        raise CxredgeError(f"{model} carries no full-precision network")
    with np.load(bundle.reference) as stored:
        image = stored["images"][:1]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        plans, sessions = [], []
        for form, graph in (("full precision", bundle.full_model), ("8 bits", bundle.model)):
            sparse = Path(scratch) / f"{graph.stem}-sparse.onnx"
            zeros = make_sparse(graph, share, sparse)
            for engine in ENGINES:
                for file, there in ((graph, 0.0), (sparse, zeros)):
                    plans.append((form, engine, file, there))
                    sessions.append(runtime(engine).load(Artifact(engine, file), 1, Tuning(spinning=False, arena=True)))
        for (form, engine, file, there), taken in zip(plans, _in_turns(sessions, image), strict=True):
            stored_as = file.read_bytes()
            rows.append(
                {
                    "form": form,
                    "engine": engine,
                    "zeros": round(there, 3),
                    "cpu_ms": round(statistics.median(taken), 3),
                    "rounds_cpu_ms": [round(each, 3) for each in taken],
                    "file_mb": round(len(stored_as) / 1e6, 3),
                    "gzipped_mb": round(len(gzip.compress(stored_as)) / 1e6, 3),
                }
            )
        for session in sessions:
            session.close()
    said = {
        "command": f"python -m cxredge.compress.sparsity --model {model} --share {share:g}",
        "date": date.today().isoformat(),
        "cxredge": __version__,
        "machine": this_machine().text,
        "engines": {engine: runtime(engine).version() for engine in ENGINES},
        "model_sha256": bundle.model_sha256,
        "rows": rows,
    }
    output.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        Console().print(f"{row['form']}, {row['engine']}, {row['zeros']:.0%} zeros: {row['cpu_ms']} ms", soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
