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
    """Of so many convolutions, those that an engine computes in 8 bits from input to output; in_float: names of the others, where
    not all of them are."""

    quantized: int
    convolutions: int
    in_float: tuple[str, ...] = ()


def fused(engine: str, graph: Path) -> Fused:
    """As "onnxruntime" or "openvino" runs the graph on this processor."""
    quantized = _by_onnxruntime(graph) if engine == "onnxruntime" else _by_openvino(graph)
    every = [_layer(node.name) for node in onnx.load(graph).graph.node if node.op_type == "Conv"]
    floats = tuple(name for name in every if name not in quantized)
    return Fused(len(every) - len(floats), len(every), floats if quantized else ())


def _by_onnxruntime(graph: Path) -> set[str]:
    with tempfile.TemporaryDirectory() as scratch:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(Path(scratch) / "optimised.onnx")
        # It warns that such a file fits this processor only, which is what is asked.
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(options.optimized_model_filepath).graph.node
    return {_layer(node.name) for node in nodes if node.op_type == "QLinearConv"}


def _by_openvino(graph: Path) -> set[str]:
    session = cast(OpenVinoSession, runtime("openvino").load(Artifact("openvino", graph), 1))
    layers = session.layers()
    session.close()
    return {_layer(name) for kind, precision, name in layers if kind == "Convolution" and precision in {"i8", "u8"}}


def _layer(name: str) -> str:
    """A convolution as the network calls it: what an engine appends to the name is cut off."""
    # At the last one: Inception-v3 calls its modules `Conv2d_1a_3x3` and the like.
    return (name.rpartition("/Conv")[0] or name).strip("/")
