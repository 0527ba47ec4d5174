"""A labels table, matched to the films of a run: how well did the model do on these very films?"""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from cxredge.bundle.manifest import Manifest
from cxredge.errors import LabelsError
from cxredge.metrics import at_threshold, auroc_interval
from cxredge.scan.reading import Reading, Status
from cxredge.scan.summary import LabelledFinding


def read_labels(table: Path, findings: tuple[str, ...]) -> dict[str, list[float]]:
    """`file` column -> labels in the order of `findings`, nan where the table says nothing.

    Raises LabelsError, naming the line, for a table without `file` or without any of the findings, for a value other
    than 0, 1 or empty, and for a file named twice.
    """
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LabelsError(f"{table}: cannot be read as UTF-8 text ({error})") from None
    lines = csv.DictReader(text.splitlines())
    columns = lines.fieldnames or []
    if "file" not in columns or not set(columns) & set(findings):
        raise LabelsError(
            f"{table}: needs a column `file` and at least one of the model's findings: {', '.join(findings)};"
            f" found: {', '.join(columns)}"
        )
    labels: dict[str, list[float]] = {}
    for number, row in enumerate(_rows(lines, table), start=2):
        name = (row["file"] or "").strip().replace("\\", "/")
        if not name:
            raise LabelsError(f"{table}, line {number}: names no file")
        if name in labels:
            raise LabelsError(f"{table}, line {number}: {name} stands there twice")
        labels[name] = [_value(row.get(finding), table, number, finding) for finding in findings]
    return labels


def _rows(lines: "csv.DictReader[str]", table: Path) -> Iterator[dict[str, str]]:
    try:
        yield from lines
    except csv.Error as error:
        raise LabelsError(f"{table}, line {lines.line_num}: cannot be read as a table ({error})") from None


def _value(text: str | None, table: Path, number: int, finding: str) -> float:
    value = {"": float("nan"), "0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0}.get((text or "").strip())
    if value is None:
        raise LabelsError(f"{table}, line {number}, {finding}: {text!r} is neither 0, 1 nor empty")
    return value


def match(labels: dict[str, list[float]], files: Sequence[str]) -> dict[str, list[float]]:
    """Labels per film of the run: by the whole name, else by the file name, else by its stem, where that is unique.

    Raises LabelsError when not a single film is found.
    """
    matched = {}
    for key in (str, lambda name: PurePosixPath(name).name, lambda name: PurePosixPath(name).stem):
        in_table, in_run = Counter(map(key, labels)), Counter(map(key, files))
        by_key = {key(name): row for name, row in labels.items() if in_table[key(name)] == 1}
        for file in files:
            if file not in matched and in_run[key(file)] == 1 and key(file) in by_key:
                matched[file] = by_key[key(file)]
    if not matched:
        raise LabelsError(
            f"none of the {len(labels)} films in the labels table is among the {len(files)} films of this run"
        )
    return matched


def judge(
    readings: Iterable[Reading], labels: dict[str, list[float]], manifest: Manifest
) -> tuple[LabelledFinding, ...]:
    """AUROC, sensitivity and specificity of this run, per finding that the table labels. labels: as `match` returns."""
    told, said, whose = [], [], []
    for reading in readings:
        if reading.status is Status.OK and reading.file in labels:
            told.append(labels[reading.file])
            said.append([reading.probabilities[name] for name in manifest.names])
            # A picture that names nobody may be anybody's.
            whose.append(reading.patient or reading.file)
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
    return tuple(rows)
