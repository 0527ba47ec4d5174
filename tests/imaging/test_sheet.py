"""Sheets of films that are small enough to travel, and show what they say."""

import io

import numpy as np
import pytest
from house import EXAMPLES
from PIL import Image

from cxredge.imaging import Film, Preprocessing, read_film
from cxredge.imaging.sheet import Tile, contact_sheet, drawing_png

SPOT = np.zeros((7, 7), np.float32)
SPOT[3, 3] = 40


@pytest.fixture(scope="module")
def film() -> Film:
    return read_film(sorted(EXAMPLES.glob("*.jpg"))[0], Preprocessing())


def test_a_sheet_shows_the_map_over_the_film_and_keeps_the_order(film: Film) -> None:
    even = Tile(film, np.zeros((7, 7), np.float32), ("even",))
    spot = Tile(film, SPOT, ("a spot", "x" * 200))
    sheet = Image.open(io.BytesIO(contact_sheet([even, spot, even], columns=2)))
    assert (sheet.format, sheet.mode) == ("JPEG", "RGB")
    pixels = np.asarray(sheet.convert("RGB")).astype(int)
    half, tall = sheet.width // 2, sheet.height // 2
    coloured = np.ptp(pixels, axis=2) > 60
    assert coloured[:tall, half:].sum() > 500
    assert not coloured[:tall, :half].any()
    assert not coloured[tall:].any()
    # The third of three tiles stands alone in its row; captions are cut where the tile ends.
    assert (pixels[tall + 20 :, half + 20 :] > 250).all()
    assert (pixels[:, -3:] > 240).all()


def test_a_sheet_stays_below_the_size_asked_for(film: Film) -> None:
    tiles = [Tile(film, SPOT, ("caption",))] * 16
    large = contact_sheet(tiles)
    small = contact_sheet(tiles, most_bytes=60_000)
    assert len(small) < 60_000 < len(large) < 150_000
    assert Image.open(io.BytesIO(small)).height < Image.open(io.BytesIO(large)).height


def test_a_drawing_keeps_its_colours() -> None:
    drawing = np.full((40, 60, 3), 255, np.uint8)
    drawing[10:20, 10:50] = (0, 114, 178)
    back = np.asarray(Image.open(io.BytesIO(drawing_png(drawing))).convert("RGB"))
    assert (back == drawing).all()
