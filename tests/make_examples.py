"""Make the films in examples/ again, byte for byte, from the public data they come from.

    python tests/make_examples.py DATA [FOLDER]

DATA holds `chestxray14/` (NIH ChestX-ray14: `images/`, `Data_Entry_2017_v2020.csv`) and `chest_xray/` (Kermany et al.:
`test/NORMAL`, `test/PNEUMONIA`) in their published layouts; FOLDER is examples/ unless named. The other two films come
with the package pydicom-data. Every DICOM header is written anew: it says how the file was made, nothing of a person.
"""

import csv
import io
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread, uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames

FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"),
    *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
)
NIH_JPEGS = ("00028351_000", "00000457_002", "00003400_003")
NIH_DICOMS = {
    "00009683_000": uid.ExplicitVRLittleEndian,
    "00013673_001": uid.JPEGLSLossless,
    "00000041_006": uid.JPEGBaseline8Bit,
}
KERMANY_JPEGS = ("NORMAL/IM-0001-0001.jpeg", "PNEUMONIA/person100_bacteria_475.jpeg")
# Each side of the 1955 x 1841 film is divided by this much.
CHEST_REDUCED, CHEST_PNG_REDUCED = 3, 4
CHEST_BITS = 15


def main(data: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    with (data / "chestxray14/Data_Entry_2017_v2020.csv").open(newline="") as file:
        entries = {row["Image Index"].removesuffix(".png"): row for row in csv.DictReader(file)}
    films = data / "chestxray14/images"
    labels = {}
    for stem in NIH_JPEGS:
        shutil.copyfile(films / f"{stem}.jpg", folder / f"{stem}.jpg")
        labels[f"{stem}.jpg"] = entries[stem]
    for stem, syntax in NIH_DICOMS.items():
        name = f"{stem}.dcm"
        write_nih_dicom(films / f"{stem}.jpg", entries[stem], syntax, folder / name)
        labels[name] = entries[stem]
    for path in KERMANY_JPEGS:
        shutil.copyfile(data / "chest_xray/test" / path, folder / Path(path).name)
    write_chest_cr(folder)
    write_leg_cr(folder)
    write_labels(labels, folder / "labels.csv")


def write_nih_dicom(film: Path, entry: dict[str, str], syntax: uid.UID, target: Path) -> None:
    """An 8-bit JPEG film as the Secondary Capture image that a clinic's scanner software would write."""
    with Image.open(film) as picture:
        grey = np.asarray(picture.convert("L"))
    dataset = header(film.stem, syntax, uid.SecondaryCaptureImageStorage, grey, bits=8)
    dataset.ConversionType = "WSD"
    dataset.Modality = "DX"
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = entry["View Position"]
    dataset.PatientAge = f"{int(entry['Patient Age']):03d}Y"
    dataset.PatientSex = entry["Patient Gender"]
    dataset.DerivationDescription = f"From an 8-bit JPEG of {film.stem}.png, NIH ChestX-ray14, reduced to 320 x 320"
    dataset.LossyImageCompression = "01"
    match syntax:
        case uid.JPEGBaseline8Bit:
            set_frame(dataset, film.read_bytes())
        case uid.JPEGLSLossless:
            set_frame(dataset, recoded(grey, bits=8, syntax=gdcm.TransferSyntax.JPEGLSLossless))
        case _:
            dataset.add_new("PixelData", "OB", grey.tobytes())
    save(dataset, target)


def write_chest_cr(folder: Path) -> None:
    """RG1, one digital chest film: MONOCHROME1, 15 of 16 bits, with its window, and as a 16-bit PNG with black air."""
    source = dcmread(str(get_testdata_file("RG1_UNCR.dcm", download=False)))
    stored = source.pixel_array
    reduced = mean_of_blocks(stored, CHEST_REDUCED)
    syntax = uid.JPEGLosslessSV1
    dataset = header("RG1", syntax, uid.ComputedRadiographyImageStorage, reduced, bits=CHEST_BITS)
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.Modality = "CR"
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "PA"
    dataset.PatientSex = source.PatientSex
    dataset.WindowCenter, dataset.WindowWidth = source.WindowCenter, source.WindowWidth
    dataset.DerivationDescription = f"RG1 of the DICOM WG-04 samples, mean of {CHEST_REDUCED} x {CHEST_REDUCED} pixels"
    set_frame(dataset, recoded(reduced, bits=CHEST_BITS, syntax=gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    save(dataset, folder / "chest-cr.dcm")
    bright_bone = (1 << CHEST_BITS) - 1 - mean_of_blocks(stored, CHEST_PNG_REDUCED)
    Image.fromarray(bright_bone).save(folder / "chest-16bit.png", optimize=True)


def write_leg_cr(folder: Path) -> None:
    """RG3, a lower leg: the film that a chest model has to refuse. Its compressed pixels stay as they are."""
    source = dcmread(str(get_testdata_file("RG3_J2KI.dcm", download=False)))
    shape = np.broadcast_to(np.uint16(0), (source.Rows, source.Columns))
    dataset = header("RG3", uid.JPEG2000, uid.ComputedRadiographyImageStorage, shape, bits=source.BitsStored)
    dataset.PhotometricInterpretation = source.PhotometricInterpretation
    dataset.Modality = "CR"
    dataset.BodyPartExamined = source.BodyPartExamined
    dataset.ViewPosition = source.ViewPosition
    dataset.Laterality = source.Laterality
    dataset.PatientSex = source.PatientSex
    dataset.WindowCenter, dataset.WindowWidth = source.WindowCenter, source.WindowWidth
    dataset.DerivationDescription = "RG3 of the DICOM WG-04 samples, JPEG 2000 irreversible 30:1"
    dataset.LossyImageCompression = "01"
    set_frame(dataset, next(generate_frames(source.PixelData, number_of_frames=1)))
    save(dataset, folder / "leg-cr.dcm")


def write_labels(entries: dict[str, dict[str, str]], target: Path) -> None:
    """One row per NIH film, one 0/1 column per finding."""
    with target.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", *FINDINGS])
        for name, entry in entries.items():
            found = set(entry["Finding Labels"].split("|")) - {"No Finding"}
            writer.writerow([name, *(int(finding in found) for finding in FINDINGS)])


def header(name: str, syntax: uid.UID, sop_class: uid.UID, pixels: NDArray[Any], *, bits: int) -> Dataset:
    """What every example's header holds, with UIDs that follow from `name`."""

    def identifier(kind: str) -> uid.UID:
        return uid.generate_uid(entropy_srcs=["cxredge examples", name, kind])

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = identifier("instance")
    dataset.file_meta.TransferSyntaxUID = syntax
    # Written out, or the version of pydicom would decide.
    dataset.file_meta.ImplementationClassUID = uid.PYDICOM_IMPLEMENTATION_UID
    dataset.file_meta.ImplementationVersionName = "CXREDGE_EXAMPLE"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = identifier("study"), identifier("series")
    dataset.StudyDate = dataset.StudyTime = dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.StudyID = dataset.PatientName = dataset.PatientBirthDate = dataset.PatientSex = ""
    dataset.PatientID = f"EXAMPLE-{name}"
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "header written anew"
    dataset.SeriesNumber = dataset.InstanceNumber = "1"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, 0
    return dataset


def mean_of_blocks(pixels: NDArray[np.uint16], side: int) -> NDArray[np.uint16]:
    """Every side x side pixels as their mean; what does not divide is cut off at the right and bottom."""
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    blocks = pixels[: rows * side, : columns * side].reshape(rows, side, columns, side)
    means: NDArray[np.uint16] = np.rint(blocks.mean(axis=(1, 3))).astype(np.uint16)
    return means


def recoded(pixels: NDArray[Any], *, bits: int, syntax: int) -> bytes:
    """The pixels compressed by GDCM."""
    dataset = header("recoded", uid.ExplicitVRLittleEndian, uid.SecondaryCaptureImageStorage, pixels, bits=bits)
    dataset.add_new("PixelData", "OB" if pixels.dtype.itemsize == 1 else "OW", pixels.tobytes())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.dcm"
        save(dataset, path)
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
        if not reader.Read():
            raise RuntimeError("GDCM cannot read the film")
        change.SetInput(reader.GetImage())
        if not change.Change():
            raise RuntimeError("GDCM cannot compress the film")
        writer = gdcm.ImageWriter()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(path))
        if not writer.Write():
            raise RuntimeError("GDCM cannot write the film")
        return next(generate_frames(dcmread(path).PixelData, number_of_frames=1))


def set_frame(dataset: Dataset, frame: bytes) -> None:
    dataset.add_new("PixelData", "OB", encapsulate([frame]))
    dataset["PixelData"].is_undefined_length = True


def save(dataset: Dataset, target: Path) -> None:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    target.write_bytes(buffer.getvalue())


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else Path(__file__).parents[1] / "examples")
