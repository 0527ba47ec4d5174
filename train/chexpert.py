"""CheXpert (Irvin et al., AAAI 2019) as it is published: `train.csv`, `valid.csv`, and `patient00001/study1/view1_frontal.jpg`."""

import csv
import math
from pathlib import Path, PurePosixPath
from typing import get_args

from cxredge.errors import DataError
from cxredge.train.sources import PICTURES, Listing, Uncertain, made_films

# train.csv was labelled from the reports by a program; valid.csv (200 studies) and test.csv (500, published later) by
# radiologists from the films. So both of the latter are test films; validation is carved from train.csv by patient.
SPLITS = {"train.csv": "train", "valid.csv": "test", "test.csv": "test"}
# Column -> finding. Where it means the same as in ChestX-ray14 it has that name, so that both can train one output. `Lung
# Lesion` is ChestX-ray14's Mass or Nodule and `Pleural Other` more than its Pleural_Thickening, so they stay apart. `No Finding`
# says nothing that the others do not.
FINDINGS = {
    "Enlarged Cardiomediastinum": "Enlarged_Cardiomediastinum",
    "Cardiomegaly": "Cardiomegaly",
    "Lung Opacity": "Lung_Opacity",
    "Lung Lesion": "Lung_Lesion",
    "Edema": "Edema",
    "Consolidation": "Consolidation",
    "Pneumonia": "Pneumonia",
    "Atelectasis": "Atelectasis",
    "Pneumothorax": "Pneumothorax",
    "Pleural Effusion": "Effusion",
    "Pleural Other": "Pleural_Other",
    "Fracture": "Fracture",
    "Support Devices": "Support_Devices",
}
_UNCERTAIN = {"ignore": math.nan, "zeros": 0.0, "ones": 1.0}


def is_chexpert(folder: Path) -> bool:
    """Whether the folder holds one of CheXpert's tables."""
    return any((folder / table).is_file() for table in SPLITS)


def list_chexpert(folder: Path, *, uncertain: Uncertain = "ignore") -> Listing:
    """The frontal films of CheXpert-v1.0 or CheXpert-v1.0-small; lateral ones are left out.

    uncertain: what -1 becomes: `ignore` masks it (nan; Irvin et al.'s U-Ignore), `zeros` and `ones` are their U-Zeros and U-Ones.
    An empty cell means that the report does not mention the finding. It is read as absent (0), as Irvin et al. trained and as
    ChestX-ray14's labels were mined: with those cells masked, hardly a film without the finding would be left to learn from.
    A re-encoded copy of a film (`view1_frontal.png`) is found by its stem. Raises DataError naming the table and line.
    """
    if uncertain not in get_args(Uncertain):
        raise DataError(f"uncertain={uncertain!r} is not one of {', '.join(get_args(Uncertain))}")
    meaning = {"": 0.0, "0": 0.0, "0.0": 0.0, "1": 1.0, "1.0": 1.0}
    meaning |= dict.fromkeys(("-1", "-1.0"), _UNCERTAIN[uncertain])
    files, patients, splits, labels, missing, laterals = [], [], [], [], [], 0
    for table, split in SPLITS.items():
        for number, row in _rows(folder / table):
            where = PurePosixPath(row["Path"])
            at = next((i for i, part in enumerate(where.parts) if part.startswith("patient")), None)
            if at is None:
                raise DataError(
                    f"{folder / table}, line {number}: {row['Path']} names no patient (.../patient00001/study1/...)"
                )
            if row.get("Frontal/Lateral") == "Lateral" or "lateral" in where.stem:
                laterals += 1
                continue
            # The path begins with the name the folder was published under; here it may have another.
            file = _found(folder.joinpath(table.removesuffix(".csv"), *where.parts[at:]))
            if file is None:
                missing.append(row["Path"])
                continue
            # A column that a table does not have is unknown there, unlike an empty cell.
            said = {column: (row.get(column) or "").strip() if column in row else "?" for column in FINDINGS}
            if wrong := [f"{column}: {text!r}" for column, text in said.items() if text not in meaning and text != "?"]:
                raise DataError(f"{folder / table}, line {number}, {wrong[0]} is neither 1, 0, -1 nor empty")
            files.append(file)
            patients.append(where.parts[at])
            splits.append(split)
            labels.append([meaning.get(text, math.nan) for text in said.values()])
    films = made_films("chexpert", folder, files, patients, splits, tuple(FINDINGS.values()), labels)
    return Listing(films, tuple(missing), left_out=(("lateral films", laterals),) if laterals else ())


def _rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    """Line number and row; none where the data set comes without that table."""
    if not table.is_file():
        return []
    with table.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines)
        if "Path" not in (reader.fieldnames or ()):
            raise DataError(
                f"{table}: not CheXpert's table: it has no column `Path`; a labels table is given as a .csv"
            )
        return list(enumerate(reader, start=2))


def _found(file: Path) -> Path | None:
    if file.is_file():
        return file
    return next((copy for copy in sorted(file.parent.glob(f"{file.stem}.*")) if copy.suffix.lower() in PICTURES), None)
