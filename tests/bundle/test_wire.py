"""The protobuf walk finds data outside a graph wherever ONNX allows tensors, and agrees with the onnx package elsewhere."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tamper import point_elsewhere

from cxredge.bundle import Bundle
from cxredge.bundle.wire import external_tensors


def outside(name: str = "weights") -> TensorProto:
    tensor = numpy_helper.from_array(np.ones(4, np.float32), name)
    point_elsewhere(tensor)
    return tensor


def in_a_constant() -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["y"], value=outside())


def in_a_branch() -> onnx.NodeProto:
    branch = helper.make_graph([in_a_constant()], "then", [], [])
    return helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)


def model(*nodes: onnx.NodeProto, initializers: tuple[TensorProto, ...] = ()) -> onnx.ModelProto:
    return helper.make_model(helper.make_graph(list(nodes), "g", [], [], initializer=list(initializers)))


def with_sparse() -> onnx.ModelProto:
    made = model()
    made.graph.sparse_initializer.add().values.CopyFrom(outside())
    return made


def with_function() -> onnx.ModelProto:
    made = model()
    made.functions.add(name="f", domain="d").node.append(in_a_constant())
    return made


def with_training() -> onnx.ModelProto:
    made = model()
    made.training_info.add().algorithm.initializer.append(outside())
    return made


def located_only() -> onnx.ModelProto:
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "weights")
    tensor.data_location = TensorProto.EXTERNAL
    return model(initializers=(tensor,))


@pytest.mark.parametrize(
    "make",
    [
        lambda: model(initializers=(outside(),)),
        lambda: model(in_a_constant()),
        lambda: model(in_a_branch()),
        lambda: model(helper.make_node("N", [], ["y"], values=[outside()])),
        with_sparse,
        with_function,
        with_training,
        located_only,
    ],
)
def test_external_data_is_found_wherever_it_hides(make: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    graph = tmp_path / "graph.onnx"
    graph.write_bytes(make().SerializeToString())
    assert set(external_tensors(graph)) == {"weights"}


def test_a_graph_without_any_passes(bundle: Bundle, tmp_path: Path) -> None:
    assert external_tensors(bundle.model) == []
    inline = numpy_helper.from_array(np.ones(4, np.float32), "location")
    (tmp_path / "inline.onnx").write_bytes(model(initializers=(inline,)).SerializeToString())
    assert external_tensors(tmp_path / "inline.onnx") == []


@pytest.mark.parametrize("content", [b"\xff" * 20, b"\x3a\xff\x01", b"\x0b", b"\xba\x80\x80\x80\x10\x00", b"?"])
def test_what_is_no_protobuf_is_said(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "graph.onnx").write_bytes(content)
    with pytest.raises(ValueError, match="not a protobuf"):
        external_tensors(tmp_path / "graph.onnx")


def test_graphs_nested_without_end_are_refused(tmp_path: Path) -> None:
    def field(number: int, content: bytes) -> bytes:
        length = bytes([len(content) & 0x7F | 0x80, len(content) >> 7 & 0x7F | 0x80, len(content) >> 14])
        return bytes([number << 3 | 2]) + length + content

    graph = b""
    for _ in range(70):
        graph = field(1, field(5, field(6, graph)))  # a node's attribute that is a graph
    (tmp_path / "graph.onnx").write_bytes(field(7, graph))
    with pytest.raises(ValueError, match="nested too deep"):
        external_tensors(tmp_path / "graph.onnx")
