"""Whole, upright and not inverted: told from 24 x 24 pixels, on films that nothing was fitted on."""

import numpy as np
import pytest
from house import FILMS
from numpy.typing import NDArray

from cxredge.imaging import Preprocessing, read_film
from cxredge.imaging.plane import Plane
from cxredge.imaging.preprocess import decode, prepare
from cxredge.scan.framing import AS_GIVEN, CHANGED, INVERTED, framing

# The official test films among them; training films would prove less.
TESTS = sorted((FILMS / "chest_xray/test").rglob("*.jpeg"))


@pytest.fixture(scope="module")
def coarse() -> list[NDArray[np.uint8]]:
    return [read_film(file, Preprocessing()).coarse for file in TESTS]


def test_films_as_they_are_look_upright_and_whole(coarse: list[NDArray[np.uint8]]) -> None:
    looks = [framing(film) for film in coarse]
    assert [look.nearest for look in looks] == [AS_GIVEN] * len(looks)
    assert sum(look.cut > 0 or look.odd for look in looks) == 0


@pytest.mark.parametrize("change", [name for name in CHANGED if name != AS_GIVEN])
def test_a_changed_film_comes_nearer_when_the_change_is_undone(coarse: list[NDArray[np.uint8]], change: str) -> None:
    undone = {"turned to the right": "turned to the left", "turned to the left": "turned to the right"}
    for film in coarse:
        look = framing(np.ascontiguousarray(CHANGED[change](film)))
        # Heart and stomach apart a chest is much the same from left to right.
        mirrored = {"upside down", "mirrored top to bottom"}
        assert look.nearest in (mirrored if change in mirrored else {undone.get(change, change)})


def test_exposure_changes_nothing(coarse: list[NDArray[np.uint8]]) -> None:
    for film in coarse:
        fainter = framing((film // 2 + 40).astype(np.uint8))
        assert fainter.nearest == AS_GIVEN
        assert fainter.distance == pytest.approx(framing(film).distance, abs=0.2)


def test_most_quarters_of_a_film_do_not_pass_for_a_whole_chest() -> None:
    cut = []
    for file in TESTS:
        pixels = decode(file, at_least=448).pixels
        rows, columns = pixels.shape
        part = np.ascontiguousarray(pixels[: rows // 2, : columns // 2])
        cut.append(framing(prepare(Plane(part, rows, columns), Preprocessing()).coarse).cut > 0)
    assert np.mean(cut) >= 0.75


def test_an_empty_picture_is_judged_without_a_warning() -> None:
    assert framing(np.zeros((24, 24), np.uint8)).nearest in CHANGED
    assert INVERTED in CHANGED
