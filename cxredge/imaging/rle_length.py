"""Whether the segments of an RLE frame (PS3.5 annex G) hold as many bytes as the picture needs.

pydicom takes what comes after them for padding, and so a hole, behind which the rest is read out of step, for a picture.
"""

import struct

# Some writers end a segment with a byte or two that belong to nothing.
_PADDING = 2


def is_as_long_as_its_picture(coded: bytes, pixels: int) -> bool:
    """coded: one frame. pixels: rows x columns; each segment holds one byte of every one."""
    if len(coded) < 64:
        return False
    count, *offsets = struct.unpack_from("<16I", coded)
    ends = [*offsets[1:count], len(coded)]
    return all(
        0 <= _decoded(coded[start:end]) - pixels <= _PADDING for start, end in zip(offsets[:count], ends, strict=True)
    )


def _decoded(segment: bytes) -> int:
    """Bytes that a segment's runs make, without making them (PS3.5 G.3.2)."""
    at, made, length = 0, 0, len(segment)
    while at < length - 1:
        head = segment[at]
        if head < 128:
            made += min(head + 1, length - at - 1)
            at += head + 2
        elif head > 128:
            made += 257 - head
            at += 2
        else:
            at += 1
    return made
