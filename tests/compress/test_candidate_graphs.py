"""Graphs that are kept between builds: taken over while they are what was written, and made again where they are not."""

from pathlib import Path

import numpy as np
import pytest

from cxredge.bundle import Bundle
from cxredge.compress.candidate_graphs import Graphs, distrust
from cxredge.devices import Profile, read_profile


@pytest.fixture
def jetson() -> Profile:
    return read_profile("jetson")


def made(source: Bundle, jetson: Profile, cache: Path) -> Path:
    """The graph in 16-bit floats, as a build of its own asks for it."""
    graph = Graphs(source, np.zeros((1, 1, 8, 8), np.uint8), cache).make(jetson.engine("tensorrt"), "fp16", jetson)
    assert not isinstance(graph, str)
    return graph.onnx


def test_a_graph_that_was_spoiled_in_the_cache_is_made_again(source: Bundle, jetson: Profile, tmp_path: Path) -> None:
    graph = made(source, jetson, tmp_path)
    whole, first = graph.read_bytes(), graph.stat().st_mtime_ns
    assert made(source, jetson, tmp_path).stat().st_mtime_ns == first
    for spoiled in (whole[: len(whole) // 2], whole[:-9] + bytes(9), b""):
        graph.write_bytes(spoiled)
        assert made(source, jetson, tmp_path).read_bytes() == whole
    graph.unlink()
    assert made(source, jetson, tmp_path).read_bytes() == whole


def test_a_graph_that_is_not_trusted_any_more_is_made_again_and_there_until_then(
    source: Bundle, jetson: Profile, tmp_path: Path
) -> None:
    graph = made(source, jetson, tmp_path)
    whole, first = graph.read_bytes(), graph.stat().st_mtime_ns
    distrust(tmp_path)
    assert graph.read_bytes() == whole
    assert made(source, jetson, tmp_path).stat().st_mtime_ns > first
    assert graph.read_bytes() == whole
