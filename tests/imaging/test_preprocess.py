"""Letterbox, refusals of what shows nothing, and the digest that caches hang on."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cxredge.errors import FilmRefusedError, Refusal
from cxredge.imaging import Preprocessing, read_film
from cxredge.imaging.plane import MIN_SIDE, Plane
from cxredge.imaging.preprocess import prepare


def reason(plane: Plane) -> Refusal:
    with pytest.raises(FilmRefusedError) as refused:
        prepare(plane, Preprocessing())
    return refused.value.reason


@pytest.mark.parametrize("size", [224, 320])
def test_whole_film_is_centred_on_black(film8: NDArray[np.uint8], size: int) -> None:
    film = prepare(Plane(film8[:240], 240, 320), Preprocessing(size=size))
    left, top, width, height = film.box
    assert film.image.shape == (1, size, size)
    assert film.image.dtype == np.uint8
    assert (left, width) == (0, size)
    assert (top, height) == (size // 8, size * 3 // 4)
    inside = film.image[0, top : top + height]
    assert film.image.sum() == inside.sum()
    assert abs(inside.mean() - film8[:240].mean()) < 2


def test_plane_of_network_size_passes_unchanged(film8: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(prepare(Plane(film8, 320, 320), Preprocessing(size=320)).image[0], film8)


@pytest.mark.parametrize("shape", [(MIN_SIDE - 1, 400), (400, MIN_SIDE - 1), (10, 10)])
def test_film_of_too_few_pixels_is_too_small(shape: tuple[int, int]) -> None:
    assert reason(Plane(np.zeros(shape, np.uint8), *shape)) is Refusal.TOO_SMALL


def test_even_or_nearly_even_plane_is_blank(film8: NDArray[np.uint8]) -> None:
    assert reason(Plane(np.full((200, 200), 90, np.uint8), 200, 200)) is Refusal.BLANK
    assert reason(Plane((film8 // 32) + 100, 320, 320)) is Refusal.BLANK


def test_film_of_black_and_white_alone_is_burnt_out(film8: NDArray[np.uint8]) -> None:
    assert reason(Plane(np.where(film8 > 128, 255, 0).astype(np.uint8), 320, 320)) is Refusal.SATURATED
    prepare(Plane(np.clip(film8.astype(int) * 2 - 128, 0, 255).astype(np.uint8), 320, 320), Preprocessing())


def test_digest_changes_with_the_pixels_it_stands_for() -> None:
    digests = {Preprocessing(size, clahe).digest for size in (224, 320) for clahe in (False, True)}
    assert len(digests) == 4
    assert Preprocessing().digest == Preprocessing(224, clahe=False).digest


def test_narrow_film_survives_clahe(tmp_path: Path) -> None:
    path = tmp_path / "narrow.png"
    Image.fromarray(np.tile(np.linspace(0, 255, MIN_SIDE).astype(np.uint8), (5000, 1))).save(path)
    assert read_film(path, Preprocessing(clahe=True)).box[2] == 5
