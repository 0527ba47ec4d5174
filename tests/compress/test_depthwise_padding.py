"""Channels of zeros that fill the vectors of the kernels: nothing changes but the time."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from cxredge.bundle import Bundle, open_bundle
from cxredge.compress.depthwise_padding import fill_lanes
from cxredge.compress.fused import fused
from cxredge.compress.quantize import quantize
from cxredge.runtimes import Artifact, runtime


@pytest.fixture(scope="module")
def pruned() -> Bundle:
    return open_bundle("chestxray14-small")


@pytest.fixture(scope="module")
def images(pruned: Bundle) -> np.ndarray:
    with np.load(pruned.reference) as stored:
        return np.array(stored["images"])


@pytest.fixture(scope="module")
def narrow(pruned: Bundle, images: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pruned network, whose channels are multiples of 8, rounded."""
    graph = tmp_path_factory.mktemp("narrow") / "model.onnx"
    assert pruned.float_model is not None
    quantize(pruned.float_model, graph, images[:8], percentile=99.9)
    return graph


def _groups(graph: Path) -> list[int]:
    nodes = [node for node in onnx.load(graph).graph.node if node.op_type == "Conv"]
    groups = [each.i for node in nodes for each in node.attribute if each.name == "group"]
    return [group for group in groups if group > 1]


def test_every_depthwise_convolution_fills_its_vectors_and_says_what_it_said(
    narrow: Path, images: np.ndarray, tmp_path: Path
) -> None:
    wide = tmp_path / "wide.onnx"
    before = _groups(narrow)
    assert fill_lanes(narrow, wide) == sum(group % 16 > 0 for group in before) > 5
    assert _groups(wide) == [-(-group // 16) * 16 for group in before]
    onnx.checker.check_model(str(wide), full_check=True)
    for engine in ("onnxruntime", "openvino"):
        said = [runtime(engine).load(Artifact(engine, graph), 1).run(images[:4]) for graph in (narrow, wide)]
        for name in ("logits", "cam", "atypicality"):
            assert np.array_equal(getattr(said[0], name), getattr(said[1], name)), (engine, name)
        assert fused(engine, wide) == fused(engine, narrow)
    # There is nothing left to fill.
    assert fill_lanes(wide, wide) == 0


def test_a_graph_whose_weights_are_not_stored_as_they_are_is_left_alone(pruned: Bundle, tmp_path: Path) -> None:
    assert pruned.float_model is not None
    assert fill_lanes(pruned.float_model, tmp_path / "same.onnx") == 0
    assert _groups(tmp_path / "same.onnx") == _groups(pruned.float_model)
