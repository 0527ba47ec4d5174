"""The two pictures a report shows of a film: the film itself, and where the evidence for one finding lies."""

import io
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxredge.imaging.preprocess import Film

Pixel = TypeVar("Pixel", bound=np.generic)

MAX_SIDE = 224
JPEG_QUALITY = 80
# At its strongest the colour leaves this much of the film to be seen.
MAX_ALPHA = 0.6
# Ten stops of inferno (Smith & van der Walt, CC0): perceptually uniform, and its lightness alone tells the order.
_STOPS = "000004 1b0c41 4a0c6b 781c6d a52c60 cf4446 ed6925 fb9b06 f7d13d fcffa4"


def _inferno() -> NDArray[np.float32]:
    """Colours of evidence 0..1 in 256 steps. float32 [256, 3], 0..255."""
    stops = np.array([list(bytes.fromhex(stop)) for stop in _STOPS.split()], np.float64)
    at = np.linspace(0, len(stops) - 1, 256)
    return np.stack([np.interp(at, np.arange(len(stops)), channel) for channel in stops.T], axis=1).astype(np.float32)


COLOURS = _inferno()


def thumbnail(film: Film) -> bytes:
    """The film proper, without its letterbox, as a grey JPEG of at most 224 pixels a side."""
    return _jpeg(_proper(film.image[0], film))


def heat_map(film: Film, cam: NDArray[np.float32]) -> bytes:
    """The film with one finding's evidence in colour over it, as a JPEG of the size and geometry of `thumbnail`.

    cam: float32 [h, w], the finding's class activation map over the whole letterboxed square; its mean is the logit.
    Evidence is what lies above that mean: zero would not do, since the head's bias shifts the maps of a rare finding
    below it everywhere. Colour and opacity grow with evidence relative to the film's strongest; a map that nowhere
    rises a whole logit above its mean stays pale, so that an even map does not look like a find.
    """
    side = film.image.shape[-1]
    square = np.asarray(Image.fromarray(cam).resize((side, side), Image.Resampling.BICUBIC))
    evidence = _proper(square, film) - cam.mean()
    evidence = np.clip(evidence / max(float(evidence.max()), 1.0), 0, 1)
    colour = COLOURS[(evidence * 255).astype(np.uint8)]
    alpha = MAX_ALPHA * evidence[..., None]
    grey = _proper(film.image[0], film)[..., None].astype(np.float32)
    return _jpeg((grey + alpha * (colour - grey) + 0.5).astype(np.uint8))


def _proper(square: NDArray[Pixel], film: Film) -> NDArray[Pixel]:
    """The film's part of a plane [size, size]."""
    left, top, width, height = film.box
    return square[top : top + height, left : left + width]


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    picture = Image.fromarray(pixels)
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    stored = io.BytesIO()
    picture.save(stored, "JPEG", quality=JPEG_QUALITY)
    return stored.getvalue()
