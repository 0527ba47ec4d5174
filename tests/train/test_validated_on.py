"""Whether the films that a bundle is met with are those that it was validated on, whichever of its sources are given."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tamper import rewrite

from cxredge.bundle import Bundle
from cxredge.errors import DataError
from cxredge.train.sources import Films, carve_validation, join
from cxredge.train.tables import carved_as, validation_hash, validation_hashes


def hospital(name: str, count: int, seed: int) -> Films:
    """Films of as many patients: of them the counts of a split never tell that another one was drawn."""
    labels = (np.random.default_rng(seed).random((count, 3)) < 0.3).astype(np.float32)
    numbers = [f"{number:03}.png" for number in range(count)]
    patients = np.array([f"{name}/{number}" for number in numbers])
    files = tuple(Path(name) / number for number in numbers)
    return Films(files, patients, np.repeat(name, count), np.repeat("train", count), ("a", "b", "c"), labels)


@pytest.fixture
def both() -> tuple[Films, Films]:
    return hospital("north", 200, 0), hospital("south", 60, 1)


@pytest.fixture
def trained(bundle: Bundle, both: tuple[Films, Films], tmp_path: Path) -> Path:
    """A bundle that says it was trained on both."""
    films = carve_validation(join(both), share=0.15, seed=0)
    copy = Path(shutil.copytree(bundle.folder, tmp_path / "bundle"))
    made = {"validation_share": 0.15, "split_seed": 0, "validation_sha256": validation_hash(films)}
    counts = {
        source: {
            split: int(((films.sources == source) & (films.splits == split)).sum())
            for split in ("train", "validation", "test")
        }
        for source in ("north", "south")
    }
    more = {"recipe": made | {"validation_sha256_of": validation_hashes(films)}, "films": counts}
    rewrite(copy, lambda said: said["training"].update(json.loads(json.dumps(more))))
    return copy


def test_one_of_its_sources_is_told_from_one_with_a_corrected_label(both: tuple[Films, Films], trained: Path) -> None:
    north, _ = both
    whole, alone = carved_as(join(both), trained), carved_as(north, trained)
    own = whole.sources == "north"
    assert alone.splits.tolist() == whole.splits[own].tolist()
    refused = 0
    for row in range(10):
        labels = north.labels.copy()
        labels[row, 0] = 1 - labels[row, 0]
        corrected = replace(north, labels=labels)
        drawn = carve_validation(corrected, share=0.15, seed=0)
        if drawn.splits.tolist() == alone.splits.tolist():
            carved_as(corrected, trained)
            continue
        refused += 1
        with pytest.raises(DataError, match="was validated on"):
            carved_as(corrected, trained)
    assert refused


def test_bundles_made_before_each_source_had_its_hash_still_open(both: tuple[Films, Films], trained: Path) -> None:
    rewrite(trained, lambda said: said["training"]["recipe"].pop("validation_sha256_of"))
    carved_as(join(both), trained)
    carved_as(both[0], trained)
