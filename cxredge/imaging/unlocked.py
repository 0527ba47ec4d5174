"""Compressed grey frames decoded without Python's lock, so that two cores decode two films: by imagecodecs, where it is installed.

It has the very codecs of the decoders it stands in for (OpenJPEG, CharLS) and a faster one for JPEG Lossless, and gives the same
values; those hold the lock while they work. JPEG Extended above 8 bits, which libjpeg-turbo reads since its version 3, has no
other decoder under a licence that cxredge could install. It is an extra because it has no wheel for the oldest systems.
"""

from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid

from cxredge.imaging.codestream import coded_precision, segments_of
from cxredge.imaging.dicom_file import JPEG_2000

_RESTART_INTERVAL, _SCAN_HEADER = 0xDD, 0xDA
_CODECS = {
    uid.JPEGExtended12Bit: "jpeg8_decode",
    uid.JPEGLossless: "ljpeg_decode",
    uid.JPEGLosslessSV1: "ljpeg_decode",
    uid.JPEGLSLossless: "jpegls_decode",
    uid.JPEGLSNearLossless: "jpegls_decode",
    uid.JPEG2000Lossless: "jpeg2k_decode",
    uid.JPEG2000: "jpeg2k_decode",
}


def is_here() -> bool:
    """Whether imagecodecs is installed."""
    return find_spec("imagecodecs") is not None


def _is_plain_lossless(coded: bytes) -> bool:
    """Whether a JPEG Lossless stream has neither restart intervals nor a point transform: imagecodecs passes over both."""
    for marker, start, end in segments_of(coded):
        if (marker == _RESTART_INTERVAL and any(coded[start:end])) or (marker == _SCAN_HEADER and coded[end - 1] & 15):
            return False
    return True


def read_grey_unlocked(
    coded: bytes, syntax: uid.UID, *, rows: int, columns: int, allocated: int, stored: int
) -> NDArray[Any] | None:
    """Unsigned values [rows, columns]. allocated, stored: bits, as the header says.

    None for what is left to the other decoders: all where imagecodecs is not installed, another syntax, and a stream that it
    does not decode to what the header says, of which they know better what is wrong.
    """
    name = _CODECS.get(syntax)
    if name is None or not is_here():
        return None
    if syntax == uid.JPEGExtended12Bit and stored <= 8:
        return None  # Pillow's, as in any JPEG picture: another decoder could differ by a grey level
    if syntax in JPEG_2000 and not stored <= (coded_precision(coded) or 0) <= allocated:
        return None
    if name == "ljpeg_decode" and not _is_plain_lossless(coded):
        return None
    import imagecodecs

    try:
        values: NDArray[Any] = getattr(imagecodecs, name)(coded)
    except Exception:  # each codec has errors of its own; the other decoders name the fault
        return None
    return values if values.shape == (rows, columns) and values.dtype == np.dtype(f"u{allocated // 8}") else None
