"""What a compressed picture says of itself, read before any decoder is let loose on it."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

JPEG_START, _JPEG_2000_START = b"\xff\xd8", b"\xff\x4f\xff\x51"
# SOF0 to SOF15 without DHT, JPG and DAC (ITU-T T.81 table B.1), and SOF55 of JPEG-LS (T.87).
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_SCAN_HEADER, _SOF_LOSSLESS, _DHT = 0xDA, 0xC3, 0xC4
# What may stand before the pixels (T.81 table B.1, T.87): frames, tables, restart interval, applications' own, comments.
_HEADER_MARKERS = {*_FRAME_HEADERS, _DHT, 0xCC, _SCAN_HEADER, 0xDB, 0xDD, 0xDE, 0xDF, *range(0xE0, 0xF0), 0xF8, 0xFE}
# JPEG and JPEG-LS end with EOI, JPEG 2000 with EOC: the same bytes, which coded pixels cannot hold. Padding may follow.
_END, _END_WITHIN = b"\xff\xd9", 64
# Markers of a JPEG 2000 stream (T.800 table A.2): coding style, the same of one component, start of data.
_COD, _COC, _SOD = 0xFF52, 0xFF53, 0xFF93


@dataclass(frozen=True)
class Wavelet:
    """How a JPEG 2000 picture is transformed (T.800 A.6.1). levels: how often it is halved; reversible: by 5/3, else by 9/7."""

    levels: int
    reversible: bool


def coded_size(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns of a JPEG, JPEG-LS or JPEG 2000 stream; None where its header cannot be followed."""
    if frame.startswith(JPEG_START):
        return _jpeg_size(frame)
    # A JPEG 2000 stream may come wrapped in the boxes of a JP2 file.
    starts = frame.find(_JPEG_2000_START) + len(_JPEG_2000_START)
    if starts < len(_JPEG_2000_START) or len(frame) < starts + 20:
        return None
    # SIZ, T.800 A.5.1: length, capabilities, then the reference grid and where the picture begins on it.
    right, bottom, left, top = struct.unpack_from(">IIII", frame, starts + 4)
    return bottom - top, right - left


def coded_precision(frame: bytes) -> int | None:
    """Bits of the first component of a JPEG 2000 stream; None where it is signed or its header cannot be followed."""
    starts = frame.find(_JPEG_2000_START) + len(_JPEG_2000_START)
    # SIZ: 2 bytes of length, 2 of capabilities, 32 of sizes, 2 of component count, then the first component's depth.
    at = starts + 38
    if starts < len(_JPEG_2000_START) or len(frame) <= at:
        return None
    return None if frame[at] & 0x80 else (frame[at] & 0x7F) + 1


def wavelet_of(frame: bytes) -> Wavelet | None:
    """The transform of a JPEG 2000 stream of one tile that begins at the grid's origin and is coded in one way throughout.

    None for any other, and where the header cannot be followed.
    """
    starts = frame.find(_JPEG_2000_START)
    if starts < 0 or len(frame) < starts + 40:
        return None
    right, bottom, left, top, wide, high, *tile = struct.unpack_from(">IIIIIIII", frame, starts + 8)
    if (left, top, *tile) != (0, 0, 0, 0) or wide < right or high < bottom:
        return None
    at, found = starts + 2, None
    while at + 4 <= len(frame):
        marker, length = struct.unpack_from(">HH", frame, at)
        if marker == _SOD:
            return found
        # In the header of a tile's part either would say otherwise for what follows.
        if marker == _COC or (marker == _COD and (found or len(frame) < at + 14)):
            return None
        if marker == _COD:
            # Marker, length, style, progression, layers, colour transform; then levels, block sizes and style, transform.
            levels, *_, kernel = struct.unpack_from(">BBBBB", frame, at + 9)
            found = Wavelet(levels, kernel == 1)
        at += 2 + length
    return None


def is_sound_jpeg(frame: bytes, *, allocated: int, components: int) -> bool:
    """Whether every segment of a JPEG or JPEG-LS stream up to its pixels is one that a decoder can follow.

    allocated: bits a sample that the file makes room for. GDCM's decoder ends the whole process at a precision that it does not
    know and at segments out of place, so it must not see them.
    """
    at, kind = len(JPEG_START), 0
    tables = False
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        marker, length = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker == 0xFF:  # any number of them may fill the space before a marker
            at += 1
            continue
        if marker not in _HEADER_MARKERS or length < 2 or at + 2 + length > len(frame):
            return False
        if marker == _SCAN_HEADER:
            # Lossless JPEG has no tables but its own; of others a decoder may know the usual ones.
            return bool(kind) and (tables or kind != _SOF_LOSSLESS)
        if marker in _FRAME_HEADERS:
            if kind or length < 8 or not (2 <= frame[at + 4] <= min(16, allocated) and frame[at + 9] == components):
                return False
            if length != 8 + 3 * components:
                return False
            kind = marker
        tables |= marker == _DHT
        at += 2 + length
    return False


def has_end(frame: bytes) -> bool:
    """Whether a JPEG, JPEG-LS or JPEG 2000 stream is complete to its end marker."""
    return _END in frame[-_END_WITHIN:]


def segments_of(frame: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of the content of every segment of a JPEG stream, up to and with the first scan header."""
    at = len(JPEG_START)
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # any number of them may fill the space before a marker
            at += 1
            continue
        end = at + 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
        yield marker, at + 4, end
        if marker == _SCAN_HEADER:
            return
        at = end


def _jpeg_size(frame: bytes) -> tuple[int, int] | None:
    for marker, start, _ in segments_of(frame):
        if marker in _FRAME_HEADERS and len(frame) >= start + 5:
            rows, columns = struct.unpack_from(">HH", frame, start + 1)
            return rows, columns
    return None
