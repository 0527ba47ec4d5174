"""A labels table, matched to the films of a run: how well did the model do on these very films?"""

import csv
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np

from cxredge.bundle.manifest import Manifest
from cxredge.errors import LabelsError
from cxredge.metrics import at_threshold, auroc_interval
from cxredge.report.tables import unguard
from cxredge.scan.reading import Reading, Status
from cxredge.scan.summary import LabelledFinding

# What a copy of a film is stored under. The last number of a UID, as many archives name their files, is no suffix.
_SUFFIXES = {
    *(".dcm", ".dic", ".dicom", ".ima"),
    *(".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"),
}


# What is matched to the films: a row, whatever it holds.
Row = TypeVar("Row")


@dataclass(frozen=True)
class Labels:
    """A row of the table. values: in the order of the model's findings, nan where the table says nothing. patient: as the column
    `patient` says, "" without."""

    values: list[float]
    patient: str = ""


def read_labels(table: Path, findings: tuple[str, ...]) -> dict[str, Labels]:
    """`file` column -> its row.

    Raises LabelsError, naming the line, for a table without `file` or without any of the findings, one that says nothing of any
    film, or holds a column twice or under a name that is nearly a finding's; for a row with more or fewer cells than the first, a
    quotation mark that is not closed, a value other than 0, 1 or empty, and a file named twice.
    """
    columns, rows = _read(table)
    if twice := [column for column, count in Counter(columns).items() if count > 1 and column]:
        raise LabelsError(f"{table}: holds the column {twice[0]} twice")
    for column, finding in slips(columns, findings).items():
        raise LabelsError(f"{table}: the column {column!r} is called {finding} in this model")
    if "file" not in columns or not set(columns) & set(findings):
        raise LabelsError(
            f"{table}: needs a column `file` and at least one of the model's findings: {', '.join(findings)};"
            f" found: {', '.join(columns)}"
        )
    labels: dict[str, Labels] = {}
    for number, row in rows:
        name = (row["file"] or "").strip()
        if not name:
            raise LabelsError(f"{table}, line {number}: names no file")
        if None in row.values() or any(map(str.strip, row.get(None, ()))):
            raise LabelsError(f"{table}, line {number}: not as many cells as in the first line; which of them count?")
        if name in labels:
            raise LabelsError(f"{table}, line {number}: {name} stands there twice")
        values = [_value(row.get(finding), table, number, finding) for finding in findings]
        labels[name] = Labels(values, row.get("patient", "").strip())
    if all(math.isnan(value) for row in labels.values() for value in row.values):
        raise LabelsError(f"{table}: says nothing of any film; 1 is with the finding, 0 without, empty unknown")
    return labels


def slips(columns: Iterable[str], findings: Sequence[str]) -> dict[str, str]:
    """Columns that are nearly called as a finding is: in another case, with other spaces or dashes. Column -> finding."""
    alike = {_plain(finding): finding for finding in findings}
    return {column: alike[_plain(column)] for column in columns if column not in findings and _plain(column) in alike}


def _plain(column: str) -> str:
    return re.sub(r"[\W_]+", "", column).lower()


def _read(table: Path) -> tuple[list[str], list[tuple[int, dict[Any, Any]]]]:
    """Columns, and every row by column with the number of the line that it ends in: None for a cell that is missing, and under
    None what goes beyond the columns."""
    number = 1
    try:
        with table.open(newline="", encoding="utf-8-sig") as text:
            first = text.readline()
            # A spreadsheet separates by semicolons where its user's country writes 0,5.
            delimiter = ";" if first.count(";") > first.count(",") else ","
            # Strict: a quotation mark that is not closed would swallow the films after it.
            lines = csv.DictReader(chain([first], text), delimiter=delimiter, strict=True)
            columns, rows = list(lines.fieldnames or []), []
            for row in lines:
                number = lines.line_num
                rows.append((number, row))
    except csv.Error as error:
        raise LabelsError(f"{table}, after line {number}: cannot be read as a table ({error})") from None
    except UnicodeDecodeError as error:
        raise LabelsError(f"{table}: cannot be read as UTF-8 text ({error}); save it as 'CSV UTF-8'") from None
    except OSError as error:
        raise LabelsError(f"{table}: cannot be read ({error.strerror or error})") from None
    return columns, rows


def _value(text: str | None, table: Path, number: int, finding: str) -> float:
    value = {"": float("nan"), "0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0}.get((text or "").strip())
    if value is None:
        raise LabelsError(f"{table}, line {number}, {finding}: {text!r} is neither 0, 1 nor empty")
    return value


def match(labels: dict[str, Row], files: Sequence[str]) -> dict[str, Row]:
    """Row per film of the run: by the whole name, else by as much of the path as both give, else without the suffix, where one
    film alone can be meant.

    Raises LabelsError when not a single film is found.
    """
    matched, used = {file: labels[file] for file in files if file in labels}, set(files) & set(labels)
    for without_suffix in (False, True):
        # By the last part, which both have, so that each is held against few.
        rows, films = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
        for name in labels:
            if name not in used:
                rows[_parts(_as_path(name), without_suffix)[-1]].append(name)
        for file in files:
            if file not in matched:
                films[_parts(file, without_suffix)[-1]].append(file)
        for last in rows.keys() & films.keys():
            pairs = [
                (name, file)
                for name in rows[last]
                for file in films[last]
                if _agree(_parts(_as_path(name), without_suffix), _parts(file, without_suffix))
            ]
            of_row, of_film = Counter(name for name, _ in pairs), Counter(file for _, file in pairs)
            for name, file in pairs:
                if of_row[name] == of_film[file] == 1:
                    matched[file] = labels[name]
                    used.add(name)
    if not matched:
        raise LabelsError(
            f"none of the {len(labels)} films in the labels table is among the {len(files)} films of this run"
        )
    return matched


def _as_path(name: str) -> str:
    """A file as a table calls it: one of `results.csv`, or of Windows."""
    return unguard(name).replace("\\", "/")


def _parts(name: str, without_suffix: bool) -> tuple[str, ...]:
    path = PurePosixPath(name)
    bare = without_suffix and path.suffix.lower() in _SUFFIXES
    return (path.with_suffix("") if bare else path).parts or ("",)


def _agree(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether two paths may be one, seen from different folders."""
    common = min(len(one), len(other))
    return one[-common:] == other[-common:]


def judge(
    readings: Iterable[Reading], labels: dict[str, Labels], manifest: Manifest
) -> tuple[tuple[LabelledFinding, ...], int]:
    """AUROC, sensitivity and specificity of this run, per finding that the table labels, and how many labelled films have a score.

    labels: as `match` returns. A patient's films are counted together.
    """
    told, said, whose = [], [], []
    for reading in readings:
        if reading.status is Status.OK and reading.file in labels:
            told.append(labels[reading.file].values)
            said.append([reading.probabilities[name] for name in manifest.names])
            # A picture that names nobody may be anybody's, unless the table knows.
            whose.append(labels[reading.file].patient or reading.patient or reading.file)
    shape = len(told), len(manifest.names)
    truth, scored = (np.array(values, np.float64).reshape(shape) for values in (told, said))
    rows = []
    for column, finding in enumerate(manifest.findings):
        known, scores = truth[:, column], scored[:, column]
        if np.isnan(known).all():
            continue
        positives, negatives = int((known == 1).sum()), int((known == 0).sum())
        if positives and negatives:
            area = auroc_interval(known, scores, np.array(whose))
            point = at_threshold(known, scores, finding.balanced.threshold, np.array(whose))
            rows.append(LabelledFinding(finding.name, positives, negatives, area, point))
        else:
            rows.append(LabelledFinding(finding.name, positives, negatives, None, None))
    return tuple(rows), len(told)
