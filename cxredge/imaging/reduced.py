"""JPEG 2000 frames of grey films decoded no larger than needed: the streams hold smaller versions of themselves.

A JPEG's are means of blocks of pixels. A JPEG 2000's are not: each is a band of a wavelet transform (T.800 annex F), whose values
sit on every second, fourth, ... pixel instead of amid so many, and whose filter sharpens or softens on the way. Taken for a shrunk
picture, it lies up to half a pixel off at its own size, which moves a film's edges by up to 36 grey levels at the network's size.
Four taps in each direction make of it the means of blocks of pixels: at the network's size within a grey level, but for one pixel
in five hundred, at the edges of letters.
"""

import io
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxredge.imaging.codestream import coded_precision, wavelet_of

# Analysis low-pass filters from their middle outwards (T.800 F.4.8.1, F.4.8.2), of gain 1: reversible 5/3, irreversible 9/7.
_LOW_PASS = {
    True: (0.75, 0.25, -0.125),
    False: (0.6029490182, 0.2668641184, -0.0782232665, -0.0168641184, 0.0267487574),
}
# How far beside an edge the band may rise above the film's highest value: what the filters weigh in all, in both directions.
_OVERSHOOT = 1.5**2
# Of the band's values, how far from a block's first pixel those lie that its mean is made from.
_TAPS = (-1, 0, 1, 2)


def read_grey_jpeg_2000_reduced(
    coded: bytes, *, rows: int, columns: int, allocated: int, stored: int, at_least: int
) -> tuple[NDArray[Any], int] | None:
    """Means of blocks of N x N unsigned values, and N, a power of two: the largest that leaves each side `at_least` pixels.

    rows, columns: of the film; where N does not divide them, the last blocks reach beyond it. allocated, stored: bits, as the
    header says. None for what has to be decoded whole: a film that is not twice as large as needed, a stream
    whose parts are coded each in its own way, and one that does not decode, of which the other decoders say what is wrong.
    """
    try:
        return _reduced(coded, rows, columns, allocated, stored, at_least)
    except Exception:  # Pillow raises anything at a broken stream; the decoder of whole films names the fault
        return None


def _reduced(
    coded: bytes, rows: int, columns: int, allocated: int, stored: int, at_least: int
) -> tuple[NDArray[Any], int] | None:
    precision, wavelet = coded_precision(coded) or 0, wavelet_of(coded)
    if wavelet is None or not stored <= precision <= allocated:
        return None
    halvings = _halvings(rows, columns, wavelet.levels, at_least)
    if not halvings:
        return None
    with Image.open(io.BytesIO(coded), formats=("JPEG2000",)) as picture:
        if picture.mode != {8: "L", 16: "I;16"}[allocated]:
            return None
        picture.reduce = halvings  # type: ignore[method-assign, assignment]
        picture.load()
        # Pillow scales up to 8 or 16 bits.
        band = np.asarray(picture) >> (allocated - precision)
    highest = (1 << stored) - 1
    if band.max() > _OVERSHOOT * highest:
        return None  # bits above the stored ones hold something, which only single values can be rid of
    means = block_means(band.astype(np.float32), halvings, reversible=wavelet.reversible)
    return np.rint(means.clip(0, highest)).astype(band.dtype), 1 << halvings


def _halvings(rows: int, columns: int, levels: int, at_least: int) -> int:
    """How often the film can be halved. Pillow rounds sizes to the nearest, the standard up: where they differ it fails."""
    return max(
        (
            halvings
            for halvings in range(levels + 1)
            if min(rows, columns) >= at_least << halvings
            and _blocks(rows, columns, 1 << halvings)
            == tuple(side + (1 << halvings >> 1) >> halvings for side in (columns, rows))
        ),
        default=0,
    )


def _blocks(rows: int, columns: int, block: int) -> tuple[int, int]:
    return -(-columns // block), -(-rows // block)


def block_means(band: NDArray[np.float32], halvings: int, *, reversible: bool) -> NDArray[np.float32]:
    """What the means of blocks of 2 ** halvings pixels are, from the low band of a wavelet transform, float [rows, columns]."""
    taps = _taps(halvings, reversible)
    for axis in (0, 1):
        before, after = -_TAPS[0], _TAPS[-1]
        padded = np.pad(band, [(before, after) if axis == along else (0, 0) for along in (0, 1)], mode="edge")
        band = np.lib.stride_tricks.sliding_window_view(padded, len(_TAPS), axis) @ taps
    return band


@cache
def _taps(halvings: int, reversible: bool) -> NDArray[np.float32]:
    """The least squares fit of the band's frequency response, times the taps', to a block's mean.

    Frequencies count as they do in the end: less the higher they are, as in films, and as the network's size lets them through.
    """
    block = 1 << halvings
    wave = np.linspace(0.001, np.pi, 400)
    pixel = wave / block
    low_pass = _LOW_PASS[reversible]
    band = np.ones_like(wave)
    for level in range(halvings):
        band *= low_pass[0] + 2 * sum(
            tap * np.cos(distance * pixel * 2**level) for distance, tap in enumerate(low_pass[1:], 1)
        )
    wanted = np.exp(1j * np.outer(pixel, np.arange(block))).mean(1)
    made = band[:, None] * np.exp(1j * np.outer(wave, _TAPS))
    counts = np.sinc(wave / np.pi) ** 2 / wave
    left = np.concatenate([(made * counts[:, None]).real, (made * counts[:, None]).imag])
    right = np.concatenate([(wanted * counts).real, (wanted * counts).imag])
    taps = np.linalg.lstsq(left, right, rcond=None)[0].round(4)
    # Rounded, so that they are the same on every machine; even grey stays as it is.
    taps[1] += 1 - taps.sum()
    return np.asarray(taps, np.float32)
