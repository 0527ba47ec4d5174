"""A generic labels table (.csv): `file`, a column per finding, and optionally `patient`, `split`, `age`, `sex`, `view`."""

from pathlib import Path

import numpy as np

from cxredge.errors import DataError
from cxredge.train.rows import rows_by_column, same_patient
from cxredge.train.sources import PUBLISHED, Films, Listing, patients_in_two_splits

# Columns that are no findings, however they are written: `Sex`, `PATIENT`.
RESERVED = ("file", "patient", "split", "age", "sex", "view")
_VALUES = {"": np.nan, "0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0}


def read_table(table: Path) -> Films:
    """A labels table: `file` (relative to the table), a column of 0, 1 or empty per finding, and optionally `patient`, `split`,
    `age`, `sex`, `view`. Without `split` every film is a test film; without `patient` every film is a patient's only one.

    Raises DataError that names the line, or the patient who has films in both splits.
    """
    listing = list_table(table)
    if listing.missing:
        raise DataError(f"{table}, {listing.missing[0]} is not there")
    for patient, splits in patients_in_two_splits(listing.films).items():
        raise DataError(f"{table}: patient {patient.split('/', 1)[1]} has films in both {splits[0]} and {splits[1]}")
    return listing.films


def list_table(table: Path) -> Listing:
    """`read_table` without its verdict on films that are not there: `line 12: films/a.png` in `missing`.

    Raises DataError that names the line when a label is none, and when none of the films is there.
    """
    lines = read_rows(table)
    columns = list(lines[0][1]) if lines else []
    findings = tuple(column for column in columns if column not in RESERVED)
    if "file" not in columns or not findings:
        raise DataError(
            f"{table}: needs a column `file`, at least one finding, and at least one film; found: {columns}"
        )
    if table.stem in PUBLISHED:
        raise DataError(f"{table}: {table.stem} is the name of the published data set; call the table otherwise")
    files, names, patients, splits, labels, missing = [], [], [], [], [], []
    stands: dict[Path, int] = {}
    for number, row in lines:
        if not row["file"]:
            raise DataError(f"{table}, line {number} names no film")
        name = name_in(row)
        file = table.parent / name
        try:
            there, where = file.is_file(), file.resolve()
        except (OSError, ValueError) as error:
            raise DataError(f"{table}, line {number}: no film can be called {name[:80]!r} ({error.args[-1]})") from None
        if (first := stands.setdefault(where, number)) != number:
            raise DataError(f"{table}, line {number}: {name} stands in line {first} already")
        if (split := row.get("split", "")) not in {"", "train", "test"}:
            raise DataError(
                f"{table}, line {number}: split {split!r} is neither train nor test; validation is carved from train"
            )
        if wrong := [f"{finding}: {row[finding]!r}" for finding in findings if row[finding] not in _VALUES]:
            raise DataError(f"{table}, line {number}, {wrong[0]} is neither 0, 1 nor empty")
        if not there:
            missing.append(f"line {number}: {file}")
            continue
        files.append(file)
        # Folders may hold films of like names.
        names.append(name)
        patients.append(f"{table.stem}/{same_patient(row.get('patient', '')) or name}")
        splits.append(split or "test")
        labels.append([_VALUES[row[finding]] for finding in findings])
    if not files:
        raise DataError(f"{table}, {missing[0]} is not there, nor is any other film it names")
    films = Films(
        tuple(files),
        np.array(patients),
        np.full(len(files), table.stem),
        np.array(splits),
        findings,
        np.array(labels, np.float32),
        tuple(names),
    )
    return Listing(films, tuple(missing))


def read_rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    """Line number and cells of every row, reserved columns by their own name. Raises the errors of `rows_by_column`."""
    return rows_by_column(table, RESERVED)


def name_in(row: dict[str, str]) -> str:
    """What a labels table calls the film of a row, its path with slashes."""
    return Path(row.get("file", "").replace("\\", "/")).as_posix()


def without_patients(films: Films) -> list[str]:
    """The labels tables among the sources that say of no film whose it is: each counts as another patient's there."""
    found = []
    for source in sorted(set(films.sources.tolist())):
        own = films.take(films.sources == source)
        if [f"{source}/{name}" for name in own.names] == own.patients.tolist():
            found.append(source)
    return found
