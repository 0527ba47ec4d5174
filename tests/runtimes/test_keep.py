"""What engines compile for a machine is kept whole, or not at all."""

import os
import time
from pathlib import Path

import pytest

from cxredge.runtimes.keep import KEPT, keep, kept, key_of


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    keep(tmp_path / "new" / "folder", "a", b"engine")
    assert kept(tmp_path / "new" / "folder", "a") == b"engine"
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["a"]


@pytest.mark.parametrize(
    "damage", [lambda stored: stored[:-1], lambda stored: stored[:40], lambda _: b"", lambda stored: stored + b"x"]
)
def test_a_file_that_is_no_longer_what_was_written_is_not_taken(tmp_path: Path, damage: object) -> None:
    keep(tmp_path, "a", b"engine" * 100)
    (tmp_path / "a").write_bytes(damage((tmp_path / "a").read_bytes()))  # type: ignore[operator]
    assert kept(tmp_path, "a") is None


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for i in range(KEPT + 3):
        keep(tmp_path, str(i), b"engine")
        os.utime(tmp_path / str(i), (i, i))
    assert {path.name for path in tmp_path.iterdir()} == {str(i) for i in range(3, KEPT + 3)}


def test_what_was_just_kept_stays_though_the_clock_was_set_back(tmp_path: Path) -> None:
    tomorrow = time.time() + 86_400
    for i in range(KEPT):
        keep(tmp_path, str(i), b"engine")
        os.utime(tmp_path / str(i), (tomorrow + i, tomorrow + i))
    keep(tmp_path, "new", b"engine")
    assert kept(tmp_path, "new") == b"engine"
    assert {path.name for path in tmp_path.iterdir()} == {"new", *(str(i) for i in range(1, KEPT))}


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    keep(tmp_path / "file", "a", b"engine")
    assert kept(tmp_path / "file", "a") is None
    assert kept(None, "a") is None


def test_every_condition_changes_the_name() -> None:
    names = {
        key_of(b"graph", "10.3", "Orin"),
        key_of(b"graph2", "10.3", "Orin"),
        key_of(b"graph", "10.4", "Orin"),
        key_of(b"graph", "10.3", "Thor"),
        key_of(b"graph", "10.3Orin"),
    }
    assert len(names) == 5
    assert key_of(b"graph", "10.3", "Orin") in names
