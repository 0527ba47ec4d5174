"""Which channel counts do an engine's 8-bit depthwise kernels like? What pruning rounds to is chosen by it.

    python -m cxredge.compress.channel_counts --output benchmarks/results/channel-counts.json

A depthwise 3x3 convolution in QDQ form at each count, one thread, all counts in turns; the plot is written beside the figures.
With `--graph FILE`, besides, a quantized graph as it is and with its depthwise channels filled up (`compress.depthwise_padding`).
"""

import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import typer
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from cxredge import __version__
from cxredge.compress.depthwise_padding import fill_lanes
from cxredge.compress.measure import Job, measure
from cxredge.devices import this_machine
from cxredge.train.plots import drawing, svg

COUNTS = range(8, 168, 8)
ROUNDS = 60


def main(
    size: Annotated[int, typer.Option(help="Side of the maps, in pixels.")] = 56,
    graph: Annotated[
        Path | None,
        typer.Option(exists=True, help="A quantized graph of cxredge's, timed with its channels filled up too."),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Where to keep the figures as JSON.")] = None,
) -> None:
    """Microseconds of a depthwise convolution by its number of channels, in ONNX Runtime and OpenVINO."""
    films = {count: np.random.default_rng(count).integers(0, 255, (1, count, size, size), np.uint8) for count in COUNTS}
    engines = {
        engine: _microseconds({count: load(depthwise(count, size)) for count in COUNTS}, films)
        for engine, load in {"onnxruntime": _onnxruntime, "openvino": _openvino}.items()
    }
    found = {
        "command": f"python -m cxredge.compress.channel_counts --size {size}",
        "date": date.today().isoformat(),
        "cxredge": __version__,
        "machine": this_machine().text,
        "filled": _filled(graph) if graph else None,
        "microseconds": {engine: {str(count): us for count, us in row.items()} for engine, row in engines.items()},
    }
    Console().print_json(json.dumps(found))
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        output.with_suffix(".svg").write_text(_plot(engines), encoding="utf-8")


def _filled(graph: Path) -> dict[str, Any]:
    """Milliseconds of a film through a graph as it is and with its depthwise channels filled up, in turns, per engine."""
    film = np.random.default_rng(0).integers(0, 255, (1, 1, 224, 224), np.uint8)
    found: dict[str, Any] = {"sha256": hashlib.sha256(graph.read_bytes()).hexdigest()}
    with tempfile.TemporaryDirectory() as scratch:
        wide = Path(scratch) / "wide.onnx"
        found["convolutions_widened"] = fill_lanes(graph, wide)
        found["bytes"] = [graph.stat().st_size, wide.stat().st_size]
        for engine in ("onnxruntime", "openvino"):
            jobs = [Job(engine, each) for each in (graph, wide)]
            found[engine] = [round(statistics.median(each.milliseconds), 3) for each in measure(jobs, film)]
    return found


def depthwise(channels: int, size: int) -> onnx.ModelProto:
    """A depthwise 3x3 convolution, uint8 maps in and out, int8 weights with a scale per channel."""
    rng = np.random.default_rng(0)
    stored = {
        "scale": np.float32(0.02),
        "zero": np.uint8(0),
        "weight": rng.integers(-127, 127, (channels, 1, 3, 3), np.int8),
        "weight_scale": np.full(channels, 0.003, np.float32),
        "weight_zero": np.zeros(channels, np.int8),
        "bias": rng.normal(size=channels).astype(np.float32),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["maps", "scale", "zero"], ["floats"]),
        helper.make_node("DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["kernel"], axis=0),
        helper.make_node(
            "Conv", ["floats", "kernel", "bias"], ["sums"], kernel_shape=[3, 3], pads=[1] * 4, group=channels
        ),
        helper.make_node("QuantizeLinear", ["sums", "scale", "zero"], ["found"]),
    ]
    shape = [1, channels, size, size]
    graph = helper.make_graph(
        nodes,
        "depthwise",
        [helper.make_tensor_value_info("maps", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("found", TensorProto.UINT8, shape)],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


Run = Callable[[NDArray[np.uint8]], object]


def _onnxruntime(model: onnx.ModelProto) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda maps: session.run(None, {"maps": maps})


def _openvino(model: onnx.ModelProto) -> Run:
    import openvino

    core = openvino.Core()
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}
    request = core.compile_model(core.read_model(model.SerializeToString()), "CPU", options).create_infer_request()
    return lambda maps: request.infer({"maps": maps}, share_inputs=True, share_outputs=True)


def _microseconds(runs: dict[int, Run], films: dict[int, NDArray[np.uint8]]) -> dict[int, float]:
    """Median of each count, all of them in turns."""
    times: dict[int, list[float]] = {count: [] for count in runs}
    for number in range(ROUNDS + 5):
        for count, run in runs.items():
            started = time.perf_counter()
            run(films[count])
            if number >= 5:
                times[count].append((time.perf_counter() - started) * 1e6)
    return {count: round(statistics.median(taken), 1) for count, taken in times.items()}


def _plot(engines: dict[str, dict[int, float]]) -> str:
    with drawing(6.4, 3.6) as (figure, axes):
        ax = axes[0, 0]
        for engine, row in engines.items():
            ax.plot(list(row), list(row.values()), marker="o", ms=4, label=engine)
        ax.set_xticks(list(COUNTS)[1::2])
        ax.set(xlabel="channels of a depthwise convolution, 8 bits", ylabel="microseconds, one thread", ylim=(0, None))
        ax.legend()
        return svg(figure)


if __name__ == "__main__":
    typer.run(main)
