"""A film under a heat map as one picture, for programs that show nothing but pixels."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from cxredge.imaging.overlay import SCALE
from cxredge.imaging.preprocess import decode

# The map has seven cells a side: more pixels would fill a clinic's archive and show nothing more.
SIDE = 512
_LINE = 17


def capture(path: Path, overlay: bytes, said: list[str]) -> NDArray[np.uint8]:
    """The film under a heat map, its longer side `SIDE`, with lines of text and the colour scale below it.

    overlay: PNG, as `heat_maps` gives it. Returns RGB, uint8 [h, w, 3]. Raises FilmRefusedError or OSError when the film
    cannot be read any more.
    """
    plane = decode(path, at_least=SIDE)
    height = plane.rows * plane.pixel_aspect
    scale = SIDE / max(height, plane.columns)
    size = (max(1, round(plane.columns * scale)), max(1, round(height * scale)))
    film = Image.fromarray(plane.pixels).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0).convert("RGBA")
    heat = Image.open(io.BytesIO(overlay)).convert("RGBA").resize(size, Image.Resampling.BILINEAR)
    film.alpha_composite(heat.filter(ImageFilter.GaussianBlur(SIDE / 112)))
    # A narrow film still needs room for its text.
    whole = Image.new("RGB", (max(SIDE, size[0]), size[1] + _LINE * (len(said) + 1) + 12))
    whole.paste(film.convert("RGB"), ((whole.width - size[0]) // 2, 0))
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(13)
    for line, text in enumerate(said):
        pen.text((6, size[1] + 4 + _LINE * line), text, fill="white", font=font)
    at = size[1] + 6 + _LINE * len(said)
    for place, step in enumerate(SCALE[::-1]):
        pen.rectangle((6 + 150 * place, at + 1, 18 + 150 * place, at + 13), fill=step.colour)
        pen.text((24 + 150 * place, at - 1), step.words, fill="white", font=font)
    return np.asarray(whole)
