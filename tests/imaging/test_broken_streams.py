"""A film that lost some of its bytes and still decodes to a picture is refused: it would be scored as if it were the film."""

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread, uid
from pydicom.encaps import encapsulate, generate_frames

from cxredge.errors import FilmRefusedError, Refusal
from cxredge.imaging import Preprocessing, dicom_pixels, read_film
from cxredge.imaging.dicom import read_dicom
from cxredge.imaging.jpeg_lossless_length import is_as_long_as_decoded
from cxredge.imaging.raster import read_raster
from cxredge.imaging.unwritten import has_unwritten, has_unwritten_sectors

WriteDicom = Callable[..., Path]
END = b"\xff\xd9"
LOSSLESS = [uid.JPEGLossless, uid.JPEGLosslessSV1]


def mutilated(stream: bytes, shares: Sequence[float] = (0.3, 0.6, 0.9)) -> Iterator[bytes]:
    """A stream of which a disk, or who repaired it, left no more: with its end all the same, and with its full size but for one."""
    assert stream.rstrip(b"\0").endswith(END)
    for share in shares:
        at = int(len(stream) * share)
        yield stream[:at] + END
        yield stream[:at] + stream[at + 400 :]
        yield stream[:at] + bytes(400) + stream[at + 400 :]
        yield stream[:at] + bytes(len(stream) - at - 2) + END


def refusal(path: Path) -> Refusal:
    with pytest.raises(FilmRefusedError) as refused:
        read_film(path, Preprocessing())
    return refused.value.reason


@pytest.mark.parametrize("how", [{}, {"optimize": True}, {"progressive": True}, {"restart_marker_rows": 2}], ids=str)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg_picture_with_a_hole_is_refused(
    tmp_path: Path, film8: NDArray[np.uint8], mode: str, how: dict[str, Any]
) -> None:
    buffer = io.BytesIO()
    Image.fromarray(film8).resize((1000, 960)).convert(mode).save(buffer, "JPEG", quality=90, **how)
    path = tmp_path / "film.jpg"
    path.write_bytes(buffer.getvalue() + b"what a camera adds")
    assert read_raster(path, at_least=448).pixels.shape == (480, 500)
    # What comes last in a progressive one refines by a few grey levels what is there.
    shares = (0.3, 0.6) if "progressive" in how else (0.3, 0.6, 0.9)
    for stream in mutilated(buffer.getvalue(), shares):
        path.write_bytes(stream)
        with Image.open(path) as picture:
            picture.load()  # Pillow says nothing
        assert refusal(path) is Refusal.DAMAGED
    path.write_bytes(buffer.getvalue()[:-9000] + bytes(9000))
    assert refusal(path) is Refusal.ENDS_EARLY


def test_what_some_writers_do_wrong_in_every_film_refuses_none(tmp_path: Path, film8: NDArray[np.uint8]) -> None:
    path = tmp_path / "film.jpg"
    Image.fromarray(film8).save(path, "JPEG", quality=90)
    whole = path.read_bytes()
    expected = read_raster(path, at_least=448).pixels
    scan = whole.index(b"\xff\xda")
    jfif = whole.index(b"JFIF\0") + 5
    with pytest.raises(ValueError, match="Invalid SOS parameters"):
        simplejpeg.decode_jpeg(whole[: scan + 8] + b"\0" + whole[scan + 9 :], "GRAY", strict=True)
    for stream in (
        whole[:-2] + b"\0\0" + whole[-2:],
        # Ss and Se, which a sequential stream has no use for, as 0 and 0 (T.81 B.2.3: 0 and 63).
        whole[: scan + 8] + b"\0" + whole[scan + 9 :],
        whole[:jfif] + b"\x09" + whole[jfif + 1 :],
    ):
        path.write_bytes(stream)
        assert np.array_equal(read_raster(path, at_least=448).pixels, expected)


def test_a_jpeg_is_read_as_pillow_reads_it(tmp_path: Path, film8: NDArray[np.uint8]) -> None:
    rng = np.random.default_rng(0)
    for size in ((1000, 960), (2047, 1801), (449, 1500), (320, 300)):
        for mode, how in (
            ("L", {}),
            ("RGB", {}),
            ("RGB", {"subsampling": 0}),
            ("RGB", {"keep_rgb": True}),
            ("CMYK", {}),
        ):
            film = Image.fromarray(film8).resize(size).convert(mode)
            values = np.asarray(film).astype(int)
            spoilt = (values + rng.integers(0, 6, values.shape)).clip(0, 255).astype(np.uint8)
            path = tmp_path / "film.jpg"
            Image.fromarray(spoilt, mode).save(path, "JPEG", quality=90, **how)
            with Image.open(path) as picture:
                if mode != "CMYK":
                    picture.draft("L", (448, 448))
                expected = np.asarray(picture.convert("RGB").convert("L") if mode == "CMYK" else picture)
            assert np.array_equal(read_raster(path, at_least=448).pixels, expected), (size, mode, how)


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("at_least", [None, 448])
def test_a_jpeg_dicom_film_with_a_hole_is_refused(
    write_dicom: WriteDicom, film8: NDArray[np.uint8], colours: int, at_least: int | None
) -> None:
    large = np.asarray(Image.fromarray(film8).resize((960, 960)))
    pixels = large if colours == 1 else np.dstack([large] * 3)
    more = {"PhotometricInterpretation": "YBR_FULL_422"} if colours == 3 else {}
    path = write_dicom(pixels, syntax=uid.JPEGBaseline8Bit, **more)
    read_dicom(path, at_least=at_least)
    dataset = dcmread(path)
    for stream in mutilated(next(generate_frames(dataset.PixelData, number_of_frames=1))):
        dataset.PixelData = encapsulate([stream])
        dataset.save_as(path)
        with pytest.raises(FilmRefusedError) as refused:
            read_dicom(path, at_least=at_least)
        assert refused.value.reason is Refusal.DAMAGED


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("unlocked", [True, False])
def test_a_lossless_jpeg_with_a_hole_is_refused(
    write_dicom: WriteDicom,
    film12: NDArray[np.uint16],
    syntax: uid.UID,
    unlocked: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not unlocked:
        monkeypatch.setattr(dicom_pixels, "read_grey_unlocked", lambda *_, **__: None)
    path = write_dicom(film12, bits=12, syntax=syntax)
    read_dicom(path)
    dataset = dcmread(path)
    for stream in mutilated(next(generate_frames(dataset.PixelData, number_of_frames=1))):
        dataset.PixelData = encapsulate([stream])
        dataset.save_as(path)
        assert refusal(path) is Refusal.DAMAGED


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_the_length_of_a_lossless_jpeg_is_known_to_the_bit(
    film12: NDArray[np.uint16], predictor: int, bits: int
) -> None:
    """An encoder of another house: libjpeg-turbo's. With 16 bits the largest difference occurs too, 32,768."""
    film = (film12 >> 4).astype(np.uint8) if bits == 8 else film12.copy()
    if bits == 16:
        film = film12 * np.uint16(16) + np.random.default_rng(0).integers(0, 16, film.shape, np.uint16)
        film[1, 1:3], film[2, 2] = 0, 32768
    coded = bytes(imagecodecs.jpeg8_encode(film, lossless=True, predictor=predictor, bitspersample=bits))
    assert is_as_long_as_decoded(coded, film)
    other = film.copy()
    other[200] = other[100]
    assert not is_as_long_as_decoded(coded, other)


@pytest.mark.parametrize(
    "syntax", [uid.RLELossless, uid.DeflatedExplicitVRLittleEndian], ids=lambda syntax: syntax.keyword
)
def test_what_is_packed_without_a_checksum_must_come_out_even(
    write_dicom: WriteDicom, film12: NDArray[np.uint16], syntax: uid.UID
) -> None:
    path = write_dicom(film12, bits=12, syntax=syntax)
    read_dicom(path)
    whole = path.read_bytes()
    for share in (0.3, 0.45, 0.6, 0.75, 0.9):
        at = int(len(whole) * share)
        path.write_bytes(whole[:at] + bytes(600) + whole[at + 600 :])
        assert refusal(path) is Refusal.DAMAGED


def unwritten_from(data: bytes, at: int, size: int | None = None) -> bytes:
    at -= at % 512
    end = len(data) if size is None else at + size
    return data[:at] + bytes(end - at) + data[end:]


@pytest.mark.parametrize("kind", ["8.dcm", "16.dcm", "8.bmp", "8.tif", "16.tif", "colour.bmp"])
def test_pixels_that_the_disk_never_got_are_refused(
    write_dicom: WriteDicom, tmp_path: Path, film8: NDArray[np.uint8], kind: str
) -> None:
    grey = np.asarray(Image.fromarray(film8).resize((1000, 1000)))
    depth, suffix = kind.split(".")
    pixels: NDArray[Any] = {"8": grey, "16": grey.astype(np.uint16) * 16, "colour": np.dstack([grey] * 3)}[depth]
    path = tmp_path / f"film.{suffix}"
    if suffix == "dcm":
        path = write_dicom(pixels, bits=8 if depth == "8" else 12)
    else:
        Image.fromarray(pixels).save(path)
    read_film(path, Preprocessing())
    whole = path.read_bytes()
    row = pixels[0].nbytes
    for share in (0.55, 0.7, 0.9):
        # Where a sector begins in the middle half of a row.
        at = next(
            at
            for at in range(int(len(whole) * share) // 512 * 512, len(whole), 512)
            if 0.25 < ((at - (len(whole) - 1000 * row)) % row) / row < 0.75
        )
        for size in (None, 4 * 4096):
            path.write_bytes(unwritten_from(whole, at, size))
            assert refusal(path) is Refusal.DAMAGED, (share, size)


@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.JPEGExtended12Bit], ids=lambda syntax: syntax.keyword)
def test_coded_pixels_that_the_disk_never_got_are_refused(
    write_dicom: WriteDicom, film12: NDArray[np.uint16], syntax: uid.UID
) -> None:
    path = write_dicom(film12, bits=12, syntax=syntax)
    read_film(path, Preprocessing())
    whole = path.read_bytes()
    for share in (0.3, 0.6, 0.8):
        for size in (512, 4096):
            path.write_bytes(unwritten_from(whole, int(len(whole) * share), size))
            assert refusal(path) is Refusal.DAMAGED, (share, size)


def test_zeros_in_coded_pixels_are_no_unwritten_sectors() -> None:
    """Where a JPEG 2000 film is black, its layers have nothing to say and take a zero each for it."""
    film = np.zeros((4096, 4096), np.uint8)
    film[::64, :2048] = np.random.default_rng(0).integers(0, 255, (64, 2048), np.uint8)
    coded = io.BytesIO()
    Image.fromarray(film).save(coded, "JPEG2000", irreversible=False, quality_layers=[40, 20, 10, 5, 2, 1])
    assert bytes(200) in coded.getvalue()
    assert not any(has_unwritten_sectors(coded.getvalue(), offset) for offset in range(0, 512, 8))
    noise = np.random.default_rng(1).integers(1, 256, 5000, np.uint8)
    # Long runs count where they begin and end with sectors of the file, but for bytes that are zero of themselves.
    for start, end, offset, expected in (
        (1024, 2048, 0, True),
        (1000, 2024, 24, True),
        (1023, 2048, 0, True),
        (1024, 2047, 0, False),
        (1000, 2048, 0, False),
        (1024, 2060, 0, False),
        (1024, 1500, 0, False),
    ):
        data = noise.copy()
        data[start:end] = 0
        assert has_unwritten_sectors(data.tobytes(), offset) is expected, (start, end, offset)


def test_black_parts_of_a_film_are_no_unwritten_ones() -> None:
    """However they are cut: beside, below, by an oblique edge or a round one, and wherever in the file they lie."""
    film = np.random.default_rng(0).integers(1, 255, (300, 400), np.uint8)
    y, x = np.mgrid[:300, :400]
    cuts = [x < 150, x > 250, y > 200, y < 100, (x - 200) ** 2 + (y - 150) ** 2 > 140**2]
    cuts += [y - 200 > slope * (x - 200) for slope in (-0.9, -0.1, -0.02, 0.02, 0.1, 0.9)]
    for cut in cuts:
        held = np.where(cut, 0, film).astype(np.uint8)
        assert not any(has_unwritten(part, offset) for part in (held, held[::-1]) for offset in range(0, 512, 3))
