"""DICOM files to a grey plane, through pydicom and its pixel decoders."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder

from cxredge.errors import FilmFailedError, FilmRefusedError, Refusal
from cxredge.imaging.dicom_file import (
    DicomSource,
    open_dicom,
    raise_unless_content,
    read_encapsulated,
    read_native,
    syntax_name,
    uid_name,
)
from cxredge.imaging.dicom_header import code_of, integer_of, numbers_of, person_of, pixel_aspect_of, tags_of, value_of
from cxredge.imaging.grey import GreyScale, LookupTable, Rescale, Window, WindowShape, to_grey
from cxredge.imaging.jpeg_2000 import read_grey_jpeg_2000
from cxredge.imaging.jpeg_lossless import read_grey_jpeg_lossless, read_grey_jpeg_ls
from cxredge.imaging.plane import MAX_PIXELS, Plane, coloured_share
from cxredge.imaging.quiet import DECODERS_QUIET
from cxredge.imaging.reduced import read_grey_reduced
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
class _Shape:
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


def read_dicom(path: Path, *, at_least: int | None = None) -> Plane:
    """Decode one DICOM file: its grey values through modality and VOI stage to 0 = black air, 255 = bright.

    at_least: side in pixels below which the result must not fall; JPEG and JPEG 2000 films are decoded at 1/2, 1/4 ... above it
    where their grey values may be averaged first. Whole unless told.
    Photometric Interpretation alone says whether low is white: Presentation LUT Shape must agree with it (PS3.3
    C.7.6.1, C.8.11.3), and where files contradict themselves it is the one that is wrong.
    Raises FilmRefusedError for what is cut off, damaged, no film or of an unsupported kind, FilmFailedError when the
    decoder for its transfer syntax is not installed, OSError when it cannot be opened or read.
    """
    with path.open("rb") as file, DECODERS_QUIET:
        source = open_dicom(path, file)
        shape = _shape(source.header)
        scale = _grey_scale(source, shape)
        frame, photometric, block = _decode(source, shape, at_least if _averages(scale) else None)
        aspect, tags, person = pixel_aspect_of(source.header), tags_of(source), person_of(source.header)
    # Nobody else holds the frame.
    pixels = to_grey(frame, scale, over=True) if shape.samples == 1 else _luminance(frame, photometric)
    coloured = 0.0 if shape.samples == 1 else _coloured(frame, photometric)
    return Plane(pixels, shape.rows, shape.columns, aspect, tags, coloured, person, block)


def _shape(header: Dataset) -> _Shape:
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
    return _Shape(
        rows, columns, samples, allocated, stored, signed, photometric, integer_of(header, "PlanarConfiguration")
    )


def _averages(scale: GreyScale) -> bool:
    """Whether grey of a mean is near the mean of greys: a table may jump, and padding is no grey at all."""
    return scale.padding is None and not any(isinstance(stage, LookupTable) for stage in (scale.modality, scale.voi))


def _decode(source: DicomSource, shape: _Shape, at_least: int | None) -> tuple[NDArray[Any], str, int]:
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
    if plugin and shape.samples == 1 and not shape.signed:
        said = {
            "rows": shape.rows, "columns": shape.columns,
            "allocated": shape.bits_allocated, "stored": shape.bits_stored,
        }  # fmt: skip
        if at_least and (reduced := read_grey_reduced(frame, source.syntax, **said, at_least=at_least)):
            return reduced[0], shape.photometric, reduced[1]
        if (pixels := read_grey_unlocked(frame, source.syntax, **said)) is not None:
            return pixels, shape.photometric, 1
    try:
        with lock:
            if plugin and (pixels := _grey(frame, source.syntax, plugin, shape)) is not None:
                return pixels, shape.photometric, 1
            coded = encapsulate([frame]) if plugin else frame
            array, properties = decoder.as_array(coded, index=0, raw=True, decoding_plugin=plugin, **options)
    except Exception as error:
        raise_unless_content(error)
        detail = f"its pixels cannot be decoded as {syntax_name(source.syntax)}"
        raise FilmRefusedError(Refusal.DAMAGED, detail) from None
    return array, str(properties["photometric_interpretation"]), 1


def _grey(coded: bytes, syntax: uid.UID, plugin: str, shape: _Shape) -> NDArray[Any] | None:
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


def _plugin(syntax: uid.UID, shape: _Shape, available: tuple[str, ...]) -> str:
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


def _luminance(frame: NDArray[np.uint8], photometric: str) -> NDArray[np.uint8]:
    if photometric.startswith("YBR_FULL"):
        return np.ascontiguousarray(frame[..., 0])
    return np.asarray(Image.fromarray(np.ascontiguousarray(frame)).convert("L"))


def _coloured(frame: NDArray[np.uint8], photometric: str) -> float:
    if not photometric.startswith("YBR_FULL"):
        return coloured_share(frame)
    step = max(1, max(frame.shape[:2]) // 128)
    sample = Image.fromarray(np.ascontiguousarray(frame[::step, ::step]), "YCbCr")
    return coloured_share(np.asarray(sample.convert("RGB")))


def _grey_scale(source: DicomSource, shape: _Shape) -> GreyScale:
    header = source.header
    modality: LookupTable | Rescale | None = _lookup_table(source, "ModalityLUTSequence", signed=shape.signed)
    if modality is None:
        slope, intercept = numbers_of(header, "RescaleSlope"), numbers_of(header, "RescaleIntercept")
        if slope and intercept and slope[0]:
            modality = Rescale(slope[0], intercept[0])
    voi: LookupTable | Window | None = _lookup_table(source, "VOILUTSequence", signed=shape.signed)
    if voi is None:
        center, width = numbers_of(header, "WindowCenter"), numbers_of(header, "WindowWidth")
        shape_name = code_of(header, "VOILUTFunction") or WindowShape.LINEAR.name
        if center and width and shape_name in WindowShape.__members__:
            voi = Window(center[0], width[0], WindowShape[shape_name])
    return GreyScale(
        bits_allocated=shape.bits_allocated,
        bits_stored=shape.bits_stored,
        signed=shape.signed,
        white_is_low=shape.photometric == "MONOCHROME1",
        modality=modality,
        voi=voi,
        padding=_padding(header, shape),
    )


def _padding(header: Dataset, shape: _Shape) -> tuple[int, int] | None:
    """Pixel Padding Value and Range Limit, PS3.3 C.7.5.1.1.2, as stored values; None where there are none."""
    value = value_of(header, "PixelPaddingValue")
    if not isinstance(value, int):
        return None
    limit = value_of(header, "PixelPaddingRangeLimit")
    mask, sign = (1 << shape.bits_stored) - 1, 1 << shape.bits_stored - 1
    # Writers give either as US or as SS whatever the pixels are, so both are read as bits.
    ends = [end & mask for end in (value, limit if isinstance(limit, int) else value)]
    if shape.signed:
        ends = [(end ^ sign) - sign for end in ends]
    return min(ends), max(ends)


def _lookup_table(source: DicomSource, keyword: str, *, signed: bool) -> LookupTable | None:
    """The first LUT of a sequence (PS3.3 C.11.1, C.11.2); None where there is none, or none that holds together.

    Not pydicom's apply_voi: it takes 8-bit entries for 8-bit places, and a table's end for 16 bits.
    """
    try:
        item = value_of(source.header, keyword)[0]
        count, first, _ = (int(number) for number in item.LUTDescriptor)
        data = item.LUTData
    except Exception as error:
        raise_unless_content(error)
        return None
    count = count & 0xFFFF or 1 << 16
    if signed and first > 0x7FFF:
        first -= 1 << 16
    if isinstance(data, bytes):
        wide = len(data) >= 2 * count
        dtype = ("<u2" if source.little_endian else ">u2") if wide else "u1"
        entries = np.frombuffer(data, dtype, count=min(count, len(data)))
    else:
        entries = np.asarray(data).reshape(-1)[:count]
    return LookupTable(first, entries.astype(np.uint16)) if len(entries) == count else None
