import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cxredge.imaging import Film, Preprocessing
from cxredge.imaging.overlay import heat_map, thumbnail
from cxredge.imaging.plane import Plane
from cxredge.imaging.preprocess import prepare


def _pixels(jpeg: bytes) -> NDArray[np.int16]:
    """[height, width, 3], signed so that differences may be negative."""
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"), np.uint8).astype(np.int16)


def _colourfulness(jpeg: bytes) -> NDArray[np.int16]:
    """0 where a pixel is grey. [height, width]."""
    pixels = _pixels(jpeg)
    return np.asarray(pixels.max(2) - pixels.min(2))


@pytest.fixture
def portrait(films: list[Film]) -> Film:
    """The middle of a real film, three quarters as wide as it is high."""
    square = films[0].image[0]
    return prepare(Plane(np.ascontiguousarray(square[:, 28:196]), 224, 168), Preprocessing())


@pytest.fixture
def landscape(films: list[Film]) -> Film:
    square = films[0].image[0]
    return prepare(Plane(np.ascontiguousarray(square[28:196]), 168, 224), Preprocessing())


def test_thumbnail_shows_the_film_without_its_letterbox(portrait: Film) -> None:
    shown = _pixels(thumbnail(portrait))
    assert shown.shape[:2] == (224, 168)
    assert np.abs(shown[..., 0] - portrait.image[0, :, 28:196].astype(np.int16)).mean() < 3


def test_thumbnail_of_a_large_network_input_is_at_most_224_pixels_a_side(films: list[Film]) -> None:
    large = prepare(Plane(films[0].image[0], 224, 224), Preprocessing(size=512))
    assert _pixels(thumbnail(large)).shape[:2] == (224, 224)


# Of 7 x 7 cells of 32 pixels, a portrait film of 168 columns fills columns 28 to 196: cells 1 to 5, and a rim.
@pytest.mark.parametrize(
    ("row", "column", "top", "left"), [(0, 5, 0, 132), (0, 1, 0, 4), (6, 5, 192, 132), (6, 1, 192, 4)]
)
def test_hot_corner_of_the_map_lands_in_the_same_corner_of_a_portrait_film(
    portrait: Film, row: int, column: int, top: int, left: int
) -> None:
    cam = np.full((7, 7), -3, np.float32)
    cam[row, column] = 8
    colour = _colourfulness(heat_map(portrait, cam)).astype(float)
    assert colour.shape == (224, 168)
    inside = colour[top : top + 32, left : left + 32]
    outside = np.delete(np.delete(colour, slice(max(0, top - 40), top + 72), 0), slice(max(0, left - 40), left + 72), 1)
    assert inside.mean() > 40
    assert outside.mean() < 3


def test_hot_top_of_the_map_lands_at_the_top_of_a_landscape_film(landscape: Film) -> None:
    cam = np.zeros((7, 7), np.float32)
    cam[1, 3] = 8
    colour = _colourfulness(heat_map(landscape, cam))
    assert colour.shape == (168, 224)
    row, column = np.unravel_index(colour.argmax(), colour.shape)
    assert row < 40
    assert 80 < column < 144


@pytest.mark.parametrize("level", [-4.0, 0.0, 4.0])
def test_even_map_leaves_the_film_grey_whatever_its_level(films: list[Film], level: float) -> None:
    assert _colourfulness(heat_map(films[0], np.full((7, 7), level, np.float32))).max() < 8


def test_evidence_against_a_finding_is_not_coloured(films: list[Film]) -> None:
    cam = np.zeros((7, 7), np.float32)
    cam[3, 3] = -9
    assert _colourfulness(heat_map(films[0], cam))[100:124, 100:124].max() < 8
