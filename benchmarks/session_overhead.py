"""What our sessions cost on top of the engines: `Session.run` beside a bare loop over the same engine, and OpenVINO's own tool.

    python -m cxredge.benchmarks.session_overhead --output benchmarks/results/session-overhead.json

All loops are interleaved film by film in one process, in random order, so that a busy machine hits all alike.
OpenVINO's `benchmark_app -hint latency` is a program of its own: its runs alternate with runs of our session of the same
length, and the ratio is the median over the pairs. Exit code 1 when a ratio exceeds the limit.
"""

import json
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from cxredge import __version__
from cxredge.bundle import Bundle, open_bundle
from cxredge.devices import this_machine
from cxredge.runtimes import Artifact, runtime

LIMIT = 1.05
WARM_UP = 20
# Its import alone would report to OpenVINO's maker.
APP = "import sys; sys.modules['openvino_telemetry'] = None; from openvino.tools.benchmark.main import main; main()"
Loop = Callable[[NDArray[np.uint8]], object]


def bare_onnxruntime(model: Path) -> Loop:
    """The plain loop of ONNX Runtime's own documentation, with one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"image": image})


def bare_openvino(model: Path, precision: str, **more: object) -> Loop:
    """The plain loop of OpenVINO's own documentation, with one thread and a fixed shape. more: options beyond its own choice."""
    import openvino

    core = openvino.Core()
    graph = core.read_model(model)
    graph.reshape([1, *list(graph.input().partial_shape)[1:]])
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": precision, **more}
    request = core.compile_model(graph, "CPU", options).create_infer_request()
    return lambda image: request.infer({0: image})


def ours(name: str, model: Path, threads: int = 1) -> Loop:
    """Our session of that engine; with one thread as a scan uses it."""
    return runtime(name).load(Artifact(name, model), threads).run


def interleaved(loops: dict[str, Loop], images: NDArray[np.uint8], films: int) -> dict[str, list[float]]:
    """Milliseconds of every call, all loops with the same film in a random order. images: uint8 [N, 1, H, W].

    Were the order fixed, each loop would always inherit the same neighbour's caches and core.
    """
    rng = np.random.default_rng(0)
    samples: dict[str, list[float]] = {name: [] for name in loops}
    for i in range(-WARM_UP, films):
        image = np.ascontiguousarray(images[i % len(images)][None])
        for name in rng.permutation(list(loops)):
            begun = time.perf_counter()
            loops[name](image)
            if i >= 0:
                samples[name].append(1000 * (time.perf_counter() - begun))
    return samples


def against_benchmark_app(model: Path, images: NDArray[np.uint8], pairs: int, seconds: int) -> dict[str, Any]:
    """Medians in ms of OpenVINO's own tool and of our session, run in turn for `seconds` each, and their ratios.

    With the hint the tool takes every core and cannot be told otherwise, so the session has as many threads.
    """
    session = ours("openvino", model, this_machine().cores)
    shape = ",".join(map(str, images[:1].shape))
    options = ["-hint", "latency", "-api", "sync", "-infer_precision", "CPU:f32", "-shape", f"[{shape}]"]
    theirs, found = [], []
    for _ in range(pairs):
        words = [sys.executable, "-c", APP, "-m", str(model), "-d", "CPU", "-t", str(seconds), *options]
        run = subprocess.run(words, capture_output=True, text=True, check=True)  # noqa: S603 - our own interpreter
        said = re.search(r"Median:\s+([\d.]+) ms", run.stdout)
        if said is None:
            raise RuntimeError(f"benchmark_app gave no median:\n{run.stdout[-2000:]}")
        theirs.append(float(said[1]))
        times: list[float] = []
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            begun = time.perf_counter()
            session(images[len(times) % len(images)][None])
            times.append(1000 * (time.perf_counter() - begun))
        found.append(statistics.median(times))
    ratios = [a / b for a, b in zip(found, theirs, strict=True)]
    said_options = f"benchmark_app -d CPU {' '.join(options)}"
    return {
        "command": said_options,
        "threads": this_machine().cores,
        "benchmark_app_ms": theirs,
        "session_ms": found,
        "ratios": ratios,
    }


def measure(bundle: Bundle, films: int, pairs: int, seconds: int) -> dict[str, Any]:
    """Everything, with the ratios that decide first."""
    # Ours first: it keeps OpenVINO's telemetry from being loaded.
    loops = {
        "openvino session": ours("openvino", bundle.model),
        "onnxruntime session": ours("onnxruntime", bundle.model),
    }
    loops |= {
        "onnxruntime bare": bare_onnxruntime(bundle.model),
        "openvino bare": bare_openvino(bundle.model, "f32"),
        "openvino bare, caller's thread": bare_openvino(bundle.model, "f32", NUM_STREAMS=0, ENABLE_CPU_PINNING=False),
        "openvino bare, bfloat16": bare_openvino(bundle.model, "bf16"),
    }
    with np.load(bundle.reference) as stored:
        images = stored["images"]
    samples = interleaved(loops, images, films)
    medians = {name: statistics.median(times) for name, times in samples.items()}
    undisturbed = {name: float(np.percentile(times, 10)) for name, times in samples.items()}
    # The plain loop pins its thread, which on a busy machine makes it slow: the faster of the two is the one to be held against.
    bare_medians = [medians[name] for name in ("openvino bare", "openvino bare, caller's thread")]
    app = against_benchmark_app(bundle.model, images, pairs, seconds)
    return {
        "ratio_onnxruntime_session_to_bare": round(medians["onnxruntime session"] / medians["onnxruntime bare"], 3),
        "ratio_openvino_session_to_bare": round(medians["openvino session"] / min(bare_medians), 3),
        "ratio_openvino_session_to_benchmark_app": round(statistics.median(app["ratios"]), 3),
        "ratio_openvino_to_onnxruntime": round(medians["openvino session"] / medians["onnxruntime session"], 3),
        "ratio_openvino_to_onnxruntime_undisturbed": round(
            undisturbed["openvino session"] / undisturbed["onnxruntime session"], 3
        ),
        "p10_ms": {name: round(value, 3) for name, value in undisturbed.items()},
        "median_ms": {name: round(value, 3) for name, value in medians.items()},
        "benchmark_app": app,
        "samples_ms": {name: [round(value, 3) for value in times] for name, times in samples.items()},
    }


def main(
    model: Annotated[str, typer.Option(help="A shipped model's name or a bundle's folder.")] = "chestxray14",
    films: Annotated[int, typer.Option(min=20, help="Calls of each loop.")] = 1000,
    pairs: Annotated[int, typer.Option(min=1, help="Runs of benchmark_app, and of our session beside it.")] = 7,
    seconds: Annotated[int, typer.Option(min=1, help="Length of each of those runs.")] = 4,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON with every sample.", show_default=False)
    ] = None,
) -> None:
    """Session overhead: our median over the engine's own, for both engines of the CPU."""
    bundle = open_bundle(model)
    found = {
        "command": f"python -m cxredge.benchmarks.session_overhead --films {films} --pairs {pairs} --seconds {seconds}",
        "date": date.today().isoformat(),
        "cxredge": __version__,
        "python": platform.python_version(),
        "machine": this_machine().text,
        "engines": {name: runtime(name).version() for name in ("onnxruntime", "openvino")},
        "model_sha256": bundle.model_sha256,
        "limit": LIMIT,
        **measure(bundle, films, pairs, seconds),
    }
    Console().print_json(json.dumps({key: value for key, value in found.items() if key != "samples_ms"}))
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    held = [found[key] <= LIMIT for key in found if "session_to" in key]
    raise typer.Exit(0 if all(held) else 1)


if __name__ == "__main__":
    typer.run(main)
