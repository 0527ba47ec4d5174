"""Concatenations on one grid of integers: what is joined, bounded and read again is never turned into floats between.

For a quantized graph of a network that went through `absorb_norms`: its channels all have deviation 1, so one scale serves every
convolution that writes to a concatenation, and neither joining nor bounding needs to round again. Without torch.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from cxredge.compress.onnx_graph import Index

# Deviations that the grid covers on either side of the mean, and its steps.
RANGE = 8.0
LOWEST, HIGHEST, ZERO = -128, 127, 128
STEP = RANGE / HIGHEST
_SCALE, _ZERO = "concat_step", "concat_zero"


class _Graph(Index):
    """A graph with the grid's step in it. rounded: float tensor -> its integers on the grid."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(model)
        self.rounded: dict[str, str] = {}
        self.store(_SCALE, np.array(STEP, np.float32))
        self.store(_ZERO, np.array(ZERO, np.uint8))

    def add(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """A new node; its output is called as it is."""
        self.added.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def before(self, name: str) -> str:
        """The float that was rounded, however often, to give a tensor."""
        while self.kind(name) in {"QuantizeLinear", "DequantizeLinear", "Identity"}:
            name = self.maker[name].input[0]
        return name


def share_grid(path: Path) -> int:
    """Rewrite a quantized graph, in place, to join and bound integers; returns how many convolutions read such. 0: nothing to do.

    Each chain `Concat, Max, Min` before a convolution, whatever roundings stand between, becomes the same in uint8 behind one
    rounding to the grid per channel. Exact where those roundings were on the grid; else a calibrated range gives way to it.
    """
    model = onnx.load(path)
    graph = _Graph(model)
    readers = [node for node in model.graph.node if node.op_type == "Conv" and _bounded(graph, node.input[0])]
    if not readers:
        return 0
    made: dict[str, str] = {}
    for reader in readers:
        floats = graph.before(reader.input[0])
        integers = _integers(graph, floats, made)
        reader.input[0] = _back(graph, integers)
        _rescale_bias(graph, reader)
    # The last concatenation goes to the last norm, in float; and the features halfway are those that the next block reads.
    for node in list(model.graph.node):
        for i, name in enumerate(node.input):
            source = graph.before(name)
            joins = graph.kind(source) == "Concat" and any(
                graph.before(part) in graph.rounded for part in graph.maker[source].input
            )
            if node.op_type in {"QuantizeLinear", "DequantizeLinear", "Concat", "Max", "Min"}:
                continue
            if joins or source in graph.rounded:
                node.input[i] = _back(graph, _integers(graph, source, made))
    graph.tidy()
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return len(readers)


def _bounded(graph: _Graph, name: str) -> bool:
    """Whether a tensor is a bound of channels, per channel."""
    source = graph.before(name)
    if graph.kind(source) not in {"Max", "Min"}:
        return False
    bound = graph.stored.get(graph.maker[source].input[1])
    return bound is not None and bound.ndim == 4 and bound.shape[0] == bound.shape[2] == bound.shape[3] == 1


def _integers(graph: _Graph, source: str, made: dict[str, str]) -> str:
    """The uint8 form of a float tensor: joined and bounded as it is, from what convolutions and pools give, rounded once."""
    if source in made:
        return made[source]
    node, kind = graph.maker[source], graph.kind(source)
    if kind == "Concat":
        parts = [_integers(graph, graph.before(name), made) for name in node.input]
        made[source] = parts[0] if len(parts) == 1 else graph.add("Concat", parts, f"{source}_integers", axis=1)
    elif kind in {"Max", "Min"}:
        within = _integers(graph, graph.before(node.input[0]), made)
        bound = graph.stored[node.input[1]].astype(np.float64)
        levels = (np.clip(np.round(bound / STEP), LOWEST, HIGHEST) + ZERO).astype(np.uint8)
        bound_name = graph.store(f"{source}_level", levels)
        made[source] = graph.add(kind, [within, bound_name], f"{source}_integers")
    else:
        made[source] = graph.add("QuantizeLinear", [source, _SCALE, _ZERO], f"{source}_integers")
        graph.rounded[source] = made[source]
    return made[source]


def _back(graph: _Graph, integers: str) -> str:
    """A dequantization of its own for each reader: engines fuse those that nobody shares."""
    return graph.add("DequantizeLinear", [integers, _SCALE, _ZERO], f"{integers}_{len(graph.added)}")


def _rescale_bias(graph: _Graph, convolution: onnx.NodeProto) -> None:
    """Integers of a bias stand for products of input and weight: the input's scale is another now."""
    if len(convolution.input) < 3 or graph.kind(convolution.input[2]) != "DequantizeLinear":
        return
    stored, scale = (graph.stored[name] for name in graph.maker[convolution.input[2]].input[:2])
    weights = np.asarray(graph.stored[graph.maker[convolution.input[1]].input[1]], np.float32).reshape(-1)
    new = weights * np.float32(STEP)
    values = stored.astype(np.float64) * scale.reshape(-1).astype(np.float64) / new
    # ONNX Runtime calls what it rounded itself "_bias".
    name = f"{convolution.name}_grid_bias"
    inputs = [
        graph.store(f"{name}_integers", np.round(values).astype(np.int32)),
        graph.store(f"{name}_scale", np.broadcast_to(new, values.shape).copy()),
        graph.store(f"{name}_zero", np.zeros(len(values), np.int32)),
    ]
    convolution.input[2] = graph.add("DequantizeLinear", inputs, name, axis=0)
