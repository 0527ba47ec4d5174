"""JPEG streams (ITU-T T.81) of 8 bits to grey, refused where the decoder had to make something up.

libjpeg goes on at a hole in a stream, at an end that comes early, at a code that does not exist: it warns, and fills what is
missing with grey or with what came before. Pillow does not pass the warnings on; simplejpeg, over the same library, does.
"""

import re
from typing import cast

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from cxredge.errors import FilmRefusedError, Refusal

# Warnings (libjpeg, jerror.h) that say nothing of the pixels, and that some writers' every film brings: a version or a colour
# transform that nobody knows, and numbers that only progressive streams need.
_HARMLESS = re.compile("unknown JFIF revision|Unknown Adobe color transform|Invalid SOS parameters")
# By how much a JPEG decoder can shrink a side at no cost.
_SHRINKS = (8, 4, 2, 1)


def read_grey_jpeg(coded: bytes, *, at_least: int | None = None) -> NDArray[np.uint8] | None:
    """Luminance of a grey or a colour stream, uint8, to the value as Pillow gives it; None for CMYK and what is coded oddly.

    at_least: side in pixels below which the result must not fall: it is shrunk to 1/2, 1/4 or 1/8 above it. Whole unless told.
    Raises FilmRefusedError for a stream that is not whole.
    """
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(coded)
    except ValueError:
        return None
    if colours in ("CMYK", "YCCK"):
        return None
    shrink = next((by for by in _SHRINKS if at_least and min(height, width) // by >= at_least), 1)
    # Of the sizes that it can make it takes the smallest that is no smaller than this: this one.
    how = {"colorspace": "GRAY", "min_height": -(-height // shrink), "min_width": -(-width // shrink)}
    try:
        try:
            pixels = simplejpeg.decode_jpeg(coded, **how, strict=True)
        except ValueError as warned:
            if not _HARMLESS.search(str(warned)):
                raise
            pixels = simplejpeg.decode_jpeg(coded, **how, strict=False)
    except ValueError as error:
        said = str(error)
        reason = Refusal.ENDS_EARLY if said.startswith("Premature end of JPEG file") else Refusal.DAMAGED
        raise FilmRefusedError(reason, said) from None
    return cast(NDArray[np.uint8], pixels[..., 0])
