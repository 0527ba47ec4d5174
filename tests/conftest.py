"""What several tests share."""

from pathlib import Path

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
