"""CheXpert (Irvin et al., AAAI 2019) as it is published: `train.csv`, `valid.csv`, and `patient00001/study1/view1_frontal.jpg`."""

import math
from pathlib import Path, PurePosixPath
from typing import get_args

from cxredge.errors import DataError
from cxredge.train.rows import rows_by_column
from cxredge.train.sources import Listing, Uncertain, is_picture, made_films

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
    stands: dict[Path, str] = {}
    contradictions = []
    for table, split in SPLITS.items():
        for number, row in chexpert_rows(folder / table):
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
            published = folder.joinpath(table.removesuffix(".csv"), *where.parts[at:])
            file = _found(published)
            line = f"line {number} of {table}"
            if (first := stands.setdefault(file or published, line)) != line:
                contradictions.append(f"{row['Path']} stands in {first} and again in {line}")
                continue
            if file is None:
                missing.append(row["Path"])
                continue
            # A column that a table does not have is unknown there, unlike an empty cell.
            said = {column: row.get(column, "?") for column in FINDINGS}
            if wrong := [f"{column}: {text!r}" for column, text in said.items() if text not in meaning and text != "?"]:
                raise DataError(f"{folder / table}, line {number}, {wrong[0]} is neither 1, 0, -1 nor empty")
            files.append(file)
            patients.append(where.parts[at])
            splits.append(split)
            labels.append([meaning.get(text, math.nan) for text in said.values()])
    films = made_films("chexpert", folder, files, patients, splits, tuple(FINDINGS.values()), labels)
    left_out = (("lateral films", laterals),) if laterals else ()
    return Listing(films, tuple(missing), tuple(contradictions), left_out)


def chexpert_rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    """Line number and cells of one of CheXpert's tables, by column; none where the data set comes without that table.

    Raises DataError for a table with none of the findings, and the errors of `rows_by_column`.
    """
    if not table.is_file():
        return []
    facts = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")
    rows = rows_by_column(table, (*facts, *FINDINGS), needs=("Path",))
    if rows and not set(FINDINGS) & set(rows[0][1]):
        raise DataError(
            f"{table}: not CheXpert's table: none of its columns is a finding; found: {', '.join(rows[0][1])}"
        )
    return rows


def _found(file: Path) -> Path | None:
    if file.is_file():
        return file
    return next((copy for copy in sorted(file.parent.glob(f"{file.stem}.*")) if is_picture(copy)), None)
