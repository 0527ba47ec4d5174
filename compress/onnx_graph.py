"""Finding one's way in an exported graph; without torch, so that a build needs none."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper


class Index:
    """An ONNX graph with what it stores, and who makes and who reads each tensor.

    added: nodes that `tidy` is to put into the graph, wherever they belong.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.stored: dict[str, NDArray[Any]] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }
        self.maker = {name: node for node in model.graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.outputs = {output.name for output in model.graph.output}
        self.added: list[onnx.NodeProto] = []

    def store(self, name: str, values: NDArray[np.generic]) -> str:
        """Keep an array under a name."""
        self.model.graph.initializer.append(numpy_helper.from_array(values, name))
        self.stored[name] = values
        return name

    def kind(self, name: str) -> str:
        """What makes a tensor, "" for an input or a stored one."""
        return self.maker[name].op_type if name in self.maker else ""

    def tidy(self) -> None:
        """Leave out what nobody reads any more, and bring all nodes into an order of execution."""
        graph = self.model.graph
        # Copies outlive the lists that are emptied below.
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self._in_order()]
        used = {name for node in kept for name in node.input}
        stored = [
            onnx.TensorProto.FromString(tensor.SerializeToString())
            for tensor in graph.initializer
            if tensor.name in used
        ]
        # Shapes noted for what was there before may be wrong.
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(kept)
        graph.initializer.extend(stored)

    def _in_order(self) -> Sequence[onnx.NodeProto]:
        maker = {name: node for node in (*self.model.graph.node, *self.added) for name in node.output}
        ordered: dict[str, onnx.NodeProto] = {}
        waiting = [(output.name, False) for output in reversed(self.model.graph.output)]
        while waiting:
            name, ready = waiting.pop()
            node = maker.get(name)
            if node is None or node.output[0] in ordered:
                continue
            if ready:
                ordered[node.output[0]] = node
            else:
                waiting.append((name, True))
                waiting += [(needed, False) for needed in node.input]
        return list(ordered.values())


def head_node(model: onnx.ModelProto) -> onnx.NodeProto:
    """The convolution that makes the maps of `cam`: the last one before it."""
    before = feeding(model, "cam")
    found: onnx.NodeProto = [node for node in model.graph.node if node.name in before and node.op_type == "Conv"][-1]
    return found


def offset_weight(model: onnx.ModelProto) -> str | None:
    """The weights [hidden, L] of the product that makes the offsets of the logits from metadata; None where there are none.

    The maps need no product, so the last one before the logits is it.
    """
    if not any(given.name == "metadata" for given in model.graph.input):
        return None
    beside = feeding(model, "logits") - feeding(model, "cam")
    last = [node for node in model.graph.node if node.name in beside and node.op_type == "MatMul"][-1]
    return str(last.input[1])


def feeding(model: onnx.ModelProto, output: str) -> set[str]:
    """Names of the nodes that an output depends on."""
    maker = {name: node for node in model.graph.node for name in node.output}
    found: set[str] = set()
    waiting = [output]
    while waiting:
        node = maker.get(waiting.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            waiting += node.input
    return found


def beside_the_network(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that stay in float: the head, the mean of its maps, and the distance from the training films.

    They cost little and decide much; squared distances overflow 16 bits.
    """
    head = head_node(model)
    network = feeding(model, head.input[0])
    return sorted((feeding(model, "logits") | feeding(model, "cam") | feeding(model, "atypicality")) - network)
