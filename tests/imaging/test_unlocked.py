"""Frames decoded without Python's lock have the values of the other decoders, and what is broken is left to those."""

from importlib import resources
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from house import EXAMPLES
from PIL import Image
from pydicom import uid
from pydicom.encaps import get_frame

from cxredge.errors import FilmRefusedError
from cxredge.imaging import Preprocessing, read_film, unlocked
from cxredge.imaging.unlocked import read_grey_unlocked

STORE = Path(str(resources.files("data_store") / "data"))
FILMS = ["RG1_J2KI.dcm", "RG1_J2KR.dcm", "RG3_J2KI.dcm", "MR2_J2KR.dcm"]


@pytest.mark.parametrize("name", FILMS)
def test_values_are_those_of_pydicom(name: str) -> None:
    film = pydicom.dcmread(STORE / name)
    coded = get_frame(film.PixelData, 0, number_of_frames=1)
    values = read_grey_unlocked(
        coded, film.file_meta.TransferSyntaxUID, rows=film.Rows, columns=film.Columns,
        allocated=film.BitsAllocated, stored=film.BitsStored,
    )  # fmt: skip
    assert values is not None
    assert np.array_equal(values, film.pixel_array)


def test_a_film_looks_the_same_with_and_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = pydicom.dcmread(STORE / "RG1_UNCR.dcm")
    film.compress(uid.JPEGLSLossless)
    film.save_as(tmp_path / "film.dcm")
    files = [tmp_path / "film.dcm", STORE / "RG1_J2KI.dcm", *sorted(EXAMPLES.glob("*.dcm"))]
    with_it = [read_film(file, Preprocessing(size=224)).image for file in files]
    asked: list[str] = []
    monkeypatch.setattr(unlocked, "find_spec", asked.append)
    without = [read_film(file, Preprocessing(size=224)).image for file in files]
    assert len(asked) >= 3
    assert all(np.array_equal(one, other) for one, other in zip(with_it, without, strict=True))


def test_what_is_cut_off_is_refused_by_the_decoders_that_know_why(tmp_path: Path) -> None:
    film = pydicom.dcmread(STORE / "RG1_UNCR.dcm")
    film.compress(uid.JPEGLSLossless)
    coded = get_frame(film.PixelData, 0, number_of_frames=1)
    cut = coded[: len(coded) // 3]
    size = {"rows": film.Rows, "columns": film.Columns, "allocated": film.BitsAllocated, "stored": film.BitsStored}
    assert read_grey_unlocked(cut, uid.JPEGLSLossless, **size) is None
    assert read_grey_unlocked(coded, uid.JPEGLSLossless, **{**size, "rows": film.Rows - 1}) is None
    film.PixelData = pydicom.encaps.encapsulate([cut])
    film.save_as(tmp_path / "film.dcm")
    with pytest.raises(FilmRefusedError):
        read_film(tmp_path / "film.dcm", Preprocessing(size=224))


def test_lossless_jpeg_with_restart_intervals_or_a_point_transform_is_left_to_the_others() -> None:
    """imagecodecs passes over both: the picture would be another."""
    with Image.open(EXAMPLES / "00028351_000.jpg") as picture:
        film = np.asarray(picture.convert("L")).astype(np.uint16) * 16
    coded = bytes(imagecodecs.jpeg8_encode(film, lossless=True, predictor=1, bitspersample=12))
    said = {"rows": film.shape[0], "columns": film.shape[1], "allocated": 16, "stored": 12}
    values = read_grey_unlocked(coded, uid.JPEGLosslessSV1, **said)
    assert values is not None
    assert np.array_equal(values, film)
    scan = coded.index(b"\xff\xda")
    with_restarts = coded[:scan] + b"\xff\xdd\0\4\0\x40" + coded[scan:]
    assert read_grey_unlocked(with_restarts, uid.JPEGLosslessSV1, **said) is None
    last = scan + 2 + int.from_bytes(coded[scan + 2 : scan + 4], "big") - 1
    shifted = coded[:last] + b"\2" + coded[last + 1 :]
    assert read_grey_unlocked(shifted, uid.JPEGLosslessSV1, **said) is None
