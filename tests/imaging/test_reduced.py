"""Films decoded no larger than needed look like the same films decoded whole, and where they might not they are decoded whole."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence

from cxredge.errors import FilmRefusedError
from cxredge.imaging import Preprocessing, read_film
from cxredge.imaging.codestream import wavelet_of
from cxredge.imaging.dicom import read_dicom
from cxredge.imaging.reduced import block_means, read_grey_jpeg_2000_reduced

WriteDicom = Callable[..., Path]
AT_LEAST = 448
WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}


def large(film: NDArray[np.uint16], rows: int, columns: int) -> NDArray[np.uint16]:
    """A film of a clinic's size with a detector's noise, 12 bits."""
    enlarged = Image.fromarray(film.astype(np.float32)).resize((columns, rows), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).normal(0, 6, (rows, columns))
    return np.clip(np.asarray(enlarged) + noise, 0, 4095).astype(np.uint16)


def both(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    whole, reduced = (read_film(path, Preprocessing(), reduced=reduced) for reduced in (False, True))
    assert (whole.rows, whole.columns, whole.box) == (reduced.rows, reduced.columns, reduced.box)
    return whole.image.astype(int), reduced.image.astype(int)


@pytest.mark.parametrize(
    ("size", "side", "elements"),
    [
        ((1952, 1840), 460, {}),
        ((1951, 1839), 460, WINDOW),
        ((1953, 1841), 921, {**WINDOW, "PhotometricInterpretation": "MONOCHROME1"}),
        ((895, 1000), None, {}),
    ],
)
def test_a_jpeg_2000_film_looks_the_same(
    film12: NDArray[np.uint16],
    write_dicom: WriteDicom,
    size: tuple[int, int],
    side: int | None,
    elements: dict[str, Any],
) -> None:
    path = write_dicom(large(film12, *size), bits=12, syntax=uid.JPEG2000Lossless, **elements)
    plane = read_dicom(path, at_least=AT_LEAST)
    assert (plane.rows, plane.columns) == size
    assert plane.pixels.shape[1] == (side or size[1])
    off = np.abs(np.subtract(*both(path)))
    assert off.mean() < (0.4 if side else 1e-9)
    assert np.mean(off > 1) < 0.003


@pytest.mark.parametrize("name", ["RG1_J2KR", "RG1_J2KI", "RG3_J2KR", "RG3_J2KI"])
def test_so_do_films_of_others(sample: Callable[[str], Path], name: str) -> None:
    path = sample(f"{name}.dcm")
    off = np.abs(np.subtract(*both(path)))
    assert 0 < off.mean() < 0.2
    assert np.mean(off > 1) < 0.001


def test_the_band_as_it_is_would_not_do(sample: Callable[[str], Path]) -> None:
    """What other readers take for the smaller picture lies half a pixel off: the tests above would tell."""
    dataset = dcmread(sample("RG3_J2KR.dcm"))
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    with Image.open(io.BytesIO(frame)) as picture:
        whole = np.asarray(picture).astype(float)
    with Image.open(io.BytesIO(frame)) as picture:
        picture.reduce = 2
        picture.load()
        band = np.asarray(picture).astype(np.float32)
    blocks = whole.reshape(440, 4, 440, 4).mean((1, 3))
    naive = np.abs(band - blocks).mean()
    assert np.abs(block_means(band, 2, reversible=True) - blocks).mean() < 0.4 * naive


@pytest.mark.parametrize("reversible", [True, False])
@pytest.mark.parametrize("halvings", [1, 2, 3])
def test_a_slope_keeps_its_place(halvings: int, *, reversible: bool) -> None:
    block = 1 << halvings
    at = np.arange(40, dtype=np.float32) * block
    # Linear phase filters leave a slope as it is: the band holds the slope's values where they sit.
    band = 3 * at[:, None] + 5 * at[None] + 100
    inside = block_means(band, halvings, reversible=reversible)[4:-4, 4:-4]
    expected = band[4:-4, 4:-4] + (3 + 5) * (block - 1) / 2
    np.testing.assert_allclose(inside, expected, atol=0.1 * block)


def test_a_jpeg_film_looks_the_same(film8: NDArray[np.uint8], write_dicom: WriteDicom) -> None:
    side = 2001
    path = write_dicom(
        np.asarray(Image.fromarray(film8).resize((side, side), Image.Resampling.BICUBIC)), syntax=uid.JPEGBaseline8Bit
    )
    assert read_dicom(path, at_least=AT_LEAST).pixels.shape == (501, 501)
    off = np.abs(np.subtract(*both(path)))
    assert 0 < off.mean() < 0.2
    assert off.max() <= 2


@pytest.mark.parametrize("kind", ["padded", "table", "signed", "uncompressed"])
def test_what_may_not_be_averaged_first_is_decoded_whole(
    film12: NDArray[np.uint16], write_dicom: WriteDicom, kind: str
) -> None:
    film = large(film12, 1000, 944)
    elements: dict[str, Any] = {}
    if kind == "padded":
        elements["PixelPaddingValue"] = 4095
    elif kind == "table":
        table = Dataset()
        table.add_new("LUTDescriptor", "US", [4096, 0, 16])
        table.add_new("LUTData", "OW", (np.arange(4096) // 16 * 4099 % 65536).astype("<u2").tobytes())
        elements["VOILUTSequence"] = Sequence([table])
    pixels = film.astype(np.int16) - np.int16(2048) if kind == "signed" else film
    syntax = uid.ExplicitVRLittleEndian if kind == "uncompressed" else uid.JPEG2000Lossless
    path = write_dicom(pixels, bits=12, syntax=syntax, **elements)
    assert read_dicom(path, at_least=AT_LEAST).block == 1
    np.testing.assert_array_equal(*both(path))


def test_white_letters_stay_white(film12: NDArray[np.uint16], write_dicom: WriteDicom) -> None:
    """Beside an edge the band rises above the highest stored value, whose next bit would make it black."""
    film = large(film12, 1952, 1840)
    film[200:260, 300:420], film[280:300, 300:420] = 4095, 0
    path = write_dicom(film, bits=12, syntax=uid.JPEG2000Lossless, **WINDOW)
    assert read_dicom(path, at_least=AT_LEAST).block == 4
    assert np.abs(np.subtract(*both(path))).max() <= 25


def test_what_lies_above_the_stored_bits_stays_ignored(film12: NDArray[np.uint16], write_dicom: WriteDicom) -> None:
    film = large(film12, 976, 920)
    film[100:200, 100:200] |= 1 << 14
    path = write_dicom(film, bits=12, syntax=uid.JPEG2000Lossless, **WINDOW)
    # The coder at hand would drop those bits.
    dataset = dcmread(path)
    dataset.PixelData = encapsulate([jpeg_2000(film)])
    dataset.save_as(path)
    assert read_dicom(path, at_least=AT_LEAST).block == 1
    np.testing.assert_array_equal(*both(path))


def jpeg_2000(film: NDArray[np.uint8] | NDArray[np.uint16], **options: Any) -> bytes:
    coded = io.BytesIO()
    Image.fromarray(film).save(coded, "JPEG2000", no_jp2=True, **options)
    return coded.getvalue()


def test_the_transform_is_read_from_the_stream(film8: NDArray[np.uint8]) -> None:
    plain = jpeg_2000(film8, num_resolutions=4)
    assert (found := wavelet_of(plain)) is not None
    assert (found.levels, found.reversible) == (3, True)
    assert (lossy := wavelet_of(jpeg_2000(film8, irreversible=True))) is not None
    assert not lossy.reversible
    assert wavelet_of(jpeg_2000(film8, tile_size=(128, 128))) is None
    assert wavelet_of(plain[:19] + b"\x04" + plain[20:]) is None  # begins at column 4
    assert all(wavelet_of(plain[:end]) is None for end in range(0, 100, 7))
    # A component, or a tile, coded otherwise than the rest.
    at = plain.index(b"\xff\x52")
    assert wavelet_of(plain[:at] + b"\xff\x53\x00\x09\x00\x00\x05\x04\x04\x00\x00" + plain[at:]) is None
    assert wavelet_of(plain[: plain.index(b"\xff\x93")] + plain[at : at + 14] + b"\xff\x93") is None


def test_what_is_not_halved_as_often_is_halved_as_often_as_it_is(film8: NDArray[np.uint8]) -> None:
    film = np.asarray(Image.fromarray(film8).resize((1920, 1920)))
    said = {"rows": 1920, "columns": 1920, "allocated": 8, "stored": 8, "at_least": AT_LEAST}
    for resolutions, block in ((1, None), (2, 2), (6, 4)):
        found = read_grey_jpeg_2000_reduced(jpeg_2000(film, num_resolutions=resolutions), **said)
        assert (found and found[1]) == block


def test_what_is_broken_is_refused_as_without(film12: NDArray[np.uint16], write_dicom: WriteDicom) -> None:
    path = write_dicom(large(film12, 976, 920), bits=12, syntax=uid.JPEG2000Lossless)
    dataset = dcmread(path)
    frame = bytearray(next(generate_frames(dataset.PixelData, number_of_frames=1)))
    at = frame.index(b"\xff\x93")
    frame[at - 12 : at] = bytes(12)
    dataset.PixelData = encapsulate([bytes(frame)])
    dataset.save_as(path)
    said = []
    for at_least in (None, AT_LEAST):
        with pytest.raises(FilmRefusedError) as refused:
            read_dicom(path, at_least=at_least)
        said.append(str(refused.value))
    assert said[0] == said[1]
