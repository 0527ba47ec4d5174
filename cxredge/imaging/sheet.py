"""Small pictures for a page or a card: films with their heat maps and captions on one sheet, and drawings."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cxredge.imaging.overlay import MAX_SIDE, heat_maps, picture_of
from cxredge.imaging.preprocess import Film

_QUALITIES = range(85, 45, -5)
_SIDES = (MAX_SIDE, 192, 160, 128)
_TEXT, _LINE, _MARGIN = 11, 14, 4


@dataclass(frozen=True)
class Tile:
    """cam: class activation map float32 [h, w] of the finding that the caption, a few short lines, tells of."""

    film: Film
    cam: NDArray[np.float32]
    caption: tuple[str, ...]


def contact_sheet(tiles: Sequence[Tile], *, columns: int = 4, most_bytes: int = 150_000) -> bytes:
    """One colour JPEG: each film at most 224 pixels a side, its heat map over it (see `heat_maps`), its caption below.

    Quality, then size, go down until it is smaller than most_bytes; the smallest is returned where none is.
    """
    stored = b""
    for side in _SIDES:
        sheet = _drawn(tiles, columns, side)
        for quality in _QUALITIES:
            out = io.BytesIO()
            sheet.save(out, "JPEG", quality=quality, optimize=True)
            stored = out.getvalue()
            if len(stored) < most_bytes:
                return stored
    return stored


def drawing_png(pixels: NDArray[np.uint8], *, colours: int = 64) -> bytes:
    """A drawing with few colours as a PNG with a palette. pixels: uint8 [h, w, 3]."""
    picture = Image.fromarray(pixels).quantize(colours, dither=Image.Dither.NONE)
    stored = io.BytesIO()
    picture.save(stored, "PNG", optimize=True)
    return stored.getvalue()


def _drawn(tiles: Sequence[Tile], columns: int, side: int) -> Image.Image:
    columns = min(columns, len(tiles))
    width = MAX_SIDE + _MARGIN
    height = side + _MARGIN + _LINE * max(len(tile.caption) for tile in tiles)
    sheet = Image.new("RGB", (columns * width + _MARGIN, -(-len(tiles) // columns) * height + _MARGIN), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT)
    for place, tile in enumerate(tiles):
        left, top = _MARGIN + place % columns * width, _MARGIN + place // columns * height
        film = _with_map(tile)
        film.thumbnail((side, side))
        sheet.paste(film, (left + (MAX_SIDE - film.width) // 2, top + (side - film.height) // 2))
        for row, line in enumerate(tile.caption):
            pen.text((left, top + side + 1 + row * _LINE), _fitting(line, font), fill="black", font=font)
    return sheet


def _fitting(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The line, its end left out where it is wider than a tile."""
    if font.getlength(line) <= MAX_SIDE:
        return line
    while font.getlength(f"{line}...") > MAX_SIDE:
        line = line[:-1]
    return f"{line}..."


def _with_map(tile: Tile) -> Image.Image:
    film = picture_of(tile.film).convert("RGBA")
    png = heat_maps(tile.film, tile.cam[None])[0]
    if png:
        with Image.open(io.BytesIO(png)) as opened:
            over = opened.convert("RGBA").resize(film.size, Image.Resampling.BILINEAR)
        film.alpha_composite(over)
    return film.convert("RGB")
