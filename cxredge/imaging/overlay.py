"""What a report shows of a film: the film itself, and where the evidence for a finding lies."""

import io
import struct
import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxredge.imaging.preprocess import Film

MAX_SIDE = 224
JPEG_QUALITY = 80
# Four times as fine as the network's own map is coarse enough to stay cheap; whoever shows it smooths it.
HEAT_MAP_SIDE = 56
# A map that nowhere rises one logit above its mean says nothing about a place.
EVEN = 1.0


@dataclass(frozen=True)
class Step:
    """One colour of the scale. share: of a finding's evidence that this colour and the stronger ones hold. alpha: 0..1."""

    share: float
    words: str
    colour: str
    alpha: float


# Weakest first. Stops of plasma (van der Walt & Smith, CC0): lightness alone tells the order, also to the colour-blind.
SCALE = (
    Step(0.75, "third quarter", "#7e03a8", 0.36),
    Step(0.50, "second quarter", "#e8685d", 0.42),
    Step(0.25, "strongest quarter", "#fcd225", 0.46),
)


def picture_of(film: Film) -> Image.Image:
    """The film proper, without its letterbox, grey, at most 224 pixels a side."""
    left, top, width, height = film.box
    picture = Image.fromarray(film.image[0, top : top + height, left : left + width])
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    return picture


def thumbnail(film: Film) -> bytes:
    """`picture_of` a film as a JPEG."""
    picture = picture_of(film)
    stored = io.BytesIO()
    picture.save(stored, "JPEG", quality=JPEG_QUALITY)
    return stored.getvalue()


def heat_maps(film: Film, cams: NDArray[np.float32]) -> list[bytes]:
    """Where the evidence for each of up to three findings lies: transparent PNGs to be stretched over the film proper.

    cams: float32 [k, h, w], class activation maps over the whole letterboxed square; the mean of each is its logit.
    Evidence is what lies above that mean: zero would not do, since the head's bias shifts the maps of a rare finding
    below it everywhere. Each colour of `SCALE` holds a quarter of this evidence, on the smallest area: unlike logits
    that means the same for every finding, and unlike colours stretched to each map's own maximum it tells evidence in
    one place from evidence all over the film. Empty for a map without a place that stands out.
    """
    # Few steps over all maps at once, on 256 grey values rather than on pixels: this runs for every flagged film.
    flat = cams.reshape(len(cams), -1)
    low, high, mean = flat.min(1, keepdims=True), flat.max(1, keepdims=True), flat.mean(1, keepdims=True)
    margin = _OVERSHOOT * (high - low)
    low, step = low - margin, (high - low + 2 * margin + 1e-6) / 255
    grey = _over_film(film, ((flat - low) / step + 0.5).astype(np.uint8).reshape(cams.shape))
    places = grey + _OFFSETS[: len(cams)]
    counts = np.bincount(places.ravel(), minlength=256 * len(cams)).reshape(-1, 256)
    worth = np.maximum(low - mean + step * _GREY, 0)
    held = counts * worth
    stronger = held[:, ::-1].cumsum(1)[:, ::-1] - held
    levels = (stronger[..., None] < held.sum(1)[:, None, None] * _SHARES).sum(2, dtype=np.uint8)
    stands_out = np.where(counts > 0, worth, 0).max(1) >= EVEN
    return [png if out else b"" for png, out in zip(_pngs(levels.ravel()[places]), stands_out.tolist(), strict=True)]


_GREY = np.arange(256, dtype=np.float32)
_OFFSETS = np.arange(0, 3 * 256, 256, dtype=np.uint16)[:, None, None]
_SHARES = np.array([step.share for step in SCALE])
# Bicubic interpolation rises a little above the highest cell and falls below the lowest.
_OVERSHOOT = 0.15
_PALETTE = bytes(3) + b"".join(bytes.fromhex(step.colour[1:]) for step in SCALE)
_ALPHAS = bytes([0, *(round(255 * step.alpha) for step in SCALE)])


def film_part(
    film: Film, cells: tuple[int, ...], longest: int
) -> tuple[tuple[int, int], tuple[float, float, float, float]]:
    """What Pillow's `resize` takes to cut a map over the letterboxed square to the film proper: size in pixels, box in cells.

    cells: rows and columns of the map. longest: the longer side of the size.
    """
    left, top, width, height = film.box
    side, longer = film.image.shape[-1], max(width, height)
    across, down = cells[1] / side, cells[0] / side
    size = (max(1, round(longest * width / longer)), max(1, round(longest * height / longer)))
    return size, (left * across, top * down, (left + width) * across, (top + height) * down)


def _over_film(film: Film, cams: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Maps over the letterboxed square, cut to the film proper, its longer side `HEAT_MAP_SIDE`. uint8 [k, h, w], k <= 3."""
    size, part = film_part(film, cams.shape[1:], HEAT_MAP_SIDE)
    # As the three colours of one picture they are resized in one go.
    bands = np.zeros((*cams.shape[1:], 3), np.uint8)
    bands[..., : len(cams)] = cams.transpose(1, 2, 0)
    picture = Image.fromarray(bands).resize(size, Image.Resampling.BICUBIC, box=part)
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))[: len(cams)]


def _pngs(levels: NDArray[np.uint8]) -> list[bytes]:
    """Levels 0..3 [k, h, w] as PNGs with two bits a pixel, in the colours of `SCALE` (PNG, second edition, 7.2 and 11)."""
    count, height, width = levels.shape
    padded = np.zeros((count, height, -(-width // 4) * 4), np.uint8)
    padded[..., :width] = levels
    rows = np.zeros((count, height, padded.shape[2] // 4 + 1), np.uint8)  # each row begins with its filter: none
    rows[..., 1:] = padded.reshape(count, height, -1, 4) @ _BITS
    head = _png_head(width, height)
    return [head + _chunk(b"IDAT", zlib.compress(row.tobytes(), 1)) + _PNG_END for row in rows]


@cache
def _png_head(width: int, height: int) -> bytes:
    size = struct.pack(">IIBBBBB", width, height, 2, 3, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", size) + _chunk(b"PLTE", _PALETTE) + _chunk(b"tRNS", _ALPHAS)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


_BITS = np.array([64, 16, 4, 1], np.uint8)
_PNG_END = _chunk(b"IEND", b"")
