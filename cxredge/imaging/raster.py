"""PNG, JPEG, TIFF and BMP files to a grey plane, through Pillow."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError

from cxredge.errors import FilmRefusedError, Refusal
from cxredge.imaging.jpeg import read_grey_jpeg
from cxredge.imaging.plane import MAX_PIXELS, Plane, coloured_share, grey_window, look_up
from cxredge.imaging.quiet import DECODERS_QUIET
from cxredge.imaging.unwritten import UNWRITTEN, has_unwritten, has_unwritten_sectors

FORMATS = ("BMP", "JPEG", "PNG", "TIFF")
# Formats whose pixels may lie there as they are, with no checksum.
_UNCHECKED = ("BMP", "TIFF")
# Of a pixel, by Pillow's name for how it is packed.
_BYTES = {
    "L": 1,
    "I;16": 2,
    "I;16B": 2,
    "I;32N": 4,
    "I;32S": 4,
    "I;32BS": 4,
    "I;16S": 2,
    "I;16BS": 2,
    "RGB": 3,
    "RGBA": 4,
    "F;32F": 4,
    "F;32BF": 4,
}
TIFF_COLUMNS, TIFF_ROWS, TIFF_COMPRESSION, TIFF_PHOTOMETRIC = 256, 257, 259, 262
TIFF_BITS, TIFF_SAMPLE_FORMAT, _UNSIGNED, _SIGNED = 258, 339, 1, 2
# Where strips, or tiles, lie and how many bytes each has.
TIFF_PIECES = ((273, 279), (324, 325))
WHITE_IS_ZERO = 0
EXIF_ORIENTATION = 0x0112
SIDEWAYS = (5, 6, 7, 8)
_GREY_MODES = ("1", "L", "LA", "La", "F", "I")
_GREY_ALONE = ("1", "L", "F", "I", "I;16", "I;16L", "I;16B", "I;16N")
_COLOUR_SIDE = 128


def read_raster(path: Path, *, at_least: int) -> Plane:
    """Decode one picture file.

    at_least: side in pixels below which the result must not fall; large JPEGs are decoded at 1/2, 1/4 or 1/8 above it.
    Deeper than 8 bits carries no window, so it is stretched between robust percentiles; 8 bits stay as they are.
    Raises FilmRefusedError for what is no picture, is cut off, or holds several; OSError when it cannot be opened.
    """
    with path.open("rb") as file, DECODERS_QUIET:
        try:
            with Image.open(file, formats=FORMATS) as picture:
                loaded = _load(picture, file, at_least)
            coloured = _coloured(loaded, file)
        except (FilmRefusedError, MemoryError):
            raise
        except UnidentifiedImageError:
            if kind := _unknown_pixels(file):
                raise FilmRefusedError(Refusal.UNSUPPORTED, kind) from None
            raise FilmRefusedError(Refusal.DAMAGED, "its header cannot be read") from None
        except Image.DecompressionBombError:
            raise FilmRefusedError(Refusal.TOO_LARGE, f"more than {MAX_PIXELS // 1_000_000} million pixels") from None
        except Exception as error:
            # Pillow says OSError both for a cut-off file and for a disk that fails: only the first has no errno. From
            # a header full of nonsense comes anything, TypeError and KeyError included; only Pillow is called here.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            said = str(error).lower()
            early = isinstance(error, EOFError) or "truncated" in said or "unexpected end" in said
            raise FilmRefusedError(Refusal.ENDS_EARLY if early else Refusal.DAMAGED, _plain(error)) from None
    grey = _grey(loaded.picture, white_is_zero=loaded.white_is_zero)
    return Plane(grey, loaded.rows, loaded.columns, coloured=coloured)


@dataclass(frozen=True)
class _Loaded:
    """A picture in memory, upright. rows, columns: as its header says, upright too.

    colour_jpeg: whether the file holds colour that was not decoded.
    """

    picture: Image.Image
    rows: int
    columns: int
    white_is_zero: bool
    colour_jpeg: bool


def _load(picture: ImageFile.ImageFile, file: BinaryIO, at_least: int) -> _Loaded:
    columns, rows = picture.size
    if rows * columns > MAX_PIXELS:
        raise FilmRefusedError(Refusal.TOO_LARGE, f"{columns} x {rows} pixels")
    if (pages := getattr(picture, "n_frames", 1)) > 1:
        raise FilmRefusedError(Refusal.MULTI_FRAME, f"{pages} pages")
    if picture.mode not in _GREY_ALONE and any(";16" in str(tile[3]) for tile in picture.tile):
        # Pillow would hand over the upper eight bits, which of a film of 12 are hardly any.
        raise FilmRefusedError(Refusal.UNSUPPORTED, "16 bits a colour")
    if picture.format == "TIFF" and (kind := _misread(picture)):
        raise FilmRefusedError(Refusal.UNSUPPORTED, kind)
    colour_jpeg = picture.format == "JPEG" and picture.mode != "L"
    orientation = picture.getexif().get(EXIF_ORIENTATION, 1)
    # Of a TIFF Pillow gives the size upright, of the others as the file has it.
    if orientation in SIDEWAYS and picture.format != "TIFF":
        rows, columns = columns, rows
    white_is_zero = picture.format == "TIFF" and picture.tag_v2.get(TIFF_PHOTOMETRIC) == WHITE_IS_ZERO  # type: ignore[attr-defined]
    decoded: Image.Image = picture
    if picture.format == "JPEG":
        file.seek(0)
        if (grey := read_grey_jpeg(file.read(_coded_at_most(rows * columns)), at_least=at_least)) is not None:
            decoded = Image.fromarray(grey)
            decoded.getexif()[EXIF_ORIENTATION] = orientation
    elif picture.format in _UNCHECKED and _unwritten(picture, file):
        raise FilmRefusedError(Refusal.DAMAGED, UNWRITTEN)
    # Last: once it is loaded, nobody can tell where its pixels lie.
    if picture.format == "TIFF" and _wraps(picture):
        raise FilmRefusedError(Refusal.UNSUPPORTED, "unsigned values of more than 31 bits")
    return _Loaded(ImageOps.exif_transpose(decoded), rows, columns, white_is_zero, colour_jpeg)


def _unknown_pixels(file: BinaryIO) -> str:
    """What Pillow does not know of a TIFF whose header it could read; "" where the header is not to be read."""
    file.seek(0)
    try:
        TiffImagePlugin.TiffImageFile(file)
    except SyntaxError as error:
        return "a TIFF with pixels of another kind" if "unknown pixel mode" in str(error) else ""
    except Exception:
        return ""  # it is refused as damaged
    return ""


def _misread(picture: ImageFile.ImageFile) -> str:
    """What a TIFF holds that Pillow takes for something else; "" where it does not."""
    tags: Any = picture.tag_v2  # type: ignore[attr-defined]
    (bits, *_), (kind, *_) = tags.get(TIFF_BITS, (1,)), tags.get(TIFF_SAMPLE_FORMAT, (_UNSIGNED,))
    if bits == 8 and kind == _SIGNED:
        return "signed values of 8 bits"
    # It swaps the bytes of these twice.
    if bits >= 16 and (bits, kind) != (16, _UNSIGNED) and tags.prefix == b"MM" and tags.get(TIFF_COMPRESSION, 1) != 1:
        return f"compressed values of {bits} bits, the highest byte first"
    return ""


def _wraps(picture: ImageFile.ImageFile) -> bool:
    """Whether a TIFF's unsigned values of 32 bits turned negative, which Pillow takes all of them for. Loads the picture."""
    tags: Any = picture.tag_v2  # type: ignore[attr-defined]
    unsigned = tags.get(TIFF_BITS, (1,))[0] == 32 and tags.get(TIFF_SAMPLE_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED
    return unsigned and bool(np.asarray(picture).min() < 0)


def _coded_at_most(pixels: int) -> int:
    """Bytes that a JPEG of so many pixels can have, and then some: a file may go on for gigabytes behind its picture."""
    return 16 * pixels + (1 << 24)


def _unwritten(picture: ImageFile.ImageFile, file: BinaryIO) -> bool:
    """Whether pixels that lie in the file as they are, in one piece, break off. picture: not loaded yet."""
    columns, rows = picture.size
    if picture.format == "TIFF":
        tags: Any = picture.tag_v2  # type: ignore[attr-defined]
        if tags.get(TIFF_COMPRESSION, 1) != 1:
            return _unwritten_pieces(tags, file)
        columns, rows = tags[TIFF_COLUMNS], tags[TIFF_ROWS]
    pieces = [(tile.offset, tile.extents, tile.args) for tile in picture.tile if tile.codec_name == "raw"]
    if not pieces or len(pieces) < len(picture.tile):
        return False
    start, _, packed = pieces[0]
    mode, stride, *_ = packed if isinstance(packed, tuple) else ("", 0)
    stride = int(stride or columns * _BYTES.get(str(mode), 0))
    if not stride or any(offset != start + stride * (extents or (0, 0))[1] for offset, extents, _ in pieces):
        return False  # in several places, or packed as nobody packs films
    file.seek(start)
    held = np.frombuffer(file.read(stride * rows), np.uint8)
    return len(held) == stride * rows and has_unwritten(held.reshape(rows, stride), start)


def _unwritten_pieces(tags: Any, file: BinaryIO) -> bool:
    """Whether the disk never got sectors of a compressed TIFF's strips or tiles, over which most of its decoders go on."""
    for offsets, counts in TIFF_PIECES:
        for offset, count in zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False):
            file.seek(offset)
            if has_unwritten_sectors(file.read(min(count, MAX_PIXELS)), offset):
                return True
    return False


def _coloured(loaded: _Loaded, file: BinaryIO) -> float:
    """Share of clearly coloured pixels. file: the picture's, read again for a colour JPEG, of which only grey was decoded."""
    if loaded.colour_jpeg:
        file.seek(0)
        with Image.open(file, formats=("JPEG",)) as again:
            # An eighth of the size costs next to nothing and is enough to see colour.
            again.draft(None, (_COLOUR_SIDE, _COLOUR_SIDE))
            return coloured_share(np.asarray(again.convert("RGB")))
    if loaded.picture.mode in _GREY_MODES or loaded.picture.mode.startswith("I;16"):
        return 0.0
    small = loaded.picture.resize((_COLOUR_SIDE, _COLOUR_SIDE), Image.Resampling.NEAREST)
    return coloured_share(np.asarray(small.convert("RGB")))


def _grey(picture: Image.Image, *, white_is_zero: bool) -> NDArray[np.uint8]:
    if picture.mode in ("F", "I") or picture.mode.startswith("I;16"):
        return _deep_grey(np.asarray(picture), white_is_zero=white_is_zero)
    if picture.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in picture.info:
        # What is transparent shows the light box switched off.
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture.convert("RGBA"))
    if picture.mode not in ("1", "L"):
        picture = picture.convert("RGB")
    return np.asarray(picture.convert("L"))


def _deep_grey(values: NDArray[Any], *, white_is_zero: bool) -> NDArray[np.uint8]:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise FilmRefusedError(Refusal.DAMAGED, "grey values that are not numbers")
    low, high = grey_window(values)
    if not high > low:
        raise FilmRefusedError(Refusal.BLANK)
    if values.dtype == np.uint16:
        # One lookup per grey value instead of a float copy of the plane.
        grey = look_up(_stretch(np.arange(65536, dtype=np.float32), low, high), values)
    else:
        grey = _stretch(values.astype(np.float32), low, high)
    # Pillow turns 8-bit WhiteIsZero around by itself, deeper ones not.
    return 255 - grey if white_is_zero else grey


def _stretch(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    grey: NDArray[np.uint8] = np.round(np.clip((values - low) * (255 / (high - low)), 0, 255)).astype(np.uint8)
    return grey


def _plain(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:160]
