"""Rows of a .csv as spreadsheets save one: commas or semicolons, empty rows, headers with spaces or other capitals."""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from cxredge.errors import DataError


def read_cells(table: Path) -> list[tuple[int, list[str]]]:
    """Line number and cells, without spaces around, of the first line and every row; empty rows are passed over.

    Raises DataError for a file that cannot be read or is no UTF-8 text, and for a quotation mark that is not closed.
    """
    found, begins = [], 1
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            first = lines.readline()
            # A spreadsheet separates by semicolons where its user's country writes 0,5.
            delimiter = ";" if first.count(";") > first.count(",") else ","
            reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
            for cells in reader:
                number, begins = begins, reader.line_num + 1
                if stripped := [cell.strip() for cell in cells] if any(map(str.strip, cells)) else []:
                    found.append((number, stripped))
    except csv.Error as error:
        raise DataError(
            f"{table}, from line {begins}: no table with commas or semicolons ({error}); is a quotation mark not"
            " closed?"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{table}: cannot be read as UTF-8 text ({error}); save it as 'CSV UTF-8'") from None
    except OSError as error:
        raise DataError(f"{table}: cannot be read ({error.strerror or error})") from None
    return found


def rows_by_column(table: Path, known: Sequence[str], *, needs: Sequence[str] = ()) -> list[tuple[int, dict[str, str]]]:
    """Line number and cells of every row, by column; those of `known` by that spelling, whatever their capitals.

    needs: what a published table must have. Its last columns may lack a name, as in `Data_Entry_2017.csv`, and are
    passed over. Raises DataError naming the line that is longer or shorter than the first, for a column that is missing,
    without a name or with another one's, and the errors of `read_cells`.
    """
    (_, header), *rows = read_cells(table) or [(1, [])]
    spelt = {column.lower(): column for column in known}
    columns = [spelt.get(name.lower(), name) for name in header]
    while needs and columns and not columns[-1]:
        columns.pop()
    _check_columns(table, columns)
    if missing := [column for column in needs if column not in columns]:
        raise DataError(
            f"{table} lacks the published table's column {missing[0]!r}; put the table as it was published there, or give"
            " a labels table (.csv) of your own"
        )
    found = []
    for number, cells in rows:
        if not len(columns) <= len(cells) <= len(header) or any(cells[len(columns) :]):
            few = "fewer" if len(cells) < len(columns) else "more"
            raise DataError(
                f"{table}, line {number} has {few} cells than the first line; put the row right or take it out"
            )
        found.append((number, dict(zip(columns, cells, strict=False))))
    return found


def same_patient(patient: str) -> str:
    """A patient's number as one text: a spreadsheet writes 007 as 7, and 12 as 12.0 where other cells are empty."""
    return re.sub(r"^0*(\d+?)(?:\.0+)?$", r"\1", patient)


def _check_columns(table: Path, columns: list[str]) -> None:
    if "" in columns:
        raise DataError(
            f"{table}: column {columns.index('') + 1} has no name; a finding is called by its column, so name it or take it"
            " out"
        )
    [(most, times)] = Counter(columns).most_common(1) or [("", 0)]
    if times > 1:
        raise DataError(f"{table}: {times} columns are called {most}; which of them counts?")
