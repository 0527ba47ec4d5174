"""What several tests share."""

import os
from pathlib import Path

# Before anything imports torch: as many test processes as cores, each with as many threads, would wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from house import Cli

from cxredge.bundle import Bundle, open_bundle


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The shipped default."""
    return open_bundle()


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)
