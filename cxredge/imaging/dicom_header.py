"""Attributes of a DICOM header, read so that no mistake in one of them stops the reading of a film."""

import re
from contextlib import suppress
from datetime import date, datetime
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from cxredge.imaging.dicom_file import DicomSource, raise_unless_content, uid_name
from cxredge.imaging.plane import Person

# A pixel more than five times as high as wide, or as wide as high, is a mistake in the header.
_MAX_ASPECT = 5.0
_ABSURD = 1e12
# A birth date that makes somebody older stands for "unknown".
_OLDEST = 115
# When a film was taken, the surest first.
_TAKEN = ("AcquisitionDate", "AcquisitionDateTime", "ContentDate", "SeriesDate", "StudyDate")


def tags_of(source: DicomSource) -> dict[str, str]:
    """What the file says of itself, by short names; what it leaves out is left out."""
    header = source.header
    tags = {
        "view": code_of(header, "ViewPosition") or _meaning_of(header, "ViewCodeSequence"),
        "modality": code_of(header, "Modality"),
        "body_part": code_of(header, "BodyPartExamined") or _meaning_of(header, "AnatomicRegionSequence"),
        "intent": code_of(header, "PresentationIntentType"),
        "laterality": code_of(header, "ImageLaterality") or code_of(header, "Laterality"),
        "patient_age": _age(header),
        "patient_sex": code_of(header, "PatientSex"),
        "photometric": code_of(header, "PhotometricInterpretation"),
        "transfer_syntax": uid_name(source.syntax),
        "sop_class": uid_name(value_of(header, "SOPClassUID")),
    }
    return {name: value for name, value in tags.items() if value}


def _meaning_of(header: Dataset, keyword: str) -> str:
    """What the first code of a sequence means (VR LO), in capitals; empty where there is none, or a text that is no term."""
    items = value_of(header, keyword)
    return _term_of(items[0], "CodeMeaning", r"[A-Z0-9_ -]{1,64}") if items else ""


def person_of(header: Dataset) -> Person:
    """Whose film it is. Kept out of `tags`, which reports may show."""
    said = [value_of(header, keyword) for keyword in ("PatientID", "PatientName", "PatientBirthDate")]
    return Person(*(text_of(value).strip() for value in said))


def text_of(value: Any) -> str:
    """A text as it stands in the file: pydicom takes a backslash, which numbers of patients may hold though they must not, for the
    end of one value and the beginning of another."""
    return "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value or "")


def pixel_aspect_of(header: Dataset) -> float:
    """Height of a pixel over its width (PS3.3 C.7.6.3.1.7, 10.7.1); 1 where the header does not say or errs."""
    for keyword in ("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing"):
        numbers = numbers_of(header, keyword)
        if len(numbers) == 2 and min(numbers) > 0:
            aspect = numbers[0] / numbers[1]
            return aspect if 1 / _MAX_ASPECT <= aspect <= _MAX_ASPECT else 1.0
    return 1.0


def _age(header: Dataset) -> str:
    """Patient's Age as AS wants it (034Y); what some writers give, bare years or `34 yrs`, is made that.

    Where there is none, from the birth date to the day of the film: many machines write that alone.
    """
    said = str(value_of(header, "PatientAge") or "").strip().upper()
    if match := re.fullmatch(r"0*(\d{1,3}) ?(?:([DWMY])(?:R|RS|EARS?|O|OS|ONTHS?|EEKS?|AYS?)?)?", said):
        return f"{int(match[1]):03d}{match[2] or 'Y'}"
    born = _date(header, "PatientBirthDate")
    taken = next(filter(None, (_date(header, keyword) for keyword in _TAKEN)), None)
    if born is None or taken is None or born > taken:
        return ""
    years = taken.year - born.year - ((taken.month, taken.day) < (born.month, born.day))
    if years > _OLDEST:
        return ""
    # Of an infant's age the first number says too little.
    return f"{years:03d}Y" if years else f"{(taken - born).days:03d}D"


def _date(header: Dataset, keyword: str) -> date | None:
    """A day (VR DA, PS3.5 6.2), also in the form of before 1993, or that of a DT; None where there is none."""
    digits = str(value_of(header, keyword) or "").strip()
    digits = digits[:8] if keyword.endswith("DateTime") else digits.replace(".", "")
    with suppress(ValueError):
        return datetime.strptime(digits, "%Y%m%d").date() if len(digits) == 8 else None
    return None


def code_of(header: Dataset, keyword: str) -> str:
    """A code string (VR CS); empty when it is missing or is no code, so that free text never travels."""
    return _term_of(header, keyword, r"[A-Z0-9_ ]{1,16}")


def _term_of(header: Dataset, keyword: str, form: str) -> str:
    text = str(value_of(header, keyword) or "").strip().upper()
    return text if re.fullmatch(form, text) else ""


def integer_of(header: Dataset, keyword: str, otherwise: int = 0) -> int:
    """A whole number; the other one where there is none."""
    value = value_of(header, keyword)
    return int(value) if isinstance(value, int) else otherwise


def numbers_of(header: Dataset, keyword: str) -> list[float]:
    """The numbers of an element; none when any of it is not a number, or one that nothing measured can have."""
    value = value_of(header, keyword)
    with suppress(TypeError, ValueError):
        several = np.iterable(value) and not isinstance(value, str)
        numbers = [float(number) for number in (value if several else [value])]
        return numbers if all(abs(number) < _ABSURD for number in numbers) else []
    return []


def value_of(header: Dataset, keyword: str) -> Any:
    """An element's value. pydicom converts it on first use and raises all manner of errors when it is malformed."""
    try:
        return header.get(keyword)
    except Exception as error:
        raise_unless_content(error)
        return None
