"""Real films, written into every kind of file that these tests read back."""

import io
import tempfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import gdcm
import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread, uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames

EXAMPLES = Path(__file__).parents[2] / "examples"
GDCM_NAMES = {
    uid.JPEGLossless: "JPEGLosslessProcess14",
    uid.JPEGLosslessSV1: "JPEGLosslessProcess14_1",
    uid.JPEGLSLossless: "JPEGLSLossless",
    uid.JPEG2000Lossless: "JPEG2000Lossless",
}
WriteDicom = Callable[..., Path]


@pytest.fixture(scope="session")
def examples() -> Path:
    return EXAMPLES


@pytest.fixture(scope="session")
def film8() -> NDArray[np.uint8]:
    """A real film, uint8 [320, 320]."""
    with Image.open(EXAMPLES / "00028351_000.jpg") as picture:
        return np.asarray(picture.convert("L"))


@pytest.fixture(scope="session")
def film12() -> NDArray[np.uint16]:
    """A real film of 15 bits brought to 12, uint16 [488, 460], black air."""
    with Image.open(EXAMPLES / "chest-16bit.png") as picture:
        return np.asarray(picture).astype(np.uint16) // np.uint16(8)


@pytest.fixture(scope="session")
def sample() -> Callable[[str], Path]:
    """A file that pydicom or pydicom-data brings, never downloaded."""

    def find(name: str) -> Path:
        path = get_testdata_file(name, download=False)
        assert path, f"{name} is not installed: pip install pydicom-data"
        return Path(str(path))

    return find


@pytest.fixture
def write_dicom(tmp_path: Path) -> WriteDicom:
    """Write stored values into a DICOM file and return its path.

    bits: stored; syntax: transfer syntax the pixels are coded in; every other keyword is a header element by its name.
    """

    def write(
        pixels: NDArray[Any], *, bits: int | None = None, syntax: uid.UID = uid.ExplicitVRLittleEndian, **elements: Any
    ) -> Path:
        dataset = header(pixels, bits or 8 * pixels.dtype.itemsize)
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax.is_encapsulated:
            dataset.add_new("PixelData", "OB", encapsulate([coded(pixels, dataset, syntax)]))
            dataset["PixelData"].is_undefined_length = True
        else:
            data = (pixels if syntax.is_little_endian else pixels.byteswap()).tobytes()
            dataset.add_new("PixelData", "OB" if pixels.dtype.itemsize == 1 else "OW", data + b"\0" * (len(data) % 2))
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.dcm"
        dataset.save_as(path, enforce_file_format=True, little_endian=syntax.is_little_endian)
        return path

    return write


def header(pixels: NDArray[Any], bits: int) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = uid.DigitalXRayImageStorageForPresentation
    dataset.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid(entropy_srcs=["test"])
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.PatientName = "Doe^Jane"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    return dataset


def coded(pixels: NDArray[Any], dataset: Dataset, syntax: uid.UID) -> bytes:
    """One frame, compressed by whatever can."""
    buffer = io.BytesIO()
    if syntax == uid.JPEGExtended12Bit and pixels.dtype == np.uint16:
        return bytes(imagecodecs.jpeg8_encode(pixels, level=95, bitspersample=12))
    if syntax in (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit):
        Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
        return buffer.getvalue()
    if syntax == uid.JPEG2000:
        Image.fromarray(pixels).save(
            buffer, "JPEG2000", irreversible=True, no_jp2=True, quality_mode="rates", quality_layers=[8]
        )
        return buffer.getvalue()
    plain = deepcopy(dataset)
    plain.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    plain.add_new("PixelData", "OB" if pixels.dtype.itemsize == 1 else "OW", pixels.tobytes())
    if syntax in GDCM_NAMES:
        return coded_by_gdcm(plain, syntax)
    if syntax == uid.JPEGLSNearLossless:
        plain.compress(syntax, jls_error=2)
    else:
        plain.compress(syntax)
    return next(generate_frames(plain.PixelData, number_of_frames=1))


def coded_by_gdcm(plain: Dataset, syntax: uid.UID) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.dcm"
        plain.save_as(path, enforce_file_format=True)
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, GDCM_NAMES[syntax])))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(path))
        assert writer.Write()
        return next(generate_frames(dcmread(path).PixelData, number_of_frames=1))
