"""The graph in 16-bit floats, for engines that take types as they stand in the graph (TensorRT, strongly typed)."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from cxredge.compress.onnx_graph import beside_the_network

_CAST_TO = {"float16": onnx.TensorProto.FLOAT16, "float32": onnx.TensorProto.FLOAT}


def to_half(folded: Path, out: Path) -> None:
    """Write the graph with everything between the image's scaling and the head in float16.

    folded: a float32 graph whose constants are folded. Head, logits and the distance from the training films stay in float32:
    squared distances overflow 16 bits, and outputs keep the contract's type.
    """
    model = onnx.load(folded)
    halves = _in_half(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    made_in = {name: node.name in halves for node in model.graph.node for name in node.output}
    nodes: list[onnx.NodeProto] = []
    done: dict[tuple[str, str], str] = {}

    def as_type(name: str, kind: str) -> str:
        """The tensor's name in that type; made once, by converting a constant or by a Cast."""
        if (name, kind) not in done:
            done[name, kind] = other = f"{name}.{kind}"
            if name in constants:
                values: NDArray[np.generic] = numpy_helper.to_array(constants[name]).astype(kind)
                model.graph.initializer.append(numpy_helper.from_array(values, other))
            else:
                nodes.append(onnx.helper.make_node("Cast", [name], [other], name=f"{other}.cast", to=_CAST_TO[kind]))
        return done[name, kind]

    for node in model.graph.node:
        half = node.name in halves
        for i, name in enumerate(node.input):
            if name in constants and half and constants[name].data_type == onnx.TensorProto.FLOAT:
                node.input[i] = as_type(name, "float16")
            elif name in made_in and made_in[name] != half:
                node.input[i] = as_type(name, "float16" if half else "float32")
        nodes.append(node)
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
        model.graph.initializer.remove(tensor)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, out)


def _in_half(model: onnx.ModelProto) -> set[str]:
    """Names of the nodes to compute in float16: the convolutions and what follows them, but for what stays in float."""
    kept = set(beside_the_network(model))
    found: set[str] = set()
    made: set[str] = set()
    for node in model.graph.node:  # in the order they run, as ONNX requires
        if node.name not in kept and (node.op_type == "Conv" or made & set(node.input)):
            found.add(node.name)
            made |= set(node.output)
    return found
