"""What a DICOM header says about grey values is what comes out, held against pydicom and the standard's formulas."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_modality_lut, apply_voi, apply_windowing

from cxredge.errors import FilmRefusedError, Refusal
from cxredge.imaging import Preprocessing, read_film
from cxredge.imaging.dicom import read_dicom

WriteDicom = Callable[..., Path]
WINDOW: dict[str, Any] = {"WindowCenter": 2000, "WindowWidth": 3000}


def test_monochrome1_is_exactly_the_inverted_monochrome2(write_dicom: WriteDicom, film12: NDArray[np.uint16]) -> None:
    bright_bone = read_dicom(write_dicom(film12, bits=12, WindowCenter=2048, WindowWidth=4096))
    dark_bone = write_dicom(
        4095 - film12, bits=12, WindowCenter=2048, WindowWidth=4096, PhotometricInterpretation="MONOCHROME1"
    )
    np.testing.assert_array_equal(read_dicom(dark_bone).pixels, bright_bone.pixels)


def test_contradicting_presentation_lut_shape_changes_nothing(
    write_dicom: WriteDicom, film12: NDArray[np.uint16]
) -> None:
    plain = read_dicom(write_dicom(film12, bits=12, **WINDOW))
    inverse = read_dicom(write_dicom(film12, bits=12, **WINDOW, PresentationLUTShape="INVERSE"))
    np.testing.assert_array_equal(inverse.pixels, plain.pixels)


def test_signed_values_give_exactly_the_unsigned_film(write_dicom: WriteDicom, film12: NDArray[np.uint16]) -> None:
    signed = film12.astype(np.int16) - 2048
    plane = read_dicom(write_dicom(signed, bits=12, WindowCenter=2000 - 2048, WindowWidth=3000))
    np.testing.assert_array_equal(plane.pixels, read_dicom(write_dicom(film12, bits=12, **WINDOW)).pixels)


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_bits_above_bits_stored_are_ignored(write_dicom: WriteDicom, film12: NDArray[np.uint16], signed: bool) -> None:
    plain = film12.astype(np.int16) - 2048 if signed else film12
    soiled = ((plain.view(np.uint16) & 0x0FFF) | 0xA000).view(plain.dtype)
    window = {"WindowCenter": 2000 - 2048 * signed, "WindowWidth": 3000}
    expected = read_dicom(write_dicom(plain, bits=12, **window))
    np.testing.assert_array_equal(read_dicom(write_dicom(soiled, bits=12, **window)).pixels, expected.pixels)


def test_rescale_comes_before_the_window(write_dicom: WriteDicom, film12: NDArray[np.uint16]) -> None:
    plain = read_dicom(write_dicom(film12, bits=12, WindowCenter=2000.5, WindowWidth=3001, VOILUTFunction="LINEAR"))
    rescaled = write_dicom(
        film12, bits=12, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=3000.5, WindowWidth=6001
    )
    np.testing.assert_array_equal(read_dicom(rescaled).pixels, plain.pixels)


def test_negative_slope_turns_the_film_around(write_dicom: WriteDicom, film12: NDArray[np.uint16]) -> None:
    plain = read_dicom(write_dicom(film12, bits=12, WindowCenter=2048, WindowWidth=4096))
    turned = write_dicom(
        4095 - film12, bits=12, RescaleSlope=-1, RescaleIntercept=4095, WindowCenter=2048, WindowWidth=4096
    )
    np.testing.assert_array_equal(read_dicom(turned).pixels, plain.pixels)


@pytest.mark.parametrize("slope", ["0", "x", ""])
def test_unusable_rescale_is_left_out(write_dicom: WriteDicom, film12: NDArray[np.uint16], slope: str) -> None:
    plain = read_dicom(write_dicom(film12, bits=12, **WINDOW))
    path = write_dicom(film12, bits=12, **WINDOW, RescaleSlope="7", RescaleIntercept="0")
    data = path.read_bytes()
    assert data.count(b"DS\x02\x007 ") == 1
    path.write_bytes(data.replace(b"DS\x02\x007 ", b"DS\x02\x00" + f"{slope:2}".encode()))
    np.testing.assert_array_equal(read_dicom(path).pixels, plain.pixels)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")  # pydicom's own formula
@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(2048, 4096), (1500, 900), (2600.5, 1)])
def test_window_agrees_with_pydicom(
    write_dicom: WriteDicom, film12: NDArray[np.uint16], function: str | None, center: float, width: float
) -> None:
    elements = {"WindowCenter": center, "WindowWidth": width, **({"VOILUTFunction": function} if function else {})}
    path = write_dicom(film12, bits=12, **elements)
    dataset = dcmread(path)
    expected = np.rint(np.clip(apply_windowing(film12, dataset) / 4095, 0, 1) * 255)
    off = np.abs(read_dicom(path).pixels - expected)
    assert off.max() <= 1
    assert (off > 0).mean() < 0.01


def test_first_of_several_windows_counts(write_dicom: WriteDicom, film12: NDArray[np.uint16]) -> None:
    several = write_dicom(film12, bits=12, WindowCenter=[2000, 100], WindowWidth=[3000, 50])
    plain = read_dicom(write_dicom(film12, bits=12, **WINDOW))
    np.testing.assert_array_equal(read_dicom(several).pixels, plain.pixels)


@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"WindowCenter": 2000},
        {"WindowCenter": 2000, "WindowWidth": 0},
        {"WindowCenter": 2000, "WindowWidth": -5, "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": 2000, "WindowWidth": 3000, "VOILUTFunction": "CUBIC"},
        {"WindowCenter": 60000, "WindowWidth": 10},
        {"WindowCenter": -900, "WindowWidth": 10},
    ],
    ids=["none", "no width", "width 0", "negative", "unknown function", "blanks to black", "blanks to white"],
)
def test_film_without_a_usable_window_is_stretched_between_percentiles(
    write_dicom: WriteDicom, film12: NDArray[np.uint16], elements: dict[str, Any]
) -> None:
    pixels = read_dicom(write_dicom(film12, bits=12, **elements)).pixels
    low, high = np.percentile(film12, (0.5, 99.5))
    expected = np.rint(np.clip((film12 - low) / (high - low), 0, 1) * 255)
    assert np.abs(pixels - expected).max() <= 1


@pytest.mark.parametrize(
    ("keyword", "extreme"),
    [
        *[(keyword, "1e-300") for keyword in ("WindowWidth", "RescaleSlope")],
        *[
            (keyword, extreme)
            for keyword in ("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept")
            for extreme in ("1e300", "-1e300", "nan", "inf")
        ],
    ],
)
@pytest.mark.filterwarnings("error::RuntimeWarning", "ignore:Invalid value for VR DS")
def test_absurd_number_in_the_header_does_no_harm(
    write_dicom: WriteDicom, film12: NDArray[np.uint16], keyword: str, extreme: str
) -> None:
    sane = {**WINDOW, "RescaleSlope": 1, "RescaleIntercept": 0, "VOILUTFunction": "LINEAR_EXACT"}
    assert read_dicom(write_dicom(film12, bits=12, **{**sane, keyword: extreme})).pixels.std() > 20


def test_eight_bits_without_a_window_stay_as_they_are(write_dicom: WriteDicom, film8: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(read_dicom(write_dicom(film8)).pixels, film8)


def lut_item(entries: NDArray[np.uint16], first: int, bits: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return item


def test_voi_lut_agrees_with_pydicom(write_dicom: WriteDicom, film12: NDArray[np.uint16]) -> None:
    entries = (1023 * (np.arange(3000) / 2999) ** 2).astype(np.uint16)
    path = write_dicom(film12, bits=12, VOILUTSequence=[lut_item(entries, 500, 10)], **WINDOW)
    expected = np.rint(apply_voi(film12, dcmread(path)) / 1023 * 255)
    assert np.abs(read_dicom(path).pixels - expected).max() <= 1


def test_a_table_that_begins_below_zero_is_read_in_implicit_vr_too(
    write_dicom: WriteDicom, film12: NDArray[np.uint16]
) -> None:
    """There the descriptor's first value has no type of its own: 64,536 or -1,000."""
    item = lut_item(np.linspace(0, 255, 4096).astype(np.uint16), -1000, 8)
    said = {"RescaleSlope": 1, "RescaleIntercept": -1000, "VOILUTSequence": [item]}
    explicit, implicit = (
        read_dicom(write_dicom(film12, bits=12, syntax=syntax, **said)).pixels
        for syntax in (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian)
    )
    assert np.array_equal(explicit, implicit)


def test_voi_lut_with_eight_bit_entries_reaches_beyond_255_inputs(
    write_dicom: WriteDicom, film12: NDArray[np.uint16]
) -> None:
    entries = (np.arange(4096) >> 4).astype(np.uint16)
    path = write_dicom(film12, bits=12, VOILUTSequence=[lut_item(entries, 0, 8)])
    np.testing.assert_array_equal(read_dicom(path).pixels, film12 >> 4)


def test_broken_voi_lut_falls_back_to_the_window(write_dicom: WriteDicom, film12: NDArray[np.uint16]) -> None:
    broken = lut_item(np.arange(100, dtype=np.uint16), 0, 10)
    broken.LUTDescriptor = [4000, 0, 10]
    path = write_dicom(film12, bits=12, VOILUTSequence=[broken], **WINDOW)
    plain = read_dicom(write_dicom(film12, bits=12, **WINDOW))
    np.testing.assert_array_equal(read_dicom(path).pixels, plain.pixels)


def test_modality_lut_agrees_with_pydicom(write_dicom: WriteDicom, film12: NDArray[np.uint16]) -> None:
    entries = (65535 * np.sqrt(np.arange(4096) / 4095)).astype(np.uint16)
    lut = [lut_item(entries, 0, 16)]
    path = write_dicom(film12, bits=12, ModalityLUTSequence=lut, WindowCenter=40000, WindowWidth=50000)
    dataset = dcmread(path)
    expected = np.rint(apply_windowing(apply_modality_lut(film12, dataset), dataset) / 65535 * 255)
    assert np.abs(read_dicom(path).pixels - expected).max() <= 1


@pytest.mark.parametrize("name", ["mlut_18.dcm", "vlut_04.dcm"])
def test_published_lut_samples_are_read(sample: Callable[[str], Path], name: str) -> None:
    assert read_dicom(sample(name)).pixels.std() > 30


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_move_the_percentiles(
    write_dicom: WriteDicom, film12: NDArray[np.uint16], photometric: str
) -> None:
    film = np.clip(film12, 100, 3900)
    padded = film.copy()
    padded[:, :100] = 4095
    plane = read_dicom(write_dicom(padded, bits=12, PixelPaddingValue=4095, PhotometricInterpretation=photometric))
    inner = read_dicom(write_dicom(film[:, 100:].copy(), bits=12, PhotometricInterpretation=photometric))
    assert not plane.pixels[:, :100].any()
    assert np.abs(plane.pixels[:, 100:].astype(int) - inner.pixels).max() <= 1


def test_padding_range_is_black(write_dicom: WriteDicom, film12: NDArray[np.uint16]) -> None:
    film = np.clip(film12, 100, 3900).astype(np.int16) - 2048
    film[:, :50], film[:, 50:100] = -2048, -2000
    path = write_dicom(film, bits=12, PixelPaddingValue=-2048, PixelPaddingRangeLimit=-2000)
    pixels = read_dicom(path).pixels
    assert not pixels[:, :100].any()
    assert pixels[:, 100:].std() > 30


@pytest.mark.parametrize("value", [65535, -1])
def test_padding_that_no_pixel_can_be_pads_nothing(
    write_dicom: WriteDicom, film12: NDArray[np.uint16], value: int
) -> None:
    """Taken for its lowest bits it would be white, and all that is white would turn black."""
    film = film12.copy()
    film[:, :60] = 4095
    path = write_dicom(film, bits=12, WindowCenter=2048, WindowWidth=4096)
    plain = read_dicom(path).pixels
    dataset = dcmread(path)
    dataset.add_new("PixelPaddingValue", "SS" if value < 0 else "US", value)
    dataset.save_as(path)
    assert np.array_equal(read_dicom(path).pixels, plain)
    assert (plain[:, :60] == 255).all()


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("syntax", "coded"),
    [
        (uid.JPEGExtended12Bit, lambda film: imagecodecs.jpeg8_encode(film, level=90, bitspersample=12)),
        (uid.JPEGLSNearLossless, lambda film: imagecodecs.jpegls_encode(film, level=3)),
        (uid.JPEG2000, lambda film: imagecodecs.jpeg2k_encode(film, level=45, codecformat="j2k", bitspersample=12)),
    ],
    ids=lambda value: getattr(value, "keyword", ""),
)
def test_what_a_lossy_film_has_beyond_white_is_white(
    write_dicom: WriteDicom, film12: NDArray[np.uint16], syntax: uid.UID, coded: Any, photometric: str
) -> None:
    """Ten bits in a stream of twelve: a value a little above 1,023 must not become black for its lower bits."""
    film = (film12 // 4).astype(np.uint16)
    film[50:150, 50:150], film[200:300, 200:300] = 1023, 0
    said = {"bits": 10, "PhotometricInterpretation": photometric, "WindowCenter": 512, "WindowWidth": 1024}
    plain = read_dicom(write_dicom(film, **said)).pixels.astype(int)
    path = write_dicom(film, **said)
    dataset = dcmread(path)
    dataset.PixelData = encapsulate([bytes(coded(film))])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)
    assert np.abs(read_dicom(path).pixels.astype(int) - plain).max() < 80


def test_film_of_padding_alone_is_blank(write_dicom: WriteDicom) -> None:
    with pytest.raises(FilmRefusedError) as refused:
        read_film(write_dicom(np.full((200, 200), 7, np.uint16), PixelPaddingValue=7), Preprocessing())
    assert refused.value.reason is Refusal.BLANK


@pytest.mark.parametrize(
    ("elements", "aspect"),
    [
        ({"PixelAspectRatio": [1, 2]}, 0.5),
        ({"PixelAspectRatio": [2, 1], "PixelSpacing": [0.1, 0.1]}, 2.0),
        ({"PixelSpacing": [0.2, 0.1]}, 2.0),
        ({"ImagerPixelSpacing": [0.1, 0.2]}, 0.5),
        ({"PixelSpacing": [0, 0]}, 1.0),
        ({"PixelSpacing": [0.1, -0.1]}, 1.0),
        ({"PixelAspectRatio": [1, 100]}, 1.0),
        ({}, 1.0),
    ],
)
def test_pixel_aspect_shapes_the_film(
    write_dicom: WriteDicom, film8: NDArray[np.uint8], elements: dict[str, Any], aspect: float
) -> None:
    path = write_dicom(film8, **elements)
    assert read_dicom(path).pixel_aspect == aspect
    box = read_film(path, Preprocessing()).box
    assert box == {0.5: (0, 56, 224, 112), 1.0: (0, 0, 224, 224), 2.0: (56, 0, 112, 224)}[aspect]


@pytest.mark.filterwarnings("ignore:Invalid value for VR AS")  # it is meant to be
def test_tags_hold_what_checks_need_and_nothing_of_a_person(write_dicom: WriteDicom, film8: NDArray[np.uint8]) -> None:
    path = write_dicom(
        film8,
        PatientID="12345",
        PatientBirthDate="19700101",
        InstitutionName="Somewhere",
        PatientAge="81",
        PatientSex="F",
        Modality="DX",
        BodyPartExamined="CHEST",
        ViewPosition="PA",
        ImageLaterality="U",
    )
    assert read_dicom(path).tags == {
        "view": "PA",
        "modality": "DX",
        "body_part": "CHEST",
        "laterality": "U",
        "patient_age": "081Y",
        "patient_sex": "F",
        "photometric": "MONOCHROME2",
        "transfer_syntax": "Explicit VR Little Endian",
        "sop_class": "Digital X-Ray Image Storage - For Presentation",
    }


def test_large_film_is_never_copied_wider_than_stored(write_dicom: WriteDicom, film12: NDArray[np.uint16]) -> None:
    large = np.tile(film12, (7, 7))[:3000, :3000].copy()
    path = write_dicom(large, bits=12, PixelPaddingValue=0)
    read_dicom(path)
    tracemalloc.start()
    try:
        plane = read_dicom(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert plane.pixels.shape == (3000, 3000)
    assert peak < large.nbytes + plane.pixels.nbytes + 12_000_000


@pytest.mark.parametrize(
    ("said", "age"),
    [
        ({"PatientAge": "034Y", "PatientBirthDate": "20200101", "StudyDate": "20210101"}, "034Y"),
        ({"PatientBirthDate": "19800301", "StudyDate": "20210228"}, "040Y"),
        ({"PatientBirthDate": "19800301", "StudyDate": "20210301"}, "041Y"),
        ({"PatientBirthDate": "20201224", "AcquisitionDate": "20210101", "StudyDate": "20230101"}, "008D"),
        ({"PatientBirthDate": "20200229", "ContentDate": "20211231"}, "001Y"),
        ({"PatientBirthDate": "20200601", "AcquisitionDateTime": "20210601101500.000000+0100"}, "001Y"),
        ({"PatientBirthDate": "20200602", "AcquisitionDateTime": "20210601101500"}, "364D"),
        ({"PatientAge": "034y"}, "034Y"),
        ({"PatientAge": "34 Y"}, "034Y"),
        ({"PatientAge": "34YR"}, "034Y"),
        ({"PatientAge": "7 MO"}, "007M"),
        # Before 1993 a day was written so.
        ({"PatientBirthDate": "1980.03.01", "StudyDate": "1990.03.01"}, "010Y"),
        ({"PatientAge": "UNKNOWN", "PatientBirthDate": "19800301", "StudyDate": "20210301"}, "041Y"),
        ({"PatientBirthDate": "19000101", "StudyDate": "20210301"}, ""),
        ({"PatientBirthDate": "20220101", "StudyDate": "20210301"}, ""),
        ({"PatientBirthDate": "19801399", "StudyDate": "20210301"}, ""),
        ({"PatientBirthDate": "19800301"}, ""),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_an_age_is_what_the_header_says_or_from_birth_to_film(
    write_dicom: Callable[..., Path], film8: NDArray[np.uint8], said: dict[str, str], age: str
) -> None:
    assert read_dicom(write_dicom(film8, **said)).tags.get("patient_age", "") == age
