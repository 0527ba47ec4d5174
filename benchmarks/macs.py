"""Multiply-accumulates of one film through a network: its size as work, whatever machine does it."""

import math
from pathlib import Path
from typing import Any


def count_macs(path: Path, size: int) -> int:
    """MACs of convolutions and matrix products for one film of size x size. path: an ONNX file, or a run's folder."""
    return _of_run(path, size) if path.is_dir() else _of_onnx(path, size)


def _of_onnx(path: Path, size: int) -> int:
    import onnx

    model = onnx.load(path)
    # Concrete sizes in, so that every shape behind them can be inferred.
    for dimension, value in zip(model.graph.input[0].type.tensor_type.shape.dim, (1, 1, size, size), strict=True):
        dimension.dim_value = value
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        shapes[value.name] = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
    return sum(_of_node(node, shapes) for node in inferred.node)


def _of_node(node: Any, shapes: dict[str, list[int]]) -> int:
    """Every output element costs one weight column: a kernel for a convolution, the shared axis for a product."""
    if node.op_type in {"Conv", "QLinearConv"}:
        weight = shapes[node.input[1 if node.op_type == "Conv" else 3]]
        return math.prod(shapes[node.output[0]]) * math.prod(weight[1:])
    if node.op_type in {"MatMul", "Gemm"}:
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    return 0


def _of_run(run: Path, size: int) -> int:
    from cxredge.train.macs import macs_of
    from cxredge.train.network import load_network

    return macs_of(load_network(run)[0], size)
