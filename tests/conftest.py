"""What several tests share."""

import os
from pathlib import Path

# Before anything imports torch: as many test processes as cores, each with as many threads, would wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from house import Cli

from cxredge.bundle import Bundle, open_bundle

# Files that take minutes, longest first: begun last, one of them would keep a core busy while all others have none to do.
LONG = (
    "compress/test_chain.py", "compress/test_compress.py", "train/test_fit.py", "train/test_options.py",
    "compress/test_build.py", "compress/test_build_command.py", "compress/test_metadata.py", "train/test_metadata.py",
    "compress/test_sensitivity.py", "compress/test_candidates.py", "compress/test_preactivation.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order in which pytest-xdist hands files out."""
    place = {name: number for number, name in enumerate(LONG)}

    def when(item: pytest.Item) -> int:
        return place.get("/".join(item.path.parts[-2:]), len(place))

    items.sort(key=when)


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The shipped default."""
    return open_bundle()


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)
