"""Every transfer syntax that clinics' machines write gives the film that went in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread, uid
from pydicom.data import get_testdata_file
from pydicom.pixels import pixel_array
from pydicom.pixels.decoders.base import JPEGExtended12BitDecoder, JPEGLosslessSV1Decoder

from cxredge.errors import FilmFailedError, FilmRefusedError, Refusal
from cxredge.imaging import Preprocessing, dicom, read_film, unlocked
from cxredge.imaging.dicom import read_dicom

LOSSLESS = [
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
]


def names(syntaxes: list[uid.UID]) -> list[str]:
    return [syntax.keyword for syntax in syntaxes]


@pytest.mark.parametrize("syntax", LOSSLESS, ids=names(LOSSLESS))
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_lossless_syntax_gives_exactly_the_uncompressed_film(
    write_dicom: Callable[..., Path], film12: NDArray[np.uint16], syntax: uid.UID, signed: bool
) -> None:
    stored = film12.astype(np.int16) - 2048 if signed else film12
    plane = read_dicom(write_dicom(stored, bits=12, syntax=syntax, WindowCenter=2048 - 2048 * signed, WindowWidth=4096))
    expected = np.rint((film12 - 2047.5) / 4095 * 255 + 127.5)
    np.testing.assert_array_equal(plane.pixels, np.clip(expected, 0, 255))
    assert plane.tags["transfer_syntax"] == syntax.name


@pytest.mark.parametrize("syntax", LOSSLESS, ids=names(LOSSLESS))
def test_lossless_syntax_gives_exactly_the_film_when_it_has_eight_bits(
    write_dicom: Callable[..., Path], film8: NDArray[np.uint8], syntax: uid.UID
) -> None:
    np.testing.assert_array_equal(read_dicom(write_dicom(film8, syntax=syntax)).pixels, film8)


@pytest.mark.parametrize("syntax", [uid.JPEGLSNearLossless, uid.JPEG2000], ids=["JPEGLSNearLossless", "JPEG2000"])
def test_lossy_syntax_gives_nearly_the_film(
    write_dicom: Callable[..., Path], film12: NDArray[np.uint16], syntax: uid.UID
) -> None:
    window: dict[str, Any] = {"WindowCenter": 2048, "WindowWidth": 4096}
    plane = read_dicom(write_dicom(film12, bits=12, syntax=syntax, **window))
    plain = read_dicom(write_dicom(film12, bits=12, **window))
    off = np.abs(plane.pixels.astype(int) - plain.pixels)
    assert off.max() <= 16
    assert off.mean() < 1


@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit], ids=["baseline", "extended"])
def test_eight_bit_jpeg_gives_nearly_the_film(
    write_dicom: Callable[..., Path], film8: NDArray[np.uint8], syntax: uid.UID
) -> None:
    off = np.abs(read_dicom(write_dicom(film8, syntax=syntax)).pixels.astype(int) - film8)
    assert off.max() <= 8
    assert off.mean() < 1


def test_twelve_bit_jpeg_is_read_with_the_extra_and_names_the_package_to_install_without(
    write_dicom: Callable[..., Path], film12: NDArray[np.uint16], sample: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    window: dict[str, Any] = {"WindowCenter": 2048, "WindowWidth": 4096}
    film = write_dicom(film12, bits=12, syntax=uid.JPEGExtended12Bit, **window)
    off = np.abs(read_dicom(film).pixels.astype(int) - read_dicom(write_dicom(film12, bits=12, **window)).pixels)
    assert off.max() <= 8
    assert off.mean() < 1
    # Somebody else's, of a phantom in the middle of nothing.
    phantom = read_dicom(sample("JPGExtended.dcm")).pixels
    assert phantom.shape == (1024, 256)
    assert phantom.std() > 20
    coded = film.read_bytes()
    film.write_bytes(coded[: len(coded) * 2 // 3])
    with pytest.raises(FilmRefusedError):
        read_dicom(film)
    monkeypatch.setattr(unlocked, "find_spec", lambda _name: None)
    if "pylibjpeg" not in JPEGExtended12BitDecoder.available_plugins:
        with pytest.raises(FilmFailedError, match="pip install imagecodecs"):
            read_dicom(sample("JPGExtended.dcm"))


def test_missing_decoder_names_the_package_to_install(
    write_dicom: Callable[..., Path], film8: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_dicom(film8, syntax=uid.JPEGLosslessSV1)
    monkeypatch.setattr(JPEGLosslessSV1Decoder, "_available", {})
    with pytest.raises(FilmFailedError, match="pip install python-gdcm"):
        read_dicom(path)


@pytest.mark.parametrize("syntax", [uid.MPEG2MPML, uid.HEVCMP51], ids=["MPEG2", "HEVC"])
def test_video_is_refused_by_name(write_dicom: Callable[..., Path], film8: NDArray[np.uint8], syntax: uid.UID) -> None:
    path = write_dicom(film8, syntax=uid.JPEGBaseline8Bit)
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)
    with pytest.raises(FilmRefusedError, match=syntax.name.split(" ")[0]) as refused:
        read_dicom(path)
    assert refused.value.reason is Refusal.UNSUPPORTED


def test_real_film_is_the_same_in_four_published_encodings(sample: Callable[[str], Path]) -> None:
    planes = {kind: read_dicom(sample(f"RG1_{kind}.dcm")) for kind in ("UNCR", "UNCI", "J2KR", "J2KI")}
    first = planes["UNCR"]
    assert first.pixels.shape == (1955, 1841)
    assert first.tags["photometric"] == "MONOCHROME1"
    np.testing.assert_array_equal(first.pixels, planes["J2KR"].pixels)
    for plane in planes.values():
        assert np.abs(plane.pixels.astype(int) - first.pixels).max() <= 4
        assert plane.pixel_aspect == 1.0


def test_mean_of_a_real_film_has_dark_lungs_and_a_bright_mediastinum(sample: Callable[[str], Path]) -> None:
    image = read_film(sample("RG1_UNCR.dcm"), Preprocessing()).image[0]
    assert image[50:110, 104:120].mean() > image[50:110, 60:90].mean() + 20


@pytest.mark.parametrize(
    "name",
    ["SC_rgb.dcm", "SC_rgb_rle.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_ybr_full_uncompressed.dcm", "SC_rgb_expb.dcm"],
)
def test_colour_becomes_luminance(sample: Callable[[str], Path], name: str) -> None:
    luminance = np.asarray(Image.fromarray(dcmread(sample(name)).pixel_array).convert("L"))
    off = np.abs(read_dicom(sample(name)).pixels.astype(int) - luminance)
    assert off.max() <= 2


@pytest.mark.parametrize("name", ["RG1_J2KR", "RG1_J2KI", "RG3_J2KR", "RG3_J2KI", "693_J2KI", "MR2_J2KR", "JPEG2000"])
def test_jpeg_2000_gives_the_values_that_pydicom_gives(name: str) -> None:
    path = Path(str(get_testdata_file(f"{name}.dcm", download=False)))
    dataset = dcmread(path)
    with path.open("rb") as file:
        source = dicom.open_dicom(path, file)
        array = dicom.decode(source, dicom.shape_of(source.header), None).values
    np.testing.assert_array_equal(array, pixel_array(dataset, raw=True, decoding_plugin="pillow"))
