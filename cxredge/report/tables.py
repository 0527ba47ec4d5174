"""`results.csv`, `results.json` and `summary.json`: the run for spreadsheets and programs."""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from cxredge.report.files import atomic_write
from cxredge.scan.reading import Reading, Status
from cxredge.scan.summary import Summary

Add = Callable[[Reading], None]
# A spreadsheet takes a cell that begins so for a formula (OWASP, CSV injection); full-width forms included.
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
# Where a spreadsheet that splits at semicolons (in much of Europe) or tabs begins another cell or line in a text.
_SPLIT = r"(?:;|(?!\A)[\t\r\n])"
_RISKY = re.compile(rf"""{_SPLIT}(?='|[ "]*[{re.escape("".join(_FORMULA))}])""")
_GUARDED = re.compile(rf"({_SPLIT})'")


def columns(findings: tuple[str, ...], *, with_patients: bool = False) -> list[str]:
    """The header of `results.csv`. findings: in the model's order. with_patients: patients' numbers and names too."""
    return [
        "file",
        "status",
        "reason",
        "priority",
        "top_finding",
        *(f"p_{finding}" for finding in findings),
        *(f"flag_{finding}" for finding in findings),
        "view",
        "decode_ms",
        "infer_ms",
        "model_sha256",
        "patient",
        "note",
        *(("patient_id", "patient_name") if with_patients else ()),
    ]


def guard(text: str) -> str:
    """Text as a cell that no spreadsheet runs as a formula: an apostrophe in front of what could be one.

    That is at the beginning, and where some spreadsheets split a cell. An apostrophe there gets one too, so that
    `unguard` gives back every text as it was.
    """
    text = _RISKY.sub(r"\g<0>'", text)
    return f"'{text}" if text.startswith("'") or text.lstrip(" ").startswith(_FORMULA) else text


def unguard(cell: str) -> str:
    """The text that `guard` was given."""
    return _GUARDED.sub(r"\1", cell.removeprefix("'"))


def write_csv(
    path: Path, readings: Iterable[Reading], findings: tuple[str, ...], *, with_patients: bool = False
) -> None:
    """A whole `results.csv`, see `csv_table`. Readings are taken one by one. Raises OutputError."""
    with csv_table(path, findings, with_patients=with_patients) as add:
        for reading in readings:
            add(reading)


@contextmanager
def csv_table(path: Path, findings: tuple[str, ...], *, with_patients: bool = False) -> Iterator[Add]:
    """A function that adds one film's row: RFC 4180, UTF-8, `guard` on every text of foreign origin.

    Probabilities have four decimals, flags are 0 or 1, times are milliseconds; a film without a score has empty
    cells there. The table takes its place when the block ends well. Raises OutputError.
    """
    with atomic_write(path) as file:
        table = csv.writer(file)
        table.writerow(columns(findings, with_patients=with_patients))

        def add(reading: Reading) -> None:
            who = [guard(reading.patient_id), guard(reading.patient_name)] if with_patients else []
            table.writerow(_row(reading, findings) + who)

        yield add


def _row(reading: Reading, findings: tuple[str, ...]) -> list[str]:
    scored = reading.status is Status.OK
    return [
        guard(reading.file),
        reading.status.value,
        guard(reading.reason),
        reading.priority.value,
        guard(reading.top_finding),
        *(f"{reading.probabilities[finding]:.4f}" if scored else "" for finding in findings),
        *(str(int(reading.flags[finding])) if scored else "" for finding in findings),
        guard(reading.view),
        f"{reading.decode_ms:.2f}",
        f"{reading.infer_ms:.2f}" if scored else "",
        reading.model_sha256,
        reading.patient,
        guard(reading.note),
    ]


@contextmanager
def json_table(path: Path, summary: Summary) -> Iterator[Add]:
    """The same rows for programs: what the run was made with, then one film a line with the fields of `Reading`.

    The block is given a function that adds one film. Fields that this run leaves empty on purpose (patients' numbers and names)
    are left out. Raises OutputError.
    """
    head = {"model": summary.model, "operating_point": summary.operating_point, "started": summary.started}
    with atomic_write(path) as file:
        file.write(json.dumps(head, ensure_ascii=False, allow_nan=False)[:-1] + ', "films": [')
        between = "\n"

        def add(reading: Reading) -> None:
            nonlocal between
            # The fields themselves: a deep copy of each, as `asdict` makes, takes longer than writing them.
            fields = {name: value for name, value in vars(reading).items() if value or not name.startswith("patient_")}
            file.write(between + json.dumps(fields, ensure_ascii=False, allow_nan=False))
            between = ",\n"

        yield add
        file.write("\n]}\n")


def write_summary(path: Path, summary: Summary) -> None:
    """The fields of `Summary` as JSON, an interval as its value, low and high. Raises OutputError."""
    with atomic_write(path) as file:
        json.dump(asdict(summary), file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")
