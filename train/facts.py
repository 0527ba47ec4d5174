"""What a data set says of a film besides its findings: the patient's sex and age, the view, and boxes drawn by radiologists."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxredge.train.chexpert import SPLITS as CHEXPERT_TABLES
from cxredge.train.labels import name_in, read_rows
from cxredge.train.sources import CHESTXRAY14, Films, name_of

# BBox_List_2017.csv gives its boxes in the published 1024 x 1024 frame and shortens one finding's name.
BOX_FRAME = 1024
_BOX_NAMES = {"Infiltrate": "Infiltration"}
# Upper ends of the age bands, in years.
AGE_BANDS = (("0-17", 17), ("18-39", 39), ("40-64", 64), ("65 and over", 200))


@dataclass(frozen=True)
class Facts:
    """Per film of N: sex ("F", "M" or "", [N]), age in years (float [N], nan where unknown), view ("PA", "AP" or "", [N])."""

    sex: NDArray[np.str_]
    age: NDArray[np.float64]
    view: NDArray[np.str_]

    @property
    def groups(self) -> dict[str, dict[str, NDArray[np.bool_]]]:
        """Axis -> group -> which films belong to it; films of unknown sex, age or view belong to none."""
        bands = {}
        low = 0
        for name, high in AGE_BANDS:
            # Whole years, as people count them: somebody is 17 until the 18th birthday.
            bands[name] = (self.age >= low) & (self.age < high + 1)
            low = high + 1
        return {
            "sex": {"female": self.sex == "F", "male": self.sex == "M"},
            "age": bands,
            "view": {"PA": self.view == "PA", "AP": self.view == "AP"},
        }


@dataclass(frozen=True)
class Box:
    """Where a finding lies, as fractions of the film's width and height."""

    left: float
    top: float
    width: float
    height: float

    def holds(self, x: float, y: float) -> bool:
        """Whether a point, in the same fractions, lies inside."""
        return self.left <= x <= self.left + self.width and self.top <= y <= self.top + self.height


def read_facts(folders: Sequence[Path], films: Films) -> Facts:
    """Sex, age and view of the films, from the tables of their data sets (ChestX-ray14, CheXpert or a labels table)."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for folder in folders:
        if folder.is_dir():
            for table in _tables(folder):
                with table.open(newline="", encoding="utf-8-sig") as lines:
                    for row in csv.DictReader(lines):
                        rows["", _key(Path(row.get("Image Index") or row["Path"]))] = row
        else:
            # A labels table is a source of its own, whose folders may hold films of like names.
            rows |= {(folder.stem, name_in(row)): row for _, row in read_rows(folder)}
    said = [
        rows.get((source, name)) or rows.get(("", _key(file)), {})
        for source, name, file in zip(films.sources.tolist(), films.names, films.files, strict=True)
    ]
    return Facts(
        np.array([_first(row, "Patient Gender", "Sex", "sex").upper()[:1] for row in said], "U1"),
        np.array([_years(_first(row, "Patient Age", "Age", "age")) for row in said]),
        np.array([_first(row, "View Position", "AP/PA", "view").upper() for row in said], "U8"),
    )


def _tables(folder: Path) -> list[Path]:
    return [
        *sorted(folder.glob("Data_Entry_2017*.csv")),
        *(folder / t for t in CHEXPERT_TABLES if (folder / t).is_file()),
    ]


def _key(file: Path) -> str:
    """A film by its name without the suffix, which a re-encoded copy changes."""
    return name_of(file).removesuffix(file.suffix)


def _first(row: dict[str, str], *columns: str) -> str:
    return next((row[column].strip() for column in columns if row.get(column)), "")


def read_boxes(folders: Sequence[Path]) -> dict[str, dict[str, list[Box]]]:
    """Stem of a film -> finding -> its boxes, from `BBox_List_2017.csv` where a data set has one."""
    boxes: dict[str, dict[str, list[Box]]] = {}
    for table in (folder / "BBox_List_2017.csv" for folder in folders):
        if not table.is_file():
            continue
        with table.open(newline="", encoding="utf-8-sig") as lines:
            for row in list(csv.reader(lines))[1:]:
                finding = _BOX_NAMES.get(row[1], row[1])
                if finding in CHESTXRAY14:
                    box = Box(*(float(value) / BOX_FRAME for value in row[2:6]))
                    boxes.setdefault(Path(row[0]).stem, {}).setdefault(finding, []).append(box)
    return boxes


def _years(text: str) -> float:
    """`57`, `057Y` (DICOM's and the first publication's form), or nan. Months and days count as no whole year."""
    text = text.strip().upper()
    number = text.rstrip("YMWD")
    if not number.replace(".", "", 1).isdigit():
        return float("nan")
    years = 0.0 if text[-1:] in "MWD" else float(number)
    # The publication holds ages of 400 and more: typing errors, so unknown.
    return years if years <= 120 else float("nan")
