"""Pixels that were never written: after a power cut a file may have its full size and zeros where the disk had not followed yet.

No checksum guards uncompressed pixels, and their zeros are black like air. What tells them apart is where they begin: a film that
is black below is so from the end of a row, or along an edge that moves by some pixels a row; what a disk holds breaks off at one
of its sectors, wherever in a row that is. Coded pixels may hold many zeros too, where there is nothing to code; those begin and
end anywhere.
"""

import numpy as np
from numpy.typing import NDArray

UNWRITTEN = "some of its pixels were never written: zeros begin in the midst of a row"
UNWRITTEN_SECTORS = "some of its pixels were never written: zeros fill whole sectors of the disk"
# Bytes of the smallest part of a disk that is written as a whole.
_SECTOR = 512
# So many bytes before it may be zero of themselves: the upper half of a dark value.
_DARK = 8
# Share of a row, in bytes that are not zero, that must lie on either side of where the zeros begin.
_CONTENT = 0.05
# Coded pixels beside an unwritten sector that may be zero of themselves, in bytes.
_CODED_ZEROS = 2


def has_unwritten(rows: NDArray[np.uint8], offset: int) -> bool:
    """Whether a row breaks off in the midst of content and nothing but zeros follows, for as long as a row at least.

    rows: uint8 [R, B], the bytes of R rows in the order of the file. offset: where in the file they begin.
    """
    wide = rows.shape[1]
    half = wide // 2
    flat = rows.reshape(-1)
    if not half:
        return False
    blocks = len(flat) // half
    # A run of zeros as long as a row holds a whole block of half a row, wherever it begins.
    empty: NDArray[np.bool_] = np.logical_not(flat[: blocks * half].reshape(blocks, half).any(1))
    for block in np.flatnonzero(empty[1:] & ~empty[:-1]):
        before = flat[block * half : (block + 1) * half]
        start = int(block) * half + int(np.flatnonzero(before)[-1]) + 1
        if -(start + offset) % _SECTOR <= _DARK and _breaks_off(flat, start, wide):
            return True
    return False


def _breaks_off(flat: NDArray[np.uint8], start: int, wide: int) -> bool:
    """Whether zeros that begin at `start`, in rows of `wide` bytes, begin where no picture's would."""
    column = start % wide
    if start < 2 * wide or start + wide > len(flat) or flat[start : start + wide].any():
        return False
    left = flat[start - column : start]
    first, second = (flat[start - up * wide : start - up * wide + wide - column] for up in (1, 2))
    if min(np.count_nonzero(part) for part in (left, first, second)) < _CONTENT * wide:
        return False
    # The rows above end where they end; along an oblique edge each would end earlier than the one above it.
    ends = [int(np.flatnonzero(part)[-1]) for part in (first, second)]
    return abs(ends[0] - ends[1]) <= ends[0] / 8


def has_unwritten_sectors(coded: bytes, offset: int) -> bool:
    """Whether zeros fill sectors of the disk within coded pixels, from the beginning of one to the end of one.

    offset: where in the file the coded pixels begin.
    """
    held = np.frombuffer(coded, np.uint8)
    first = -offset % _SECTOR
    count = max(0, len(held) - first) // _SECTOR
    empty: NDArray[np.bool_] = np.logical_not(held[first : first + count * _SECTOR].reshape(count, _SECTOR).any(1))
    # Where runs of empty sectors begin and end.
    edges = np.flatnonzero(np.diff(empty, prepend=False, append=False)) * _SECTOR + first
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        before, after = held[max(0, start - _CODED_ZEROS - 1) : start], held[end : end + _CODED_ZEROS + 1]
        if before.any() and after.any():
            return True
    return False
