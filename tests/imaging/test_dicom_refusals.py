"""A DICOM file that is cut off, damaged or no film is refused for the right reason, and never half read."""

import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from house import EXAMPLES
from numpy.typing import NDArray
from pydicom import dcmread, uid
from pydicom.encaps import encapsulate, generate_frames

from cxredge.errors import FilmRefusedError, Refusal
from cxredge.imaging import Preprocessing, read_film, unlocked
from cxredge.imaging.dicom import read_dicom

WriteDicom = Callable[..., Path]
SYNTAXES = [
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEGBaseline8Bit,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEGLSNearLossless,
    uid.JPEG2000Lossless,
    uid.JPEG2000,
]
MARKED = [syntax for syntax in SYNTAXES if syntax.is_encapsulated and syntax != uid.RLELossless]


def refusal(path: Path) -> FilmRefusedError:
    with pytest.raises(FilmRefusedError) as refused:
        read_film(path, Preprocessing())
    return refused.value


def name(syntax: uid.UID) -> str:
    return syntax.keyword


@pytest.fixture
def whole(request: pytest.FixtureRequest, write_dicom: WriteDicom, film8: NDArray[np.uint8]) -> Path:
    path = write_dicom(film8, syntax=request.param, Modality="DX", RescaleSlope=1, RescaleIntercept=0)
    read_film(path, Preprocessing())
    return path


@pytest.mark.parametrize("whole", SYNTAXES, indirect=True, ids=name)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95, 0.999])
def test_file_cut_off_in_its_pixels_ends_early(whole: Path, share: float) -> None:
    data = whole.read_bytes()
    whole.write_bytes(data[: int(len(data) * share)])
    assert refusal(whole).reason is Refusal.ENDS_EARLY


@pytest.mark.parametrize("whole", SYNTAXES, indirect=True, ids=name)
def test_file_that_lacks_its_last_bytes_ends_early(whole: Path) -> None:
    data = whole.read_bytes()
    for missing in range(1, 13):
        whole.write_bytes(data[:-missing])
        assert refusal(whole).reason is Refusal.ENDS_EARLY, f"{missing} bytes missing"


@pytest.mark.parametrize(
    "whole", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.JPEG2000], indirect=True, ids=name
)
def test_file_cut_off_anywhere_in_its_header_ends_early(whole: Path) -> None:
    data = whole.read_bytes()
    for length in range(132, data.index(b"\xe0\x7f\x10\x00") + 12, 3):
        whole.write_bytes(data[:length])
        assert refusal(whole).reason is Refusal.ENDS_EARLY, f"{length} bytes"


def test_detail_says_how_much_of_the_file_there_is(write_dicom: WriteDicom, film12: NDArray[np.uint16]) -> None:
    path = write_dicom(np.tile(film12, (4, 4)), bits=12)
    data = path.read_bytes()
    path.write_bytes(data[:12_345])
    assert str(refusal(path)) == f"the file ends early: 12 kB of {len(data) / 1e6:.1f} MB"
    path.write_bytes(data[:-2])
    assert refusal(path).detail == f"{len(data) - 2} of {len(data)} bytes"


@pytest.mark.parametrize("whole", MARKED, indirect=True, ids=name)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95, 0.999])
def test_whole_file_around_a_cut_off_picture_ends_early(whole: Path, share: float) -> None:
    dataset = dcmread(whole)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1)).rstrip(b"\0")
    dataset.PixelData = encapsulate([frame[: int(len(frame) * share)]])
    dataset.save_as(whole)
    assert refusal(whole).reason is Refusal.ENDS_EARLY


def test_whole_file_around_a_cut_off_rle_picture_is_damaged(write_dicom: WriteDicom, film8: NDArray[np.uint8]) -> None:
    path = write_dicom(film8, syntax=uid.RLELossless)
    dataset = dcmread(path)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = encapsulate([frame[:-50]])
    dataset.save_as(path)
    assert refusal(path).reason is Refusal.DAMAGED


@pytest.mark.parametrize("whole", [uid.JPEGLSLossless, uid.JPEGLSNearLossless], indirect=True, ids=name)
def test_garbage_that_the_decoder_notices_is_damaged(whole: Path) -> None:
    data = bytearray(whole.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = b"\xff" * 2000
    whole.write_bytes(bytes(data))
    assert refusal(whole).reason is Refusal.DAMAGED


@pytest.mark.parametrize("whole", MARKED, indirect=True, ids=name)
@pytest.mark.parametrize(("rows", "columns"), [(160, 640), (320, 300), (60_000, 1000)])
def test_picture_of_another_size_than_the_header_says_is_damaged(whole: Path, rows: int, columns: int) -> None:
    dataset = dcmread(whole)
    dataset.Rows, dataset.Columns = rows, columns
    dataset.save_as(whole)
    assert refusal(whole).reason is Refusal.DAMAGED


def test_pixels_shorter_than_the_header_says_are_damaged(write_dicom: WriteDicom, film8: NDArray[np.uint8]) -> None:
    path = write_dicom(film8, Rows=2000)
    assert refusal(path).reason is Refusal.DAMAGED


@pytest.mark.parametrize(
    ("elements", "reason", "detail"),
    [
        ({"NumberOfFrames": 12}, Refusal.MULTI_FRAME, "12 frames"),
        ({"Rows": 60_000, "Columns": 60_000}, Refusal.TOO_LARGE, "60000 x 60000 pixels"),
        (
            {"PhotometricInterpretation": "PALETTE COLOR"},
            Refusal.UNSUPPORTED,
            "photometric interpretation PALETTE COLOR",
        ),
        ({"BitsAllocated": 1}, Refusal.UNSUPPORTED, "1 bits a pixel"),
        ({"BitsAllocated": 32}, Refusal.UNSUPPORTED, "32 bits a pixel"),
        ({"BitsStored": 12}, Refusal.DAMAGED, "12 bits stored in 8"),
        ({"SamplesPerPixel": 3}, Refusal.DAMAGED, "MONOCHROME2 with 3 samples a pixel"),
        ({"Rows": 0}, Refusal.DAMAGED, "its header gives no size"),
    ],
)
def test_header_of_no_film_is_refused_before_decoding(
    write_dicom: WriteDicom, film8: NDArray[np.uint8], elements: dict[str, Any], reason: Refusal, detail: str
) -> None:
    error = refusal(write_dicom(film8, **elements))
    assert (error.reason, error.detail) == (reason, detail)


def test_floating_point_pixels_are_refused(write_dicom: WriteDicom, film8: NDArray[np.uint8]) -> None:
    path = write_dicom(film8)
    dataset = dcmread(path)
    del dataset.PixelData
    dataset.BitsAllocated = 32
    dataset.FloatPixelData = film8.astype("<f4").tobytes()
    dataset.save_as(path)
    assert refusal(path).reason is Refusal.UNSUPPORTED


@pytest.mark.parametrize("file", ["reportsi.dcm", "rtplan.dcm", "waveform_ecg.dcm", "test-SR.dcm"])
def test_dicom_file_without_pixels_says_what_it_is(sample: Callable[[str], Path], file: str) -> None:
    error = refusal(sample(file))
    assert error.reason is Refusal.NO_PIXELS
    assert error.detail.endswith("Storage")


def test_directory_of_a_disc_has_no_pixels(sample: Callable[[str], Path]) -> None:
    error = refusal(sample("DICOMDIR"))
    assert (error.reason, error.detail) == (Refusal.NO_PIXELS, "Media Storage Directory Storage")


def test_truncated_published_sample_ends_early(sample: Callable[[str], Path]) -> None:
    assert refusal(sample("MR_truncated.dcm")).reason is Refusal.ENDS_EARLY


def test_dicom_without_its_preamble_is_read(write_dicom: WriteDicom, film8: NDArray[np.uint8]) -> None:
    path = write_dicom(film8, syntax=uid.ImplicitVRLittleEndian)
    data = path.read_bytes()
    meta_ends = 144 + int.from_bytes(data[140:144], "little")
    for start in (132, meta_ends):
        path.write_bytes(data[start:])
        np.testing.assert_array_equal(read_dicom(path).pixels, film8)


@pytest.mark.parametrize("content", [b"Dear colleague, the film follows by post.\n" * 40, b"\0" * 5000, b"x"])
def test_other_file_with_a_dicom_name_is_not_an_image(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "letter.dcm"
    path.write_bytes(content)
    assert refusal(path).reason is Refusal.NOT_AN_IMAGE


def test_empty_file_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "empty.dcm"
    path.touch()
    assert refusal(path).reason is Refusal.EMPTY


def test_random_bytes_in_the_header_never_crash_and_never_name_the_patient(
    write_dicom: WriteDicom, film8: NDArray[np.uint8], recwarn: pytest.WarningsRecorder
) -> None:
    path = write_dicom(film8, syntax=uid.JPEGLSLossless, WindowCenter=100, WindowWidth=200)
    data = path.read_bytes()
    ends = data.index(b"\xe0\x7f\x10\x00") + 20
    generator = np.random.default_rng(0)
    for _ in range(200):
        soiled = bytearray(data)
        at = int(generator.integers(132, ends))
        soiled[at : at + 6] = generator.bytes(6)
        path.write_bytes(bytes(soiled))
        try:
            said = str(read_film(path, Preprocessing()).tags)
        except FilmRefusedError as error:
            said = str(error)
        assert "Doe" not in said
    assert not recwarn.list


def test_oddities_of_a_header_warn_nobody(
    write_dicom: WriteDicom, film8: NDArray[np.uint8], recwarn: pytest.WarningsRecorder
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write_dicom(film8, PatientAge="eighty", Modality="far too long for a code string", BitsAllocated=8)
    warnings.simplefilter("always")
    read_dicom(path)
    assert not recwarn.list


LOSSLESS_FILM = EXAMPLES / "chest-cr.dcm"


@pytest.mark.parametrize(
    ("place", "value"),
    [(4, 17), (4, 32), (4, 128), (4, 255), (4, 1), (9, 3), (1, 0x10), (3, 200)],
    ids=["17 bits", "32 bits", "128 bits", "255 bits", "1 bit", "three colours", "no marker", "a segment too long"],
)
@pytest.mark.parametrize("extra", ["with", "without"])
def test_a_stream_that_would_end_the_process_never_reaches_its_decoder(
    tmp_path: Path, place: int, value: int, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if extra == "without":
        monkeypatch.setattr(unlocked, "find_spec", lambda _name: None)
    coded = bytearray(LOSSLESS_FILM.read_bytes())
    coded[coded.find(b"\xff\xc3") + place] = value
    (tmp_path / "film.dcm").write_bytes(coded)
    with pytest.raises(FilmRefusedError) as refused:
        read_dicom(tmp_path / "film.dcm")
    assert refused.value.reason is Refusal.DAMAGED


@pytest.mark.parametrize("place", [b"1.2.840.10008.1.2.4.70", b"1.2.840.10008.5.1.4.1.1.1\0"])
def test_a_backslash_in_an_identifier_ends_nothing(tmp_path: Path, place: bytes) -> None:
    said = LOSSLESS_FILM.read_bytes()
    assert place in said
    (tmp_path / "film.dcm").write_bytes(said.replace(place, place[:4] + b"\\" + place[5:]))
    with suppress(FilmRefusedError):
        assert read_dicom(tmp_path / "film.dcm").tags.get("sop_class", "") == ""


def test_rows_that_the_header_does_not_tell_of_are_no_padding(
    write_dicom: Callable[..., Path], film8: NDArray[np.uint8]
) -> None:
    film = dcmread(path := write_dicom(film8))
    film.PixelData += bytes(2 * film8.shape[1])
    film.save_as(path)
    assert read_dicom(path).pixels.shape == film8.shape
    film.Rows -= 40
    film.save_as(path)
    with pytest.raises(FilmRefusedError, match="more rows of pixels than its header says"):
        read_dicom(path)


def test_values_that_lie_high_in_their_words_are_refused(
    write_dicom: Callable[..., Path], film12: NDArray[np.uint16]
) -> None:
    with pytest.raises(FilmRefusedError, match="12 bits that do not end at bit 11"):
        read_dicom(write_dicom(film12 << 4, bits=12, HighBit=15))
