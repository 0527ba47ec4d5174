"""A DICOM file to its header and the bytes of its one frame: complete, or refused.

pydicom reads what is there and says little of what is missing, so every declared length is held against the file.
Only the attributes in `HEADER` are read. Of these, those that say who the patient is travel in `Person`, which is never
printed and becomes a pseudonym before anything is stored.
"""

import io
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydicom import dcmread, uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.tag import BaseTag, Tag

from cxredge.errors import FilmRefusedError, Refusal
from cxredge.imaging.codestream import JPEG_START, coded_size, has_end, is_sound_jpeg
from cxredge.imaging.plane import MAX_PIXELS
from cxredge.imaging.unwritten import UNWRITTEN, UNWRITTEN_SECTORS, has_unwritten, has_unwritten_sectors

HEADER = (
    *("SOPClassUID", "Modality", "BodyPartExamined", "ViewPosition", "ImageLaterality", "Laterality"),
    *("ViewCodeSequence", "AnatomicRegionSequence", "PresentationIntentType"),
    *("PatientID", "PatientName", "PatientBirthDate"),
    *("AcquisitionDate", "AcquisitionDateTime", "ContentDate", "SeriesDate", "StudyDate"),
    *("PatientAge", "PatientSex", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
    *("NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
)
_PREFIX_ENDS = 132
# The first element says how long all elements about the file are (PS3.10 7.1); what they are about comes after them.
_META_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"
_META_STARTS = _PREFIX_ENDS + len(_META_LENGTH) + 4
_PIXEL_DATA, _FLOAT_PIXELS, _DOUBLE_PIXELS = 0x7FE00010, 0x7FE00008, 0x7FE00009
_ITEM, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
# Colour at 16 bits a sample would be the longest frame; more is a decompression bomb.
_MAX_INFLATED = 6 * MAX_PIXELS
JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000)
_WITHOUT_CHECK = {uid.JPEGExtended12Bit, *uid.JPEG2000TransferSyntaxes}
_JPEG_SYNTAXES = {*uid.JPEGTransferSyntaxes, *uid.JPEGLSTransferSyntaxes, *uid.JPEG2000TransferSyntaxes}


@dataclass(frozen=True)
class DicomSource:
    """A file whose header has been read and whose pixels come next.

    header: the attributes of `HEADER` that the file has. syntax: transfer syntax.
    stream: stands at the first byte of the value of Pixel Data; `size` bytes in all.
    vr, length, little_endian: of Pixel Data, as declared.
    """

    header: Dataset
    syntax: uid.UID
    stream: BinaryIO
    size: int
    vr: str
    length: int
    little_endian: bool


def open_dicom(path: Path, file: BinaryIO) -> DicomSource:
    """Read the header of `file`, opened from `path`, up to its pixels.

    Raises FilmRefusedError when it is no DICOM file, is damaged or cut off before its pixels, or has none.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    start = file.read(_META_STARTS)
    file.seek(0)
    has_prefix = start[_PREFIX_ENDS - 4 : _PREFIX_ENDS] == b"DICM"
    meta_ends = _META_STARTS
    if start[_PREFIX_ENDS:].startswith(_META_LENGTH):
        meta_ends += int.from_bytes(start[-4:], "little")
    if has_prefix and size < meta_ends:
        raise FilmRefusedError(Refusal.ENDS_EARLY, f"{_bytes(size)}, inside its header")
    stream = file
    try:
        meta = read_file_meta_info(path) if has_prefix else FileMetaDataset()
        if meta.get("TransferSyntaxUID") == uid.DeflatedExplicitVRLittleEndian:
            # pydicom would inflate without a limit and take a cut-off stream for the whole.
            stream = _inflate(file, meta_ends)
            size = len(stream.getbuffer())
            header = read_dataset(stream, False, True, stop_when=_at_pixels, specific_tags=[Tag(k) for k in HEADER])
        else:
            header = dcmread(file, stop_before_pixels=True, force=not has_prefix, specific_tags=[*HEADER])
            meta = header.file_meta
        sop_class = meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID")
    except FilmRefusedError:
        raise
    except Exception as error:
        raise_unless_content(error)
        if not has_prefix:
            raise FilmRefusedError(Refusal.NOT_AN_IMAGE) from None
        if stream.tell() >= size:
            raise FilmRefusedError(Refusal.ENDS_EARLY, f"{_bytes(size)}, inside its header") from None
        raise FilmRefusedError(Refusal.DAMAGED, "its header cannot be read") from None
    found = _pixel_element(stream)
    if found is None:
        raise _without_pixels(sop_class, header, at_end=stream.tell() >= size, has_prefix=has_prefix, size=size)
    tag, vr, length, little_endian = found
    if tag != _PIXEL_DATA:
        raise FilmRefusedError(Refusal.UNSUPPORTED, "grey values stored as floating-point numbers")
    syntax = meta.get("TransferSyntaxUID") or (uid.ExplicitVRLittleEndian if little_endian else uid.ExplicitVRBigEndian)
    if not isinstance(syntax, str):
        raise FilmRefusedError(Refusal.DAMAGED, "its header gives several transfer syntaxes")
    return DicomSource(header, uid.UID(syntax), stream, size, vr, length, little_endian)


def read_native(source: DicomSource, expected: int, row: int) -> bytes:
    """The `expected` bytes of an uncompressed frame, and the padding byte that makes them even. row: bytes of a row.

    Raises FilmRefusedError when the file has fewer, when it has a row more that is no padding (then its size is not what the header
    says), and when some were never written.
    """
    starts = source.stream.tell()
    if source.length == _UNDEFINED or source.length < expected:
        held = "an unknown number of" if source.length == _UNDEFINED else _bytes(source.length)
        raise FilmRefusedError(Refusal.DAMAGED, f"declares {held} pixel data, its size needs {_bytes(expected)}")
    _require(source, starts + source.length)
    frame = source.stream.read(expected + expected % 2)
    if source.length - expected >= max(row, 2) and any(source.stream.read(row)):
        raise FilmRefusedError(Refusal.DAMAGED, "it holds more rows of pixels than its header says")
    # Nothing guards deflated data, and behind a hole they go on out of step.
    if source.syntax == uid.DeflatedExplicitVRLittleEndian and not _ends_or_goes_on(source, starts + source.length):
        raise FilmRefusedError(Refusal.DAMAGED, "its deflated data do not end where its pixels do")
    if has_unwritten(np.frombuffer(frame, np.uint8, expected).reshape(-1, row), starts):
        raise FilmRefusedError(Refusal.DAMAGED, UNWRITTEN)
    return frame


def _ends_or_goes_on(source: DicomSource, at: int) -> bool:
    """Whether nothing follows the pixels, or one of the groups that may: signatures and padding."""
    source.stream.seek(at)
    group = source.stream.read(2)
    return not group.strip(b"\0") or int.from_bytes(group, "little") in (0xFFFA, 0xFFFC)


def read_encapsulated(source: DicomSource, rows: int, columns: int, *, allocated: int, components: int) -> bytes:
    """The compressed frame, its fragments joined (PS3.5 A.4). allocated, components: bits a sample and samples a pixel, as the
    header says.

    Raises FilmRefusedError when any of it is missing, or when it is a picture of another size than rows x columns.
    """
    if source.length != _UNDEFINED:
        raise FilmRefusedError(Refusal.DAMAGED, f"its pixels are not packed as {syntax_name(source.syntax)} has to be")
    fragments = []
    while True:
        at = source.stream.tell()
        _require(source, at + 8)
        group, element, length = struct.unpack("<HHI", source.stream.read(8))
        tag = group << 16 | element
        if tag == _SEQUENCE_END:
            break
        if tag != _ITEM or length == _UNDEFINED:
            raise FilmRefusedError(Refusal.DAMAGED, "its compressed pixels are not in order")
        # The delimiter that has to follow takes eight bytes more.
        _require(source, at + 8 + length + 8)
        fragments.append(source.stream.read(length))
        # The decoders of these go on at a hole, and nothing about their picture tells.
        if source.syntax in _WITHOUT_CHECK and has_unwritten_sectors(fragments[-1], at + 8):
            raise FilmRefusedError(Refusal.DAMAGED, UNWRITTEN_SECTORS)
    frame = b"".join(fragments[1:])  # the first item is the offset table
    if source.syntax in _JPEG_SYNTAXES:
        if not has_end(frame):
            raise FilmRefusedError(Refusal.ENDS_EARLY, f"its {syntax_name(source.syntax)} picture has no end")
        # Decoders reserve memory for what the stream claims, and shuffle rows where the two disagree.
        if coded_size(frame) != (rows, columns):
            raise FilmRefusedError(Refusal.DAMAGED, "its compressed pixels are of another size than its header says")
        if frame.startswith(JPEG_START) and not is_sound_jpeg(frame, allocated=allocated, components=components):
            raise FilmRefusedError(Refusal.DAMAGED, "its compressed pixels begin with something no decoder knows")
    return frame


def syntax_name(syntax: uid.UID) -> str:
    """The transfer syntax as a person knows it: 'JPEG 2000 Image Compression'."""
    return uid_name(syntax).partition(",")[0].partition(" (")[0]


def uid_name(identifier: object) -> str:
    """What a UID stands for: 'CT Image Storage'; the UID where it is not registered; empty where it is none."""
    # A backslash makes a list of it.
    if not isinstance(identifier, str):
        return ""
    name = str(uid.UID(identifier).name)
    # A UID of letters is none, and could be anybody's name.
    return name if name != identifier or re.fullmatch(r"[0-9.]{1,64}", name) else ""


def raise_unless_content(error: Exception) -> None:
    """Raise on what says nothing about the file's content: memory is full, the disk fails."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
        raise error


def _inflate(file: BinaryIO, starts: int) -> io.BytesIO:
    """The data set of a deflated file (PS3.5 A.5)."""
    file.seek(starts)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = inflater.decompress(file.read(), _MAX_INFLATED)
    except zlib.error:
        raise FilmRefusedError(Refusal.DAMAGED, "its deflated data cannot be inflated") from None
    if inflater.unconsumed_tail:
        raise FilmRefusedError(Refusal.TOO_LARGE, f"inflates to more than {_bytes(_MAX_INFLATED)}")
    # One byte may make the length even.
    if inflater.unused_data[1:]:
        raise FilmRefusedError(Refusal.DAMAGED, "its deflated data end before the file does")
    if not inflater.eof:
        raise FilmRefusedError(Refusal.ENDS_EARLY, f"{_bytes(file.tell())}, inside its deflated data")
    return io.BytesIO(data)


def _at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag in (_PIXEL_DATA, _FLOAT_PIXELS, _DOUBLE_PIXELS)


def _pixel_element(stream: BinaryIO) -> tuple[int, str, int, bool] | None:
    """Tag, VR, length and whether little endian of the pixel element ahead; None when another one, or none, is."""
    start = stream.read(8)
    if len(start) < 8:
        return None
    little_endian = start[:2] == b"\xe0\x7f"
    order = "<" if little_endian else ">"
    group, element = struct.unpack(order + "HH", start[:4])
    tag = group << 16 | element
    if not _at_pixels(BaseTag(tag), None, 0):
        return None
    vr = start[4:6].decode("latin-1")
    if vr not in ("OB", "OW", "OF", "OD", "UN"):  # implicit VR; an even length can spell none of these
        return tag, "OW", int(struct.unpack(order + "I", start[4:])[0]), little_endian
    rest = stream.read(4)
    return (tag, vr, int(struct.unpack(order + "I", rest)[0]), little_endian) if len(rest) == 4 else None


def _without_pixels(
    sop_class: str | None, header: Dataset, *, at_end: bool, has_prefix: bool, size: int
) -> FilmRefusedError:
    is_image = "Image Storage" in uid_name(sop_class) if sop_class else has_prefix or "Rows" in header
    if not has_prefix and not is_image:
        return FilmRefusedError(Refusal.NOT_AN_IMAGE)
    if not at_end:
        return FilmRefusedError(Refusal.DAMAGED, "its header cannot be read")
    if is_image:
        return FilmRefusedError(Refusal.ENDS_EARLY, f"{_bytes(size)}, before its pixels")
    return FilmRefusedError(Refusal.NO_PIXELS, uid_name(sop_class))


def _require(source: DicomSource, size: int) -> None:
    if source.size < size:
        here, whole = _bytes(source.size), _bytes(size)
        # The last few bytes vanish in rounding.
        raise FilmRefusedError(
            Refusal.ENDS_EARLY, f"{here} of {whole}" if here != whole else f"{source.size} of {size} bytes"
        )


def _bytes(count: int) -> str:
    if count < 1000:
        return f"{count} bytes"
    return f"{count / 1000:.0f} kB" if count < 1_000_000 else f"{count / 1_000_000:.1f} MB"
