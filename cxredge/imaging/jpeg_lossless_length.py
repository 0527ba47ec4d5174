"""Whether a JPEG Lossless stream (ITU-T T.81 annex H) is as long as the picture that was decoded from it.

Its decoders go on at a hole in the stream and give a picture that is wrong from there on. Each pixel took as many bits as its
difference from what was predicted needs, so those of all pixels together must be the stream's.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxredge.imaging.codestream import segments_of

_HUFFMAN_TABLE, _SOF_LOSSLESS, _SCAN_HEADER, _RESTART_INTERVAL = 0xC4, 0xC3, 0xDA, 0xDD
_END = b"\xff\xd9"
# For a difference that the stream's table has no code for: more bits than padding could be.
_IMPOSSIBLE = 1 << 15
# Bytes that a writer may have put behind the pixels, besides the byte that DICOM adds to make them even.
_PADDING = 16
_ROWS = 64


def is_as_long_as_decoded(coded: bytes, values: NDArray[Any]) -> bool:
    """coded: a stream of one component whose header is sound. values: what was decoded of it, whole numbers [rows, columns].

    True too where it cannot be told: with restart intervals, whose padding is nowhere counted.
    """
    tables: dict[int, dict[int, int]] = {}
    precision = 0
    for marker, start, end in segments_of(coded):
        if marker == _HUFFMAN_TABLE:
            tables |= _tables(coded[start:end])
        elif marker == _SOF_LOSSLESS:
            precision = coded[start]
        elif marker == _RESTART_INTERVAL and any(coded[start:end]):
            return True
        elif marker == _SCAN_HEADER:
            # One component: its number, its table, the predictor, nothing, the point transform.
            table = tables.get(coded[start + 2] >> 4, {})
            predictor, shift = coded[start + 3], coded[start + 5] & 15
            scan = coded[end : coded.rfind(_END)]
    used = _bits(values, precision, predictor, shift, table)
    # A byte FF is followed by a stuffed zero; what fills the last byte, and what a writer may pad with, says nothing.
    least = scan[:-_PADDING] + scan[-_PADDING:].rstrip(b"\x00\xff")
    held, padded = (8 * (len(part) - part.count(b"\xff\x00")) for part in (least, scan))
    return held - 8 < used <= padded


def _tables(segment: bytes) -> dict[int, dict[int, int]]:
    """Bits of the code of every category, by the number of the table (T.81 B.2.4.2)."""
    found = {}
    while segment:
        lengths = [length for length, count in enumerate(segment[1:17], 1) for _ in range(count)]
        found[segment[0] & 15] = dict(zip(segment[17:], lengths, strict=False))
        segment = segment[17 + len(lengths) :]
    return found


def _bits(values: NDArray[Any], precision: int, predictor: int, shift: int, table: dict[int, int]) -> int:
    """Bits that the pixels' differences take (T.81 H.1.2): of each the code of its category, and as many more as that says."""
    # Differences are modulo 2^16; the category is the length of the larger of it and its negative.
    size = np.minimum(np.arange(1 << 16), (1 << 16) - np.arange(1 << 16))
    category = np.ceil(np.log2(size + 1)).astype(int)
    # One difference, 32,768, has a category of its own and needs no more bits.
    bits = np.array([table.get(c, _IMPOSSIBLE) + c * (c < 16) for c in range(17)], np.uint16)[category]
    total, mask = 0, np.uint16((1 << precision) - 1)
    for top in range(0, len(values), _ROWS):
        rows: NDArray[np.uint16] = (values[max(top - 1, 0) : top + _ROWS].astype(np.uint16) & mask) >> np.uint16(shift)
        if not top:
            first = np.concatenate([[1 << precision - shift - 1], rows[0, :-1]]).astype(np.uint16)
            total += int(bits[rows[0] - first].sum())
        left, above, before = rows[1:, :-1], rows[:-1, 1:], rows[:-1, :-1]
        total += int(bits[rows[1:, 0] - rows[:-1, 0]].sum())
        total += int(bits.take(rows[1:, 1:] - _predicted(predictor, left, above, before)).sum(dtype=np.int64))
    return total


def _predicted(
    predictor: int, left: NDArray[np.uint16], above: NDArray[np.uint16], before: NDArray[np.uint16]
) -> NDArray[np.uint16]:
    """T.81 table H.1."""
    if predictor <= 3:
        return (np.zeros_like(left), left, above, before)[predictor]
    a, b, c = (part.astype(np.int32) for part in (left, above, before))
    return (a + b - c, a + (b - c >> 1), b + (a - c >> 1), a + b >> 1)[predictor - 4].astype(np.uint16)
