"""Multiply-accumulates of one film through a network: its size as work, whatever machine does it."""

import math
from pathlib import Path
from typing import Any

from cxredge.errors import CxredgeError

# Where the operands of a product stand among a node's inputs: a convolution's kernel, a matrix product's left side.
_KERNEL = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3}
_LEFT = {"MatMul": 0, "MatMulInteger": 0, "QLinearMatMul": 0, "Gemm": 0}


def count_macs(path: Path, size: int) -> int:
    """MACs of convolutions and matrix products for one film of size x size. path: an ONNX file, or a run's folder.

    Raises CxredgeError for a graph with operators that ONNX does not define, as ONNX Runtime saves what it has optimized, and for
    one whose shapes cannot be inferred.
    """
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
    if node.domain not in {"", "ai.onnx"} and node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
        raise CxredgeError(f"{node.domain}.{node.op_type} is none of ONNX's own operators: its work cannot be counted")
    if node.op_type in _KERNEL:
        return math.prod(_known(shapes, node.output[0])) * math.prod(
            _known(shapes, node.input[_KERNEL[node.op_type]])[1:]
        )
    if node.op_type in _LEFT:
        return math.prod(_known(shapes, node.output[0])) * _known(shapes, node.input[_LEFT[node.op_type]])[-1]
    return 0


def _known(shapes: dict[str, list[int]], tensor: str) -> list[int]:
    shape = shapes.get(tensor)
    if not shape or not all(shape):
        raise CxredgeError(f"the graph does not tell the shape of {tensor}: its work cannot be counted")
    return shape


def _of_run(run: Path, size: int) -> int:
    from cxredge.train.macs import macs_of
    from cxredge.train.network import load_network

    return macs_of(load_network(run)[0], size)
