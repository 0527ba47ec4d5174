"""DICOM files to a grey plane, through pydicom and its pixel decoders."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset

from cxredge.imaging.dicom_file import (
    DicomSource,
    open_dicom,
    raise_unless_content,
)
from cxredge.imaging.dicom_header import code_of, numbers_of, person_of, pixel_aspect_of, tags_of, value_of
from cxredge.imaging.dicom_pixels import Shape, decode, shape_of
from cxredge.imaging.grey import GreyScale, LookupTable, Rescale, Window, WindowShape, to_grey
from cxredge.imaging.plane import Plane, coloured_share
from cxredge.imaging.quiet import DECODERS_QUIET


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
        shape = shape_of(source.header)
        scale = _grey_scale(source, shape)
        film = decode(source, shape, at_least if _averages(scale) else None)
        aspect, tags, person = pixel_aspect_of(source.header), tags_of(source), person_of(source.header)
    # Nobody else holds the frame.
    grey = shape.samples == 1
    pixels = to_grey(film.values, scale, over=True) if grey else _luminance(film.values, film.photometric)
    coloured = 0.0 if grey else _coloured(film.values, film.photometric)
    return Plane(pixels, shape.rows, shape.columns, aspect, tags, coloured, person, film.block)


def _averages(scale: GreyScale) -> bool:
    """Whether grey of a mean is near the mean of greys: a table may jump, and padding is no grey at all."""
    return scale.padding is None and not any(isinstance(stage, LookupTable) for stage in (scale.modality, scale.voi))


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


def _grey_scale(source: DicomSource, shape: Shape) -> GreyScale:
    header = source.header
    modality: LookupTable | Rescale | None = _lookup_table(source, "ModalityLUTSequence", signed=shape.signed)
    if modality is None:
        slope, intercept = numbers_of(header, "RescaleSlope"), numbers_of(header, "RescaleIntercept")
        if slope and intercept and slope[0]:
            modality = Rescale(slope[0], intercept[0])
    # Where a file does not say how its descriptor is coded (implicit VR), what the modality stage gives decides (C.11.2.1.1).
    below_zero = shape.signed or (isinstance(modality, Rescale) and modality.intercept < 0)
    voi: LookupTable | Window | None = _lookup_table(source, "VOILUTSequence", signed=below_zero)
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


def _padding(header: Dataset, shape: Shape) -> tuple[int, int] | None:
    """Pixel Padding Value and Range Limit, PS3.3 C.7.5.1.1.2, as stored values; None where there are none."""
    value = value_of(header, "PixelPaddingValue")
    if not isinstance(value, int):
        return None
    limit = value_of(header, "PixelPaddingRangeLimit")
    span, sign = 1 << shape.bits_stored, 1 << shape.bits_stored - 1
    ends = []
    for end in (value, limit if isinstance(limit, int) else value):
        # Writers give either as US or as SS whatever the pixels are, and of signed ones in as many bits as they have.
        bits = end & 0xFFFF
        if shape.signed and bits >= span:
            bits -= 0x10000
        elif shape.signed and bits >= sign:
            bits -= span
        ends.append(bits)
    low, high = (-sign, sign - 1) if shape.signed else (0, span - 1)
    # What no pixel can be pads nothing; masked, it would be white.
    return (min(ends), max(ends)) if low <= min(ends) and max(ends) <= high else None


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
