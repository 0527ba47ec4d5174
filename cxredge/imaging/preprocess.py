"""The one road from a file to the network's input; training, calibration, evaluation and scan all take it."""

import hashlib
import json
import os
import stat
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxredge.errors import FilmRefusedError, Refusal
from cxredge.imaging.plane import MIN_SIDE, Person, Plane, is_blank, is_saturated

# Raised whenever the pixels that come out for the same file may change: caches and manifests carry it.
VERSION = 1
SNIFF_BYTES = 132
# Side of the coarse picture, in which a chest is told from a cropped, turned or inverted one.
COARSE = 24
# Coloured marks and letters on a film stay far below it.
_MOST_COLOURED = 0.1
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+", b"BM")
_DICOM_SUFFIXES = {".dcm", ".dicom", ".dic", ".ima"}


@dataclass(frozen=True)
class Preprocessing:
    """What a model's films go through; a part of its manifest.

    Films are letterboxed: the whole film, its proportions kept, centred on black. A centre crop would cut away the
    costophrenic angles and apices, where effusion and pneumothorax show first, and squashing would change the
    cardiothoracic ratio; black is what lies outside the patient anyway.

    size: side of the square network input in pixels.
    clahe: contrast-limited adaptive histogram equalisation, 10 x 10 tiles, clip limit 3, at network size.
    """

    size: int = 224
    clahe: bool = False

    @property
    def digest(self) -> str:
        """Twelve hex digits that change whenever the pixels may change."""
        said = json.dumps({"version": VERSION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Film:
    """One film, ready for a network.

    image: uint8 [1, size, size], 0 = black.
    rows, columns: the size the file declares.
    box: left, top, width, height in `image` of the film proper; outside it lies the letterbox.
    tags: what the file says of itself (view, modality, body part, ...); tags can lie.
    coarse: uint8 [24, 24], the film proper, squashed, before CLAHE; what `scan.framing` looks at.
    person: whose film the file says it is.
    """

    image: NDArray[np.uint8]
    rows: int
    columns: int
    box: tuple[int, int, int, int]
    tags: dict[str, str] = field(default_factory=dict)
    coarse: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((COARSE, COARSE), np.uint8))
    person: Person | None = field(default=None, repr=False)


def read_film(path: Path, preprocessing: Preprocessing, *, reduced: bool = False) -> Film:
    """Decode a DICOM, PNG, JPEG, TIFF or BMP file into the network's input.

    reduced: see `decode`.
    Raises FilmRefusedError with the reason when the file holds no film that may be scored, FilmFailedError when
    a decoder is missing, OSError when the file cannot be opened or read.
    """
    return prepare(decode(path, at_least=2 * preprocessing.size, reduced=reduced), preprocessing)


def decode(path: Path, *, at_least: int, reduced: bool = False) -> Plane:
    """Decode by what the file holds, not by what it is called. `at_least`: see `read_raster`.

    reduced: DICOM films in JPEG and JPEG 2000 are decoded no larger than `at_least` needs, as picture files in JPEG always are. It
    saves up to nine tenths of the time and moves one pixel in eight of the network's input by a grey level; without it, a film
    gives the same pixels in every lossless coding.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        os.scandir(path).close()  # says why it could not be looked through
    # A pipe would keep whoever opens it waiting.
    if not stat.S_ISREG(mode):
        raise FilmRefusedError(Refusal.NOT_AN_IMAGE, "no regular file")
    with path.open("rb") as file:
        head = file.read(SNIFF_BYTES)
    if not head:
        raise FilmRefusedError(Refusal.EMPTY)
    if begins_as_dicom(path, head):
        # pydicom takes a quarter of a second to import, so only a DICOM file pays for it.
        from cxredge.imaging.dicom import read_dicom

        return read_dicom(path, at_least=at_least if reduced else None)
    if head.startswith(_MAGIC):
        from cxredge.imaging.raster import read_raster

        return read_raster(path, at_least=at_least)
    raise FilmRefusedError(Refusal.NOT_AN_IMAGE)


def begins_as_dicom(path: Path, head: bytes) -> bool:
    """Whether a file is read as DICOM. head: its first bytes; old files lack the preamble that says so (PS3.10 7.1), and are
    known by their suffix."""
    return head[128:132] == b"DICM" or (path.suffix.lower() in _DICOM_SUFFIXES and not head.startswith(_MAGIC))


def prepare(plane: Plane, preprocessing: Preprocessing) -> Film:
    """Letterbox a plane to the network's size, then CLAHE where the model asks for it.

    Raises FilmRefusedError for a plane that is coloured, too small, burnt out or shows nothing.
    """
    if plane.coloured > _MOST_COLOURED:
        raise FilmRefusedError(Refusal.COLOUR, f"{plane.coloured:.0%} of its pixels are coloured")
    height = plane.rows * plane.pixel_aspect
    if min(height, plane.columns) < MIN_SIDE:
        raise FilmRefusedError(Refusal.TOO_SMALL, f"{plane.columns} x {plane.rows} pixels, a film needs {MIN_SIDE}")
    size = preprocessing.size
    scale = size / max(height, plane.columns)
    inner = (max(1, round(plane.columns * scale)), max(1, round(height * scale)))
    picture: Image.Image = Image.fromarray(plane.pixels)
    if picture.size != inner:
        # Bilinear in Pillow is area-aware when it shrinks; the gap lets it halve large planes cheaply first.
        covered = (0.0, 0.0, plane.columns / plane.block, plane.rows / plane.block) if plane.block > 1 else None
        picture = picture.resize(inner, Image.Resampling.BILINEAR, covered, reducing_gap=2.0)
    film = np.asarray(picture)
    if is_blank(film):
        raise FilmRefusedError(Refusal.BLANK)
    if is_saturated(film):
        raise FilmRefusedError(Refusal.SATURATED)
    coarse = np.asarray(picture.resize((COARSE, COARSE), Image.Resampling.BOX))
    if preprocessing.clahe:
        from cxredge.imaging.clahe import clahe

        film = clahe(film)
    left, top = (size - inner[0]) // 2, (size - inner[1]) // 2
    image = np.zeros((1, size, size), np.uint8)
    image[0, top : top + inner[1], left : left + inner[0]] = film
    box = (left, top, *inner)
    return Film(image, plane.rows, plane.columns, box, plane.tags, coarse, plane.person)


def describe(preprocessing: Preprocessing) -> dict[str, Any]:
    """The manifest's entry for a preprocessing."""
    return {**asdict(preprocessing), "fit": "letterbox", "version": VERSION, "digest": preprocessing.digest}
