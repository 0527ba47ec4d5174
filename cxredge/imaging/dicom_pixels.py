"""From the coded or plain frame of a DICOM file to its stored values, each transfer syntax by its one decoder."""

from contextlib import nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any

from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder

from cxredge.errors import FilmFailedError, FilmRefusedError, Refusal
from cxredge.imaging.dicom_file import (
    DicomSource,
    raise_unless_content,
    read_encapsulated,
    read_native,
    syntax_name,
    uid_name,
)
from cxredge.imaging.dicom_header import code_of, integer_of
from cxredge.imaging.jpeg import read_grey_jpeg
from cxredge.imaging.jpeg_2000 import read_grey_jpeg_2000
from cxredge.imaging.jpeg_lossless import read_grey_jpeg_lossless, read_grey_jpeg_ls
from cxredge.imaging.jpeg_lossless_length import is_as_long_as_decoded
from cxredge.imaging.plane import MAX_PIXELS
from cxredge.imaging.reduced import read_grey_jpeg_2000_reduced
from cxredge.imaging.unlocked import is_here, read_grey_unlocked

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
# One decoder per syntax, always the same where it is installed: two may differ by a grey level. RLE is pydicom's own.
_DECODERS = {
    uid.JPEGBaseline8Bit: ("pillow", "gdcm"),
    uid.JPEGExtended12Bit: ("pillow", "gdcm"),
    uid.JPEGLossless: ("gdcm", "pylibjpeg"),
    uid.JPEGLosslessSV1: ("gdcm", "pylibjpeg"),
    uid.JPEGLSLossless: ("pyjpegls", "gdcm"),
    uid.JPEGLSNearLossless: ("pyjpegls", "gdcm"),
    uid.JPEG2000Lossless: ("pillow", "gdcm"),
    uid.JPEG2000: ("pillow", "gdcm"),
    uid.HTJ2KLossless: ("pylibjpeg",),
    uid.HTJ2KLosslessRPCL: ("pylibjpeg",),
    uid.HTJ2K: ("pylibjpeg",),
    uid.RLELossless: ("pydicom",),
}
# These decode JPEG Extended above 8 bits. The first comes with the extra `fast`; the second's licence (GPL) keeps it out of what
# cxredge installs, and it may differ by one of 4,096 levels.
_TWELVE_BIT_DECODERS = ("imagecodecs", "pylibjpeg")
_JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000)
_JPEG_OF_8_BITS = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)
_JPEG_LOSSLESS = (uid.JPEGLossless, uid.JPEGLosslessSV1)
# These keep Python's lock while they decode, so that several at once would be no faster and only take more memory.
_HOLD_PYTHON = ("gdcm", "pyjpegls")
_ONE_AT_A_TIME = Lock()
_PACKAGES = {
    "pillow": "pillow",
    "gdcm": "python-gdcm",
    "imagecodecs": "imagecodecs",
    "pyjpegls": "pyjpegls",
    "pylibjpeg": "pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg",
}


@dataclass(frozen=True)
class Shape:
    """Image Pixel module (PS3.3 C.7.6.3), checked."""

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric: str
    planar: int

    @property
    def frame_bytes(self) -> int:
        # Two pixels of YBR_FULL_422 share their colour: two samples a pixel instead of three (C.7.6.3.1.2).
        samples = 2 if self.photometric == "YBR_FULL_422" else self.samples
        return self.rows * self.columns * samples * self.bits_allocated // 8


def shape_of(header: Dataset) -> Shape:
    rows, columns = integer_of(header, "Rows"), integer_of(header, "Columns")
    if not rows or not columns:
        raise FilmRefusedError(Refusal.DAMAGED, "its header gives no size")
    if rows * columns > MAX_PIXELS:
        raise FilmRefusedError(Refusal.TOO_LARGE, f"{columns} x {rows} pixels")
    if (frames := integer_of(header, "NumberOfFrames", 1)) > 1:
        raise FilmRefusedError(Refusal.MULTI_FRAME, f"{frames} frames")
    photometric = code_of(header, "PhotometricInterpretation")
    samples = integer_of(header, "SamplesPerPixel", 1)
    if photometric not in _GREY + _COLOUR:
        raise FilmRefusedError(Refusal.UNSUPPORTED, f"photometric interpretation {photometric or 'not given'}")
    if samples != (1 if photometric in _GREY else 3):
        raise FilmRefusedError(Refusal.DAMAGED, f"{photometric} with {samples} samples a pixel")
    allocated = integer_of(header, "BitsAllocated")
    stored = integer_of(header, "BitsStored", allocated)
    if allocated not in ((8, 16) if samples == 1 else (8,)):
        raise FilmRefusedError(Refusal.UNSUPPORTED, f"{allocated} bits a {'pixel' if samples == 1 else 'colour'}")
    if not 1 <= stored <= allocated:
        raise FilmRefusedError(Refusal.DAMAGED, f"{stored} bits stored in {allocated}")
    # Before 2007 values might lie higher in their words than at the bottom (PS3.5 8.1.1, retired).
    if integer_of(header, "HighBit", stored - 1) != stored - 1:
        raise FilmRefusedError(Refusal.UNSUPPORTED, f"values of {stored} bits that do not end at bit {stored - 1}")
    signed = integer_of(header, "PixelRepresentation") == 1
    return Shape(
        rows, columns, samples, allocated, stored, signed, photometric, integer_of(header, "PlanarConfiguration")
    )


def decode(source: DicomSource, shape: Shape, at_least: int | None) -> tuple[NDArray[Any], str, int]:
    """Stored values [rows, columns] or [rows, columns, 3], their photometric interpretation once decoded, and how many pixels
    of the film each is the mean of, along a side."""
    try:
        decoder = get_decoder(source.syntax)
    except NotImplementedError:
        raise FilmRefusedError(Refusal.UNSUPPORTED, f"pixels coded as {uid_name(source.syntax)}") from None
    plugin = _plugin(source.syntax, shape, decoder.available_plugins) if decoder.is_encapsulated else ""
    lock = _ONE_AT_A_TIME if plugin in _HOLD_PYTHON else nullcontext()
    if plugin:
        coded_as = {"allocated": shape.bits_allocated, "components": shape.samples}
        frame = read_encapsulated(source, shape.rows, shape.columns, **coded_as)
    else:
        frame = read_native(source, shape.frame_bytes, shape.frame_bytes // shape.rows)
    options: dict[str, Any] = {
        "rows": shape.rows,
        "columns": shape.columns,
        "number_of_frames": 1,
        "samples_per_pixel": shape.samples,
        "bits_allocated": shape.bits_allocated,
        "bits_stored": shape.bits_stored,
        "pixel_representation": int(shape.signed),
        "photometric_interpretation": shape.photometric,
        "planar_configuration": shape.planar,
        "pixel_keyword": "PixelData",
        "pixel_vr": source.vr,
    }
    if decoder.is_native:
        # The grey table masks unused bits itself, so the array can be the file's own bytes.
        options |= {"view_only": True, "correct_unused_bits": False}
    if shape.bits_allocated == 8 and source.syntax in _JPEG_OF_8_BITS:
        # Also a colour film, of which it is not taken: what decodes those goes on where a stream is broken.
        grey = read_grey_jpeg(frame, at_least=at_least)
        if grey is not None and shape.samples == 1 and not shape.signed:
            return grey, shape.photometric, round(shape.columns / grey.shape[1])
    if plugin and shape.samples == 1 and not shape.signed:
        said = {
            "rows": shape.rows, "columns": shape.columns,
            "allocated": shape.bits_allocated, "stored": shape.bits_stored,
        }  # fmt: skip
        wavelet = source.syntax in _JPEG_2000
        if wavelet and at_least and (means := read_grey_jpeg_2000_reduced(frame, **said, at_least=at_least)):
            return means[0], shape.photometric, means[1]
        if (pixels := read_grey_unlocked(frame, source.syntax, **said)) is not None:
            return _whole(pixels, frame, source.syntax), shape.photometric, 1
    photometric = shape.photometric
    try:
        with lock:
            array = _grey(frame, source.syntax, plugin, shape) if plugin else None
            if array is None:
                coded = encapsulate([frame]) if plugin else frame
                array, properties = decoder.as_array(coded, index=0, raw=True, decoding_plugin=plugin, **options)
                photometric = str(properties["photometric_interpretation"])
    except Exception as error:
        raise_unless_content(error)
        detail = f"its pixels cannot be decoded as {syntax_name(source.syntax)}"
        raise FilmRefusedError(Refusal.DAMAGED, detail) from None
    return _whole(array, frame, source.syntax), photometric, 1


def _whole(values: NDArray[Any], coded: bytes, syntax: uid.UID) -> NDArray[Any]:
    """The same values. Raises FilmRefusedError where their decoder is known to go on at a hole, and did."""
    if syntax in _JPEG_LOSSLESS and values.ndim == 2 and not is_as_long_as_decoded(coded, values):
        detail = "its JPEG Lossless stream is longer or shorter than the picture in it"
        raise FilmRefusedError(Refusal.DAMAGED, detail)
    return values


def _grey(coded: bytes, syntax: uid.UID, plugin: str, shape: Shape) -> NDArray[Any] | None:
    """Values of an unsigned grey frame, without the copies of the film that pydicom makes; None for what is left to it."""
    if shape.samples != 1 or shape.signed:
        return None
    rows, columns, allocated, stored = shape.rows, shape.columns, shape.bits_allocated, shape.bits_stored
    if plugin == "pillow" and syntax in _JPEG_2000:
        return read_grey_jpeg_2000(coded, allocated=allocated, stored=stored)
    if plugin == "pyjpegls":
        return read_grey_jpeg_ls(coded, rows=rows, columns=columns, allocated=allocated)
    if plugin == "gdcm" and syntax in _JPEG_LOSSLESS:
        return read_grey_jpeg_lossless(
            coded, syntax=str.__str__(syntax), photometric=shape.photometric,
            rows=rows, columns=columns, allocated=allocated, stored=stored,
        )  # fmt: skip
    return None


def _plugin(syntax: uid.UID, shape: Shape, available: tuple[str, ...]) -> str:
    wanted = _DECODERS.get(syntax, available)
    if syntax == uid.JPEGExtended12Bit and shape.bits_stored > 8:
        wanted = _TWELVE_BIT_DECODERS
        # No plug-in of pydicom's, and for unsigned grey only.
        available = (*available, *["imagecodecs"] * (is_here() and shape.samples == 1 and not shape.signed))
    for name in wanted:
        if name in available:
            return name
    package = _PACKAGES[wanted[0]] if wanted else "a pydicom plug-in for it"
    raise FilmFailedError(f"no decoder for {syntax_name(syntax)} is installed: pip install {package}")
