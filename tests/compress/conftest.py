"""What a build starts from, and building without a word on the screen."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cxredge.bundle import Bundle, open_bundle
from cxredge.compress.build import build
from cxredge.devices import read_profile

OWN_PROFILE = """
name = "mine"
title = "Mine"
architecture = "any"
threads = 1
spinning = false
arena = true
latency_budget_ms = 100
memory_budget_mb = 500
[[engines]]
name = "openvino"
precisions = ["int8"]
activations = "unsigned"
weight_bits = 8
bias = "int32"
source = "test"
[sources]
"""


@pytest.fixture(scope="session")
def source() -> Bundle:
    """The shipped model; BUILD_FROM names another bundle, to try one before it is shipped."""
    opened = open_bundle(os.environ.get("BUILD_FROM", "chestxray14"))
    assert opened.full_model is not None, "the shipped model must carry its full-precision parent"
    return opened


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared, so that a graph that several devices take is made and measured once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def build_for(cache: Path) -> Callable[..., Bundle]:
    """Build a bundle for a device: from what, for which, where to, and what else `build` takes."""

    def build_it(source: Bundle, target: str, out: Path, **more: object) -> Bundle:
        return build(source, read_profile(target), out, cache=cache, say=lambda _: None, **more)  # type: ignore[arg-type]

    return build_it


@pytest.fixture
def own_profile(tmp_path: Path) -> Path:
    """A user's own profile of this very machine."""
    file = tmp_path / "mine.toml"
    file.write_text(OWN_PROFILE)
    return file
