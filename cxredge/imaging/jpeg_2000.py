"""JPEG 2000 frames of grey films, through Pillow."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxredge.errors import FilmRefusedError, Refusal
from cxredge.imaging.codestream import coded_precision
from cxredge.imaging.dicom_file import raise_unless_content

# Rows handed over at a time: all at once, Pillow holds the film three times over.
_BAND = 64


def read_grey_jpeg_2000(coded: bytes, *, allocated: int, stored: int) -> NDArray[Any] | None:
    """Unsigned values as pydicom's Pillow plug-in gives them, without its three copies of the film.

    allocated, stored: bits, as the header says. None for what is left to pydicom: a stream of signed values, of fewer bits than
    its header says, or one that Pillow does not take for grey. Raises FilmRefusedError when it cannot be decoded.
    """
    precision = coded_precision(coded) or 0
    if not stored <= precision <= allocated:
        return None
    try:
        with Image.open(io.BytesIO(coded), formats=("JPEG2000",)) as picture:
            if picture.mode != {8: "L", 16: "I;16"}[allocated]:
                return None
            picture.load()
            values = np.empty((picture.height, picture.width), f"<u{allocated // 8}")
            for top in range(0, picture.height, _BAND):
                band = picture.crop((0, top, picture.width, min(top + _BAND, picture.height)))
                # Pillow scales up to 8 or 16 bits.
                np.right_shift(np.asarray(band), allocated - precision, out=values[top : top + _BAND])
    except Exception as error:
        raise_unless_content(error)
        detail = "its pixels cannot be decoded as JPEG 2000 Image Compression"
        raise FilmRefusedError(Refusal.DAMAGED, detail) from None
    return values
