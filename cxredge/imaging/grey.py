"""Stored values to grey: what a DICOM header says about grey values, as one table over all possible stored values.

Every step (PS3.4 N.2) is a function of the stored value alone, so it is computed for at most 65,536 of them instead of
for millions of pixels: no copy of the film wider than the film itself is ever made.
"""

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from cxredge.imaging.plane import ROBUST, is_blank_histogram, look_up, quantiles

# Enough pixels, on a grid, to judge a film's greys by.
_SAMPLES = 250_000


class WindowShape(Enum):
    """VOI LUT Function, PS3.3 C.11.2.1.2 and C.11.2.1.3."""

    LINEAR = "LINEAR"
    LINEAR_EXACT = "LINEAR_EXACT"
    SIGMOID = "SIGMOID"


@dataclass(frozen=True)
class LookupTable:
    """A modality LUT (PS3.3 C.11.1.1) or VOI LUT (C.11.2.1.1).

    first: the input value that the first entry stands for; inputs beyond either end take the entry there.
    entries: uint16 [n].
    """

    first: int
    entries: NDArray[np.uint16]

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        places = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        grey: NDArray[np.float64] = self.entries[places.astype(np.intp)].astype(np.float64)
        return grey


@dataclass(frozen=True)
class Rescale:
    """Rescale Slope and Intercept, PS3.3 C.11.1.1."""

    slope: float
    intercept: float

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values * self.slope + self.intercept


@dataclass(frozen=True)
class Window:
    """Window Center and Width, PS3.3 C.11.2.1.2."""

    center: float
    width: float
    shape: WindowShape = WindowShape.LINEAR

    @property
    def is_valid(self) -> bool:
        """LINEAR allows no width below 1, the others none that is not positive (nor, here, one that shows nothing)."""
        return self.width >= (1 if self.shape is WindowShape.LINEAR else 1e-6)

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Grey in 0..1."""
        if self.shape is WindowShape.SIGMOID:
            # Clipped where the curve is flat to far below a grey level: exp must not overflow.
            return 1 / (1 + np.exp(np.clip(-4 * (values - self.center) / self.width, -50, 50)))
        center, width = self.center, self.width
        if self.shape is WindowShape.LINEAR:
            center, width = center - 0.5, width - 1
        if width == 0:
            return (values > center).astype(np.float64)
        return np.clip((values - center) / width + 0.5, 0, 1)


@dataclass(frozen=True)
class GreyScale:
    """What a header says about its stored values.

    bits_allocated: 8 or 16; bits_stored: how many of them, from the lowest, hold the value.
    signed: two's complement.
    white_is_low: MONOCHROME1.
    modality, voi: None where the header gives none, or none that can be used.
    padding: lowest and highest stored value that fill the area outside the picture (PS3.3 C.7.5.1.1.2).
    """

    bits_allocated: int
    bits_stored: int
    signed: bool = False
    white_is_low: bool = False
    modality: LookupTable | Rescale | None = None
    voi: LookupTable | Window | None = None
    padding: tuple[int, int] | None = None


def to_grey(stored: NDArray[np.integer], scale: GreyScale, *, over: bool = False) -> NDArray[np.uint8]:
    """Stored values [rows, columns], 8 or 16 bits each in any byte order, to uint8 with black air.

    All 0 where the film holds one value, or padding only. over: the values may be overwritten, and are where they can be.
    """
    patterns = stored.view(stored.dtype.str.replace("i", "u"))
    step = max(1, math.isqrt(patterns.size // _SAMPLES))
    over = over and patterns.flags.writeable and patterns.flags.c_contiguous
    return look_up(_table(scale, patterns[::step, ::step]), patterns, over=over)


def stored_value(pattern: NDArray[np.int64], scale: GreyScale) -> NDArray[np.int64]:
    """The value that the stored bits of a pattern mean; the bits above Bits Stored may hold anything (PS3.5 8.1.1)."""
    value = pattern & (1 << scale.bits_stored) - 1
    sign = 1 << scale.bits_stored - 1
    return (value ^ sign) - sign if scale.signed else value


def _table(scale: GreyScale, sample: NDArray[np.unsignedinteger]) -> NDArray[np.uint8]:
    """Grey for every bit pattern, uint8 [2 ** bits_allocated]. sample: patterns of the film, to judge the result by."""
    # The bits above Bits Stored mean nothing, so the table repeats itself: of 16 bits with 12 stored, a sixteenth is computed.
    length, times = 1 << scale.bits_stored, 1 << scale.bits_allocated - scale.bits_stored
    stored = stored_value(np.arange(length), scale)
    is_film = np.ones(stored.shape, bool)
    if scale.padding:
        low, high = scale.padding
        is_film = (stored < low) | (stored > high)
    # How often each pattern is shown stands for the film: no value is looked at twice.
    shown = np.bincount(sample.reshape(-1), minlength=length * times).reshape(times, length).sum(0) * is_film
    values = stored.astype(np.float64)
    if scale.modality:
        values = scale.modality(values)
    grey = _declared(values, scale)
    if shown.any() and (grey is None or _blank(grey, shown)):
        order = values.argsort(kind="stable")
        grey = _stretched(values, *quantiles(values[order], shown[order], ROBUST))
    if not shown.any() or grey is None:
        return np.zeros(length * times, np.uint8)
    if scale.white_is_low:
        grey = 255 - grey
    grey[~is_film] = 0
    return np.tile(grey, times)


def _blank(grey: NDArray[np.uint8], shown: NDArray[np.intp]) -> bool:
    counts = np.zeros(256, np.intp)
    np.add.at(counts, grey, shown)
    return is_blank_histogram(counts)


def _declared(values: NDArray[np.float64], scale: GreyScale) -> NDArray[np.uint8] | None:
    """Grey as the header wants it, None where it does not say."""
    if isinstance(scale.voi, Window):
        return _quantised(scale.voi(values)) if scale.voi.is_valid else None
    if scale.voi:
        entries = scale.voi.entries
        return _stretched(scale.voi(values), float(entries.min()), float(entries.max()))
    # Eight bits without a window are a picture ready to look at, as in a PNG of the same film.
    return _stretched(values, float(values.min()), float(values.max())) if scale.bits_stored <= 8 else None


def _stretched(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8] | None:
    return _quantised(np.clip((values - low) / (high - low), 0, 1)) if high > low else None


def _quantised(grey: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.rint(grey * 255).astype(np.uint8)
