"""From the coded or plain frame of a DICOM file to its stored values, each transfer syntax by its one decoder."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import Decoder, get_decoder

from cxredge.errors import FilmFailedError, FilmRefusedError, Refusal
from cxredge.imaging.dicom_file import (
    JPEG_2000,
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
from cxredge.imaging.rle_length import is_as_long_as_its_picture
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
_JPEG_OF_8_BITS = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)
_JPEG_LOSSLESS = (uid.JPEGLossless, uid.JPEGLosslessSV1)
# Their values are approximations, a little beyond the highest or lowest at times. Of what is lossless the upper bits may mean
# something else, and are masked.
_LOSSY = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000, uid.HTJ2K)
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
    def plain_grey(self) -> bool:
        """Whether values are unsigned grey, which decoders give without pydicom's detours."""
        return self.samples == 1 and not self.signed

    @property
    def said(self) -> dict[str, int]:
        """What the header says of a coded frame."""
        bits = {"allocated": self.bits_allocated, "stored": self.bits_stored}
        return {"rows": self.rows, "columns": self.columns, **bits}

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


@dataclass(frozen=True)
class Decoded:
    """Stored values [rows, columns] or [rows, columns, 3]; photometric: what they are once decoded.

    block: how many pixels of the film, along a side, each is the mean of.
    """

    values: NDArray[Any]
    photometric: str
    block: int = 1


def decode(source: DicomSource, shape: Shape, at_least: int | None) -> Decoded:
    """The film's values. at_least: side in pixels below which they must not fall, where they may be means of several; None: each
    pixel its own.

    Raises FilmRefusedError where they are damaged or coded as nobody here can read, FilmFailedError where the decoder that could
    is not installed.
    """
    syntax = source.syntax
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise FilmRefusedError(Refusal.UNSUPPORTED, f"pixels coded as {uid_name(syntax)}") from None
    if decoder.is_native:
        frame = read_native(source, shape.frame_bytes, shape.frame_bytes // shape.rows)
        # The grey table masks unused bits itself, so the array can be the file's own bytes.
        return _by_pydicom(frame, decoder, source, shape, view_only=True, correct_unused_bits=False)
    plugin = _plugin(syntax, shape, decoder.available_plugins)
    frame = read_encapsulated(
        source, shape.rows, shape.columns, allocated=shape.bits_allocated, components=shape.samples
    )
    if syntax in _JPEG_OF_8_BITS and shape.bits_allocated == 8:
        # Also a colour film, of which it is not taken: what decodes those goes on where a stream is broken.
        grey = read_grey_jpeg(frame, at_least=at_least)
        if grey is not None and shape.plain_grey:
            return Decoded(grey, shape.photometric, round(shape.columns / grey.shape[1]))
    if syntax in JPEG_2000 and shape.plain_grey and at_least:
        means = read_grey_jpeg_2000_reduced(frame, **shape.said, at_least=at_least)
        if means is not None:
            return Decoded(means[0], shape.photometric, means[1])
    pixels = read_grey_unlocked(frame, syntax, **shape.said) if shape.plain_grey else None
    with nullcontext() if pixels is not None or plugin not in _HOLD_PYTHON else _ONE_AT_A_TIME:
        if pixels is None and shape.plain_grey:
            pixels = _grey(frame, syntax, plugin, shape)
        found = (
            _by_pydicom(encapsulate([frame]), decoder, source, shape, decoding_plugin=plugin)
            if pixels is None
            else Decoded(pixels, shape.photometric)
        )
    # The decoders of these go on at a hole.
    whole = True
    if syntax in _JPEG_LOSSLESS and shape.samples == 1:
        whole = is_as_long_as_decoded(frame, found.values)
    elif syntax == uid.RLELossless:
        whole = is_as_long_as_its_picture(frame, shape.rows * shape.columns)
    if not whole:
        raise FilmRefusedError(Refusal.DAMAGED, f"its {syntax_name(syntax)} is longer or shorter than its picture")
    return replace(found, values=_within(found.values, shape)) if syntax in _LOSSY and shape.samples == 1 else found


def _within(values: NDArray[Any], shape: Shape) -> NDArray[Any]:
    """Values no further than the bits stored reach: masked, what is a little brighter than white would be black."""
    half = 1 << shape.bits_stored - 1
    low, high = (-half, half - 1) if shape.signed else (0, 2 * half - 1)
    return values if low <= values.min() and values.max() <= high else values.clip(low, high)


def _by_pydicom(coded: bytes, decoder: Decoder, source: DicomSource, shape: Shape, **how: Any) -> Decoded:
    options: dict[str, Any] = how | {
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
    try:
        values, properties = decoder.as_array(coded, index=0, raw=True, **options)
    except Exception as error:
        raise _damaged(error, source.syntax) from None
    return Decoded(values, str(properties["photometric_interpretation"]))


def _grey(coded: bytes, syntax: uid.UID, plugin: str, shape: Shape) -> NDArray[Any] | None:
    """Values of an unsigned grey frame, without the copies of the film that pydicom makes; None for what is left to it."""
    rows, columns, allocated, stored = shape.rows, shape.columns, shape.bits_allocated, shape.bits_stored
    try:
        if plugin == "pillow" and syntax in JPEG_2000:
            return read_grey_jpeg_2000(coded, allocated=allocated, stored=stored)
        if plugin == "pyjpegls":
            return read_grey_jpeg_ls(coded, rows=rows, columns=columns, allocated=allocated)
        if plugin == "gdcm" and syntax in _JPEG_LOSSLESS:
            return read_grey_jpeg_lossless(
                coded, syntax=str.__str__(syntax), photometric=shape.photometric,
                rows=rows, columns=columns, allocated=allocated, stored=stored,
            )  # fmt: skip
    except Exception as error:
        raise _damaged(error, syntax) from None
    return None


def _damaged(error: Exception, syntax: uid.UID) -> FilmRefusedError:
    raise_unless_content(error)
    return FilmRefusedError(Refusal.DAMAGED, f"its pixels cannot be decoded as {syntax_name(syntax)}")


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
