"""What dicom-validator checks against, from the tables of the standard that highdicom carries.

dicom-validator downloads the standard's DocBook; tests run offline. These tables hold types (1, 1C, 2, ...) and
structure, not the conditions in prose: a 1C attribute may be absent or present.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from dicom_validator.validator.dicom_info import DicomInfo
from dicom_validator.validator.iod_validator import IODValidator
from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import Tag

_ITEMS = "content items"
# What a content item of each value type must have, and others must not (PS3.3 C.17.3, macros included by value type).
_BY_VALUE_TYPE = {
    "ReferencedSOPSequence": ("COMPOSITE", "IMAGE", "WAVEFORM"),
    "TemporalRangeType": ("TCOORD",),
    "ConceptCodeSequence": ("CODE",),
    "MeasuredValueSequence": ("NUM",),
    "GraphicData": ("SCOORD", "SCOORD3D"),
    "GraphicType": ("SCOORD", "SCOORD3D"),
    "ReferencedFrameOfReferenceUID": ("SCOORD3D",),
    "TabulatedValuesSequence": ("TABLE",),
    "ContinuityOfContent": ("CONTAINER",),
    "TextValue": ("TEXT",),
    "UID": ("UIDREF",),
    "PersonName": ("PNAME",),
}


def mistakes(dataset: Dataset) -> list[str]:
    """Every attribute that is missing, empty, unexpected or of a value its type does not allow."""
    said: list[str] = []

    class Quiet:
        def handle_validation_start(self, result: Any) -> None: ...

        def handle_validation_result(self, result: Any) -> None: ...

    result = IODValidator(dataset, _tables(), error_handler=Quiet()).validate()
    if result.errors and not result.module_errors:
        said.append(str(result.status))
    for module, errors in result.module_errors.items():
        said += [f"{module}: {tag} {error.code}" for tag, error in errors.items()]
    return said


@cache
def _tables() -> DicomInfo:
    folder = files("highdicom") / "_standard"
    iods, attributes, classes = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("iod_module_map", "module_attribute_map", "sop_class_iod_map")
    )
    wanted = {uid: iods[iod] for uid, iod in classes.items() if iod in ("comprehensive-sr", "secondary-capture-image")}
    modules = {module["key"]: _tree(attributes[module["key"]]) for iod in wanted.values() for module in iod}
    # Content items hold content items (PS3.3 C.17.3), to any depth; the table unfolds one level.
    content = modules["sr-document-content"]["(0040,A730)"]
    for level in (modules["sr-document-content"], content["items"]):
        for keyword, values in _BY_VALUE_TYPE.items():
            if attribute := level.get(_tag(keyword)):
                asked = {"type": "MN", "tag": _tag("ValueType"), "index": 0, "op": "=", "values": list(values)}
                attribute |= {"type": "1C", "cond": asked}
    modules[_ITEMS] = content["items"] | {"(0040,A730)": content}
    content["items"] = {"include": [{"ref": _ITEMS}]}
    return DicomInfo(
        {},
        {
            uid: {
                "title": uid,
                "modules": {module["key"]: {"ref": module["key"], "use": module["usage"]} for module in iod},
                "group_macros": {},
            }
            for uid, iod in wanted.items()
        },
        modules,
    )


def _tree(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows of keyword, type and path as dicom-validator's nested attributes."""
    root: dict[str, Any] = {}
    # Repeating groups (overlays) have no tag of their own; no file of ours has any.
    known = [row for row in rows if all(tag_for_keyword(keyword) for keyword in (*row["path"], row["keyword"]))]
    for row in sorted(known, key=lambda row: len(row["path"])):
        at = root
        for keyword in row["path"]:
            at = at[_tag(keyword)].setdefault("items", {})
        kind = {"type": row["type"]} | ({"cond": {"type": "U"}} if row["type"].endswith("C") else {})
        at.setdefault(_tag(row["keyword"]), {"name": dictionary_description(_number(row["keyword"])), **kind})
    return root


def _number(keyword: str) -> int:
    number = tag_for_keyword(keyword)
    assert number is not None, keyword
    return number


def _tag(keyword: str) -> str:
    tag = Tag(_number(keyword))
    return f"({tag.group:04X},{tag.element:04X})"
