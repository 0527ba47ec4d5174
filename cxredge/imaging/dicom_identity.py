"""Whose film it is: what a report of a DICOM film must carry on, so that a PACS files it in the film's study."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

from pydicom import config, dcmread
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID

from cxredge.imaging.dicom_header import text_of
from cxredge.imaging.preprocess import SNIFF_BYTES, begins_as_dicom

_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
# Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1), as far as they identify.
_TEXTS = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "StudyDescription", "ReferringPhysicianName"),
)
# What a picture made from the film inherits (PS3.3 C.7.6.1): once lossy, always lossy, and a name in the pixels stays there.
_INHERITED = {"LossyImageCompression": "01", "BurnedInAnnotation": "YES"}
_FORMS = {
    "PatientSex": "[MFO]",
    "PatientBirthDate": r"\d{8}",
    "StudyDate": r"\d{8}",
    "StudyTime": r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?",
}
_OPTIONAL = ("IssuerOfPatientID", "StudyDescription")


def is_dicom(path: Path) -> bool:
    """Whether the file was read as DICOM, see `begins_as_dicom`. Raises OSError."""
    with path.open("rb") as file:
        return begins_as_dicom(path, file.read(SNIFF_BYTES))


def read_source(path: Path) -> Dataset:
    """Identifiers and identity of a DICOM film, in UTF-8; what is no date, time or sex is left empty. Whether its pixels were
    ever compressed with loss, or bear a name, comes along.

    Raises ValueError when it lacks an identifier to refer to, OSError, and whatever pydicom raises at a header that does
    not hold together.
    """
    # By force: a file without its preamble has been read as DICOM too.
    said = dcmread(
        path,
        stop_before_pixels=True,
        force=True,
        specific_tags=[Tag(keyword) for keyword in (*_UIDS, *_TEXTS, *_INHERITED)],
    )
    source = Dataset()
    for keyword in _UIDS:
        identifier = UID(str(said.get(keyword) or ""))
        if not identifier.is_valid:
            raise ValueError(f"{keyword} is missing or no UID")
        setattr(source, keyword, identifier)
    source.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _TEXTS:
        text = text_of(said.get(keyword))
        if not re.fullmatch(_FORMS.get(keyword, ".*"), text, re.DOTALL):
            text = ""
        if text or keyword not in _OPTIONAL:
            setattr(source, keyword, text)
    for keyword, value in _INHERITED.items():
        if said.get(keyword) == value:
            setattr(source, keyword, value)
    return source


def derived_uid(*what: str) -> str:
    """A UID (PS3.5 B.2) that is the same whenever it stands for the same thing: a second run makes no second report."""
    return f"2.25.{uuid5(NAMESPACE_OID, chr(0).join(what)).int}"


@contextmanager
def silent() -> Iterator[None]:
    """Inside it pydicom and highdicom neither check nor warn of what they read: their warnings quote patients' names."""
    settings = config.settings
    before = settings.reading_validation_mode, settings.writing_validation_mode
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings.reading_validation_mode = settings.writing_validation_mode = config.IGNORE
        try:
            yield
        finally:
            settings.reading_validation_mode, settings.writing_validation_mode = before
