import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cxredge.imaging import Film, Preprocessing
from cxredge.imaging.overlay import EVEN, HEAT_MAP_SIDE, SCALE, heat_maps, thumbnail
from cxredge.imaging.plane import Plane
from cxredge.imaging.preprocess import prepare


def _pixels(picture: bytes, mode: str) -> NDArray[np.int16]:
    """[height, width, channels], signed so that differences may be negative."""
    return np.asarray(Image.open(io.BytesIO(picture)).convert(mode), np.uint8).astype(np.int16)


def heat_map(film: Film, cam: NDArray[np.float32]) -> bytes:
    return heat_maps(film, cam[None])[0]


def _levels(png: bytes) -> NDArray[np.uint8]:
    """Steps of the scale, 0 where there is no colour. [height, width]."""
    return np.asarray(Image.open(io.BytesIO(png)))


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
    shown = _pixels(thumbnail(portrait), "RGB")
    assert shown.shape[:2] == (224, 168)
    assert np.abs(shown[..., 0] - portrait.image[0, :, 28:196].astype(np.int16)).mean() < 3


def test_thumbnail_of_a_large_network_input_is_at_most_224_pixels_a_side(films: list[Film]) -> None:
    large = prepare(Plane(films[0].image[0], 224, 224), Preprocessing(size=512))
    assert _pixels(thumbnail(large), "RGB").shape[:2] == (224, 224)


# Of 7 x 7 cells of 32 pixels, a portrait film of 168 columns fills columns 28 to 196: cells 1 to 5, and a rim.
# The map is a quarter as fine: 56 x 42 pixels, cell 1 begins at column 1 and cell 5 at column 33.
@pytest.mark.parametrize(("row", "column", "top", "left"), [(0, 5, 0, 33), (0, 1, 0, 1), (6, 5, 48, 33), (6, 1, 48, 1)])
def test_hot_corner_of_the_map_lands_in_the_same_corner_of_a_portrait_film(
    portrait: Film, row: int, column: int, top: int, left: int
) -> None:
    cam = np.full((7, 7), -3, np.float32)
    cam[row, column] = 8
    levels = _levels(heat_map(portrait, cam))
    assert levels.shape == (HEAT_MAP_SIDE, 42)
    inside = levels[top : top + 8, left : left + 8]
    assert inside.max() == len(SCALE)
    assert (inside == len(SCALE)).sum() == (levels == len(SCALE)).sum()
    outside = levels.copy()
    outside[max(0, top - 6) : top + 14, max(0, left - 6) : left + 14] = 0
    assert not outside.any()


def test_hot_top_of_the_map_lands_at_the_top_of_a_landscape_film(landscape: Film) -> None:
    cam = np.zeros((7, 7), np.float32)
    cam[1, 3] = 8
    levels = _levels(heat_map(landscape, cam))
    assert levels.shape == (42, HEAT_MAP_SIDE)
    rows, columns = np.nonzero(levels == len(SCALE))
    assert rows.max() < 10
    assert 22 < columns.mean() < 33


@pytest.mark.parametrize("bias", [-6.0, 0.0, 6.0])
def test_each_colour_holds_a_quarter_of_the_evidence_whatever_the_bias(films: list[Film], bias: float) -> None:
    cam = np.random.default_rng(3).normal(bias, 2, (7, 7)).astype(np.float32)
    levels = _levels(heat_map(films[0], cam))
    side = HEAT_MAP_SIDE
    evidence = np.maximum(
        np.asarray(Image.fromarray(cam).resize((side, side), Image.Resampling.BICUBIC)) - cam.mean(), 0
    )
    held = [evidence[levels == level].sum() / evidence.sum() for level in (3, 2, 1)]
    assert held == pytest.approx([0.25, 0.25, 0.25], abs=0.02)


def test_stronger_colours_lie_on_stronger_evidence_and_are_lighter(films: list[Film]) -> None:
    cam = np.random.default_rng(4).normal(0, 2, (7, 7)).astype(np.float32)
    png = heat_map(films[0], cam)
    levels, colours = _levels(png), _pixels(png, "RGBA")
    evidence = np.asarray(Image.fromarray(cam).resize((HEAT_MAP_SIDE,) * 2, Image.Resampling.BICUBIC))
    rounding = 2 * (cam.max() - cam.min()) / 255
    for weaker in range(len(SCALE)):
        assert evidence[levels == weaker].max() < evidence[levels == weaker + 1].min() + rounding
    light = [colours[levels == level][0, :3] @ (0.2126, 0.7152, 0.0722) for level in range(1, len(SCALE) + 1)]
    assert light == sorted(light)
    assert light[1] - light[0] > 30
    assert light[2] - light[1] > 30


def test_film_shows_through_every_colour(films: list[Film]) -> None:
    alpha = _pixels(heat_map(films[0], np.random.default_rng(5).normal(0, 2, (7, 7)).astype(np.float32)), "RGBA")[
        ..., 3
    ]
    assert alpha.min() == 0
    assert alpha.max() < 0.5 * 255


@pytest.mark.parametrize("level", [-4.0, 0.0, 4.0])
def test_map_where_no_place_stands_out_is_empty_whatever_its_level(films: list[Film], level: float) -> None:
    cam = np.full((7, 7), level, np.float32)
    cam[3, 3] += 0.8 * EVEN
    assert heat_map(films[0], cam) == b""
    cam[3, 3] += EVEN
    assert heat_map(films[0], cam)


def test_evidence_against_a_finding_is_not_coloured(films: list[Film]) -> None:
    cam = np.zeros((7, 7), np.float32)
    cam[3, 3], cam[0, 0] = -9, 3
    assert not _levels(heat_map(films[0], cam))[24:32, 24:32].any()


def test_maps_of_one_film_do_not_touch_each_other(portrait: Film) -> None:
    cams = np.random.default_rng(6).normal(0, 2, (3, 7, 7)).astype(np.float32)
    cams[1] = 2
    together = heat_maps(portrait, cams)
    assert together == [heat_map(portrait, cam) for cam in cams]
    assert [bool(png) for png in together] == [True, False, True]
