"""Is it really quantized? What each engine makes of a graph's convolutions once it has optimised it."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import onnx
import onnxruntime

from cxredge.runtimes import Artifact, runtime
from cxredge.runtimes.openvino_ import OpenVinoSession


@dataclass(frozen=True)
class Fused:
    """Of so many convolutions, those that an engine computes in 8 bits from input to output."""

    quantized: int
    convolutions: int


def fused(engine: str, graph: Path) -> Fused:
    """As "onnxruntime" or "openvino" runs the graph on this processor."""
    return _by_onnxruntime(graph) if engine == "onnxruntime" else _by_openvino(graph)


def _by_onnxruntime(graph: Path) -> Fused:
    with tempfile.TemporaryDirectory() as scratch:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(Path(scratch) / "optimised.onnx")
        # It warns that such a file fits this processor only, which is what is asked.
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        kinds = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    whole = [kind for kind in kinds if kind.endswith("Conv")]
    return Fused(whole.count("QLinearConv"), len(whole))


def _by_openvino(graph: Path) -> Fused:
    session = cast(OpenVinoSession, runtime("openvino").load(Artifact("openvino", graph), 1))
    layers = [precision for kind, precision in session.layers() if kind == "Convolution"]
    session.close()
    return Fused(sum(precision in {"i8", "u8"} for precision in layers), len(layers))
