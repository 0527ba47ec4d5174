"""A film under one heat map as a DICOM Secondary Capture."""

from pathlib import Path

from highdicom.sc import SCImage
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import RLELossless

from cxredge import __version__
from cxredge.bundle.manifest import Finding, Manifest
from cxredge.imaging.capture import capture
from cxredge.imaging.dicom_identity import derived_uid
from cxredge.report.dicom_sr import NOTICE
from cxredge.report.heat_maps import score_of
from cxredge.scan.reading import Reading


def secondary_capture(
    path: Path, source: Dataset, overlay: bytes, finding: Finding, reading: Reading, manifest: Manifest, *, uid: str
) -> SCImage:
    """The film at `path`, at its own proportions, under the heat map of one finding, with scale and notice below it.

    overlay: PNG, as `heat_maps` gives it. Raises FilmRefusedError or OSError when the film cannot be read any more.
    """
    model_sha256 = reading.model_sha256
    said = [
        f"{finding.name.replace('_', ' ')}: {score_of(reading, finding)}",
        "Each colour holds a quarter of the evidence, not of the disease.",
        f"{manifest.name} {manifest.version}, {model_sha256[:12]}. {NOTICE}.",
    ]
    image = SCImage.from_ref_dataset(
        ref_dataset=source,
        pixel_array=capture(path, overlay, said),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # highdicom wants one; taken away below, since films seldom say
        series_instance_uid=derived_uid("series", uid),
        series_number=9102,
        sop_instance_uid=uid,
        instance_number=1,
        manufacturer="cxredge",
        manufacturer_model_name=manifest.name,
        software_versions=__version__,
        device_serial_number=model_sha256[:16],
        series_description=f"cxredge heat map. {NOTICE}",
        transfer_syntax_uid=RLELossless,
    )
    for unknown in ("PatientOrientation", "Laterality"):
        setattr(image, unknown, None)
    for keyword in ("LossyImageCompression", "BurnedInAnnotation"):
        if keyword in source:
            setattr(image, keyword, source[keyword].value)
    image.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    image.DerivationDescription = f"Evidence of {manifest.name} {manifest.version} for {finding.name} over the film"
    image.SourceImageSequence = [_refer(source)]
    return image


def _refer(source: Dataset) -> Dataset:
    reference, purpose = Dataset(), Dataset()
    code = Code("121322", "DCM", "Source image for image processing operation")
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = (
        code.value,
        code.scheme_designator,
        code.meaning,
    )
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    reference.PurposeOfReferenceCodeSequence = [purpose]
    return reference
