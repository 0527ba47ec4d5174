"""What a data set says of a film besides its findings: the patient's sex and age, the view, and boxes drawn by radiologists."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxredge.errors import DataError
from cxredge.train.chexpert import SPLITS as CHEXPERT_TABLES
from cxredge.train.chexpert import chexpert_rows
from cxredge.train.labels import name_in, read_rows
from cxredge.train.rows import read_cells
from cxredge.train.sources import CHESTXRAY14, Films, data_entry_rows, name_of

# BBox_List_2017.csv gives its boxes in the published 1024 x 1024 frame and shortens one finding's name.
BOX_FRAME = 1024
_BOX_NAMES = {"Infiltrate": "Infiltration"}
# Whole words only: `mujer` and `missing` begin as `male` does.
_SEXES = {"f": "F", "female": "F", "m": "M", "male": "M"}
# Units of an age in DICOM (value representation AS): how many make a year.
_TO_A_YEAR = {"Y": 1, "M": 12, "W": 52.18, "D": 365.25}
_NUMBER = re.compile(r"[0-9]+\.?[0-9]*|\.[0-9]+")
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
    """Sex, age and view of the films, from the tables of their data sets (ChestX-ray14, CheXpert or a labels table).

    A sex in other words than F, M, female or male counts as not stated. Raises DataError for a table that cannot be read.
    """
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for folder in folders:
        if folder.is_dir():
            rows |= {("", _key(Path(name))): row for name, row in _published(folder)}
        else:
            # A labels table is a source of its own, whose folders may hold films of like names.
            rows |= {(folder.stem, name_in(row)): row for _, row in read_rows(folder)}
    said = [
        rows.get((source, name)) or rows.get(("", _key(file)), {})
        for source, name, file in zip(films.sources.tolist(), films.names, films.files, strict=True)
    ]
    return Facts(
        np.array([_SEXES.get(_first(row, "Patient Gender", "Sex", "sex").lower(), "") for row in said], "U1"),
        np.array([_years(_first(row, "Patient Age", "Age", "age")) for row in said]),
        np.array([_first(row, "View Position", "AP/PA", "view").upper() for row in said], "U8"),
    )


def _published(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Film and row of the tables that `list_source` takes a folder's films from."""
    if entries := sorted(folder.glob("Data_Entry_2017*.csv")):
        yield from ((row["Image Index"], row) for _, row in data_entry_rows(entries[-1]))
    elif not (folder / "train" / "NORMAL").is_dir():
        for table in CHEXPERT_TABLES:
            yield from ((row["Path"], row) for _, row in chexpert_rows(folder / table))


def _key(file: Path) -> str:
    """A film by its name without the suffix, which a re-encoded copy changes."""
    return name_of(file).removesuffix(file.suffix)


def _first(row: dict[str, str], *columns: str) -> str:
    return next((row[column] for column in columns if row.get(column)), "")


def read_boxes(folders: Sequence[Path]) -> dict[str, dict[str, list[Box]]]:
    """Stem of a film -> finding -> its boxes, from `BBox_List_2017.csv` where a data set has one.

    Raises DataError naming the line that gives no box.
    """
    boxes: dict[str, dict[str, list[Box]]] = {}
    for table in (folder / "BBox_List_2017.csv" for folder in folders):
        if not table.is_file():
            continue
        for number, cells in read_cells(table)[1:]:
            try:
                name, said, left, top, width, height = cells[:6]
                box = Box(*(float(side) / BOX_FRAME for side in (left, top, width, height)))
            except ValueError:
                raise DataError(
                    f"{table}, line {number}: not a film, a finding and the four numbers of its box"
                ) from None
            if (finding := _BOX_NAMES.get(said, said)) in CHESTXRAY14:
                boxes.setdefault(Path(name).stem, {}).setdefault(finding, []).append(box)
    return boxes


def _years(text: str) -> float:
    """Whole years of `57`, `057Y` (DICOM's and the first publication's form), `018M`, `003W` or `012D`, or nan."""
    text = text.strip().upper().replace(",", ".")
    number = text[:-1] if text[-1:] in _TO_A_YEAR else text
    if not _NUMBER.fullmatch(number):
        return float("nan")
    years = float(number) // _TO_A_YEAR[text[-1]] if number != text else float(number)
    # The publication holds ages of 400 and more: typing errors, so unknown.
    return years if years <= 120 else float("nan")
