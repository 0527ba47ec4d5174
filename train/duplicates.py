"""Copies of one film: the same pixels, or the same film saved again."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cxredge.imaging.preprocess import COARSE

# A copy differs from its film in at most so many of 1,104 bits, and correlates with it at least so well.
#
# Chest films look alike: with the usual 64-bit difference hash 923 pairs of different films of ChestX-ray14 and Kermany (8,552
# films, 36.6 million pairs) have the very same hash, and 8,309 differ in one bit or none. With all 1,104 bits the nearest pair
# of different patients differs in more than 145, and the nearest pair of one patient, a film and its follow-up, in 129. Of 600
# films saved again, JPEG of quality 50 to 90 and sizes from half to 1.1 differ in up to 76 bits, quality 20 in up to 116
# (99 %: 89), another gamma in 36, contrast raised by 15 % in up to 146 (99 %: 75). Films cut by 1 % a side differ in up to 117,
# by 2 % in 136 or more every second time, and correlate less: films that were cut are found in part.
MOST_BITS = 100
# A film that is mostly black has few bits that tell it from another; its greys do. Different films correlate by 0.985 at the
# most, copies as above by 0.994 or more.
LEAST_CORRELATION = 0.99
_ROWS = 64


def signature(coarse: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Difference hash of the film at 24 x 24: is each pixel's right, and its lower, neighbour brighter than itself?

    coarse: uint8 [24, 24], `Film.coarse`. Returns 1,104 bits as uint64 [18], which no change of size, brightness or contrast
    moves much. (N. Krawetz, "Kind of like that", 2013, with 8 x 8 bits; two directions and 24 x 24 here, see `MOST_BITS`.)
    """
    bits = np.concatenate(((coarse[:, 1:] > coarse[:, :-1]).ravel(), (coarse[1:] > coarse[:-1]).ravel()))
    packed = np.packbits(bits)
    words: NDArray[np.uint64] = np.pad(packed, (0, -len(packed) % 8)).view(np.uint64)
    return words


def exact_copies(digests: Sequence[bytes]) -> list[list[int]]:
    """Rows whose digests are equal, two or more each, in the order of their first."""
    rows: dict[bytes, list[int]] = {}
    for row, digest in enumerate(digests):
        rows.setdefault(digest, []).append(row)
    return [group for group in rows.values() if len(group) > 1]


def near_copies(coarse: NDArray[np.uint8], *, tick: Callable[[int], None] | None = None) -> list[list[int]]:
    """Rows that show the same film, two or more each.

    coarse: uint8 [N, 24, 24]. Every film is held against every other: 2 s for 8,552 films, minutes for 112,120.
    tick: called with the number of films that are through.
    """
    count = len(coarse)
    if count < 2:
        return []
    words = np.stack([signature(one) for one in coarse])
    parents = list(range(count))

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    for start in range(0, count, _ROWS):
        block = words[start : start + _ROWS]
        apart = np.zeros((len(block), count - start), np.uint16)
        for word in range(words.shape[1]):
            apart += np.bitwise_count(block[:, word, None] ^ words[None, start:, word])
        for left, right in np.argwhere(apart <= MOST_BITS):
            if left < right and _alike(coarse[start + left], coarse[start + right]):
                parents[root(start + int(right))] = root(start + int(left))
        if tick is not None:
            tick(min(start + _ROWS, count))
    groups: dict[int, list[int]] = {}
    for row in range(count):
        groups.setdefault(root(row), []).append(row)
    return [group for group in groups.values() if len(group) > 1]


def _alike(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    a, b = (plane.reshape(COARSE * COARSE).astype(np.float64) for plane in (one, other))
    a, b = a - a.mean(), b - b.mean()
    return bool(a @ b >= LEAST_CORRELATION * np.sqrt((a @ a) * (b @ b)))
