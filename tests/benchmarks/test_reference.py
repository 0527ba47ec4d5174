"""Every shipped model is still the one whose numbers are kept. A model replaced on purpose needs its numbers written anew:

python -m cxredge.benchmarks.reference tests/films/chestxray14 tests/films/chest_xray
"""

import tomllib

import numpy as np
import pytest
from house import FILMS

from cxredge.benchmarks.reference import Reference, as_toml, measured, read_reference
from cxredge.bundle import shipped_names
from cxredge.devices import this_machine

SMALL = [FILMS / "chestxray14", FILMS / "chest_xray"]
# The kept ratios are from a processor with instructions for 8-bit products. Without them INT8 takes 2.3 to 2.6 times as long beside
# full precision (benchmarks/results/against-torch-avx2.json), and unfused it takes five times as long there too.
WITHOUT_BYTE_PRODUCTS = 2.6
ANEW = "if the model was replaced on purpose, write benchmarks/reference.toml anew (see the top of this test)"


@pytest.fixture(scope="module", params=shipped_names())
def pair(request: pytest.FixtureRequest) -> tuple[Reference, Reference]:
    """What is kept of a shipped model, and what is measured of it now."""
    kept = read_reference()
    assert request.param in kept, f"{request.param} has no reference numbers; {ANEW}"
    return kept[request.param], measured(request.param, SMALL)


def test_there_are_reference_numbers_for_what_is_shipped_and_nothing_else() -> None:
    assert sorted(read_reference()) == shipped_names(), ANEW


def test_the_file_its_size_and_its_work_are_those_kept(pair: tuple[Reference, Reference]) -> None:
    kept, now = pair
    assert (now.sha256, now.bytes, now.macs) == (kept.sha256, kept.bytes, kept.macs), ANEW


def test_accuracy_in_the_manifest_is_that_kept(pair: tuple[Reference, Reference]) -> None:
    kept, now = pair
    for figure in ("mean_auroc", "drift", "worst_drift", "flipped"):
        assert getattr(now, figure) == pytest.approx(getattr(kept, figure), abs=1e-5), f"{figure}: {ANEW}"


def test_scores_of_the_small_films_are_those_kept(pair: tuple[Reference, Reference]) -> None:
    """Another processor's kernels may round otherwise; other pixels or another graph move them further."""
    kept, now = pair
    assert np.abs(np.subtract(now.probabilities, kept.probabilities)).max() < 0.02


def test_time_against_the_parent_has_not_grown(pair: tuple[Reference, Reference]) -> None:
    kept, now = pair
    assert np.isfinite(kept.time_ratio), "a shipped model carries its full-precision parent"
    # Unfused INT8 costs five times as much, which is what this is for; a busy machine moves a ratio by a third.
    assert now.time_ratio < 1.6 * kept.time_ratio * (1 if this_machine().multiplies_bytes else WITHOUT_BYTE_PRODUCTS)


def test_the_file_is_read_as_it_was_written() -> None:
    one = Reference("ab", 3, 4, 0.5, -0.001, -0.01, 0.02, [0.1, 0.2], 0.4)
    assert Reference(**tomllib.loads(as_toml({"x": one}))["x"]) == one
