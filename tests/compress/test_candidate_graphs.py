"""Graphs that are kept between builds: taken over while they are what was written, and made again where they are not."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

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


def test_builds_that_make_the_same_graph_at_once_do_not_disturb_each_other(source: Bundle, tmp_path: Path) -> None:
    builds = 3
    together = Barrier(builds)

    def read(build: int) -> list[int]:
        graphs = Graphs(source, np.zeros((1, 1, 8, 8), np.uint8), tmp_path)

        def make(out: Path) -> None:
            # None has finished when the last begins.
            together.wait(timeout=60)
            time.sleep(0.05 * build)
            shutil.copyfile(source.model, out / "model.onnx")

        graph = graphs._kept(source.model, ["together"], make) / "model.onnx"
        seen = [graph.stat().st_ino]
        together.wait(timeout=60)
        return [*seen, graph.stat().st_ino]

    with ThreadPoolExecutor(builds) as pool:
        found = list(pool.map(read, range(builds)))
    assert len({number for one in found for number in one}) == 1
