"""Tables and folders as people and spreadsheets leave them: read all the same, or refused by name; never misread."""

import csv
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from house import FILMS, Cli

from cxredge.errors import DataError
from cxredge.imaging import Preprocessing
from cxredge.train.data_check import check_data
from cxredge.train.facts import read_boxes, read_facts
from cxredge.train.labels import read_table
from cxredge.train.planes import cached_planes
from cxredge.train.sources import Films, carve_validation, join, list_source, read_source
from cxredge.train.tables import read_data
from cxredge.train.unlabelled import add_unlabelled

TABLE = "Data_Entry_2017_v2020.csv"
Rows = list[list[str]]


@pytest.fixture
def nih(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FILMS / "chestxray14", tmp_path / "nih"))


def rows_in(table: Path) -> Rows:
    with table.open(newline="") as lines:
        return list(csv.reader(lines))


def write(table: Path, rows: Rows, *, delimiter: str = ",", encoding: str = "utf-8") -> None:
    with table.open("w", newline="", encoding=encoding) as out:
        csv.writer(out, delimiter=delimiter).writerows(rows)


def own_table(folder: Path, *rows: str) -> Path:
    """A labels table of as many films as rows that each begin with a comma: `,patient,split,Effusion`."""
    pictures = sorted((FILMS / "chestxray14" / "images").glob("*.jpg"))
    for i, picture in enumerate(pictures[: len(rows)]):
        shutil.copy(picture, folder / f"{i}.jpg")
    table = folder / "own.csv"
    table.write_text("\n".join(["file,patient,split,Effusion", *(f"{i}.jpg{row}" for i, row in enumerate(rows))]))
    return table


def told(films: Films, data: Path) -> tuple[object, ...]:
    facts = read_facts([data], films)
    return (
        films.names,
        films.patients.tolist(),
        films.labels.tolist(),
        facts.sex.tolist(),
        facts.age.astype(str).tolist(),
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda row: [row[0], "No Finding", *row[2:]],
        lambda row: [*row[:3], "99", *row[4:]],
        lambda row: row,
        lambda row: [row[0].replace(".png", ".jpg"), *row[1:]],
    ],
)
def test_a_film_in_two_rows_of_chestxray14_is_found_and_refused(
    nih: Path, cli: Cli, change: Callable[[list[str]], list[str]]
) -> None:
    rows = rows_in(nih / TABLE)
    write(nih / TABLE, [*rows, change(rows[1])])
    said = f"{Path(rows[1][0]).stem} stands in line 2 and again in line {len(rows) + 1} of {TABLE}"
    with pytest.raises(DataError, match=re.escape(said)):
        read_source(nih)
    # It is one film, whatever is said of it.
    assert len(list_source(nih).films) == len(read_source(FILMS / "chestxray14"))
    run = cli("data", "check", nih)
    assert run.returncode == 1
    assert said in run.stdout
    assert "1 films stand in two split lists or in two rows of a table" in run.stdout


@pytest.mark.parametrize(
    "write_as",
    [
        lambda table, rows: write(table, rows, delimiter=";"),
        lambda table, rows: write(table, rows, encoding="utf-8-sig"),
        lambda table, rows: write(table, [[f" {cell} " for cell in row] for row in rows]),
        lambda table, rows: write(table, [[cell.lower() for cell in rows[0]], *rows[1:]]),
        lambda table, rows: write(table, [*rows[:5], [""] * len(rows[0]), *rows[5:], [""] * len(rows[0]), []]),
        # As it was first published: a last column without a name.
        lambda table, rows: write(table, [[*row, ""] for row in rows]),
        lambda table, rows: write(table, [[*rows[0], ""], *rows[1:]]),
    ],
)
def test_chestxray14_reads_the_same_however_its_table_was_saved(
    nih: Path, write_as: Callable[[Path, Rows], None]
) -> None:
    before = told(read_source(nih), nih)
    write_as(nih / TABLE, rows_in(nih / TABLE))
    assert told(read_source(nih), nih) == before


@pytest.mark.parametrize(
    ("write_as", "says"),
    [
        (lambda table, rows: write(table, rows, encoding="utf-16"), "cannot be read as UTF-8 text"),
        (lambda table, rows: write(table, [*rows, rows[-1][:1]]), "line 26 has fewer cells than the first line"),
        (lambda table, rows: write(table, [*rows, [*rows[-1], "?"]]), "line 26 has more cells than the first line"),
        (
            lambda table, rows: write(table, [row[:3] for row in rows]),
            "lacks the published table's column 'Patient ID'",
        ),
        (lambda table, rows: write(table, [rows[0], [rows[1][0], "", *rows[1][2:]]]), "line 2: .* none named"),
        (lambda table, rows: write(table, rows[:0]), "lacks the published table's column 'Image Index'"),
    ],
)
def test_a_table_of_chestxray14_that_cannot_be_read_is_refused_by_name(
    nih: Path, cli: Cli, write_as: Callable[[Path, Rows], object], says: str
) -> None:
    write_as(nih / TABLE, rows_in(nih / TABLE))
    with pytest.raises(DataError, match=says):
        read_source(nih)
    run = cli("data", "check", nih)
    assert run.returncode == 2
    assert TABLE in run.stderr
    assert "Traceback" not in run.stderr


def test_a_line_without_a_box_is_named(tmp_path: Path) -> None:
    boxes = tmp_path / "BBox_List_2017.csv"
    boxes.write_text("Image Index;Finding Label;Bbox [x;y;w;h];;;\n00000003_000.png;Infiltrate;256;512;128;64\n")
    assert read_boxes([tmp_path])["00000003_000"]["Infiltration"][0].left == 0.25
    for cut in ("00000003_000.png;Infiltrate\n", "00000003_000.png;Infiltrate;256;512;128;a\n"):
        boxes.write_text(f"Image Index;Finding Label;Bbox [x;y;w;h]\n{cut}")
        with pytest.raises(DataError, match="line 2: not a film, a finding"):
            read_boxes([tmp_path])


def test_a_table_that_is_not_there_is_not_said_to_be_badly_saved(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent.csv: cannot be read \(No such file or directory\)$"):
        read_table(tmp_path / "absent.csv")


def test_a_labels_table_with_semicolons_is_read(tmp_path: Path) -> None:
    table = own_table(tmp_path, ",7,test,1", ",8,test,0")
    before = read_table(table)
    table.write_text(table.read_text().replace(",", ";"))
    assert told(read_table(table), table) == told(before, table)


def test_only_whole_words_are_a_sex(tmp_path: Path) -> None:
    words = ["F", "female", "m", " Male ", "mujer", "Mulher", "missing", "femme", "Unknown", ""]
    own_table(tmp_path, *(",,," for _ in words))
    table = tmp_path / "own.csv"
    table.write_text("file,sex,Effusion\n" + "".join(f"{i}.jpg,{word},1\n" for i, word in enumerate(words)))
    assert read_facts([table], read_table(table)).sex.tolist() == ["F", "F", "M", "M", *[""] * 6]


def test_an_age_in_months_is_one_in_years_and_what_is_no_number_is_none(tmp_path: Path) -> None:
    """`²` counts as a digit and is no number."""
    said = {"57": 57, "057Y": 57, "17,9": 17, "216M": 18, "006M": 0, "053W": 1, "366D": 1, "101": 101, "400": None, "M": None,
            "\N{SUPERSCRIPT TWO}": None, "-1": None, "": None}  # fmt: skip
    own_table(tmp_path, *(",,," for _ in said))
    table = tmp_path / "own.csv"
    table.write_text(
        "file;age;Effusion\n" + "".join(f"{i}.jpg;{age};1\n" for i, age in enumerate(said)), encoding="utf-8"
    )
    ages = read_facts([table], read_table(table)).age
    assert [None if np.isnan(age) else int(age) for age in ages] == list(said.values())


def test_a_patients_number_is_one_however_many_noughts_it_begins_with(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="patient 7 has films in both train and test"):
        read_table(own_table(tmp_path, ",007,train,1", ",7,test,0"))
    films = read_table(
        own_table(tmp_path, ",007,train,1", ",7.0,train,0", ",000,train,0", ",0,train,1", ",A07,train,1")
    )
    assert films.patients.tolist() == ["own/7", "own/7", "own/0", "own/0", "own/A07"]
    for seed in range(5):
        splits = carve_validation(films, share=0.4, seed=seed).splits.tolist()
        assert splits[0] == splits[1]
        assert splits[2] == splits[3]


def test_chestxray14_s_patients_are_the_same_with_noughts_before_them(nih: Path) -> None:
    rows = rows_in(nih / TABLE)
    before = read_source(nih).patients.tolist()
    write(nih / TABLE, [rows[0], *([*row[:3], "0" * (i % 3) + row[3], *row[4:]] for i, row in enumerate(rows[1:]))])
    assert read_source(nih).patients.tolist() == before


def test_films_with_backslashes_and_no_patient_are_no_shared_patients(tmp_path: Path) -> None:
    tables = []
    for site in ("north", "south"):
        (tmp_path / site / "films").mkdir(parents=True)
        own_table(tmp_path / site / "films", ",,test,1")
        tables.append(tmp_path / site / f"{site}.csv")
        tables[-1].write_text("file,split,Effusion\nfilms\\0.jpg,test,1\n")
    assert read_table(tables[0]).patients.tolist() == ["north/films/0.jpg"]
    assert check_data(tables).shared == []


def test_what_macos_lays_beside_a_film_is_no_film(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FILMS / "chest_xray", tmp_path / "chest_xray"))
    before = list_source(folder)
    film = before.films.files[0]
    film.with_name(f"._{film.name}").write_bytes(b"\0\5\26\7")
    after = list_source(folder)
    assert (after.films.files, after.left_out) == (before.films.files, before.left_out)
    more = tmp_path / "more"
    more.mkdir()
    shutil.copy(FILMS / "chestxray14" / "images" / "00000001_000.jpg", more / "a.jpg")
    (more / "._a.jpg").write_bytes(b"\0\5\26\7")
    assert add_unlabelled(before.films, [more]).files[len(before.films) :] == (more / "a.jpg",)


def test_a_file_of_another_kind_is_not_called_missing(tmp_path: Path) -> None:
    (tmp_path / "lab.xlsx").write_bytes(b"PK")
    with pytest.raises(
        DataError, match=r"lab\.xlsx: a file of no known kind; give a folder of films or a labels table"
    ):
        read_data(tmp_path / "lab.xlsx")
    with pytest.raises(DataError, match="gone: no such folder of films"):
        read_data(tmp_path / "gone")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda stored: os.truncate(stored, 0),
        lambda stored: os.truncate(stored, 5000),
        lambda stored: np.save(stored, np.zeros((1, 1, 64, 64), np.uint8)),
        lambda stored: stored.write_bytes(b"something else"),
    ],
)
def test_a_cache_that_was_cut_short_is_decoded_anew(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    films = read_source(FILMS / "chestxray14").files[:3]
    before = np.array(cached_planes(films, Preprocessing(size=64), tmp_path))
    [stored] = tmp_path.iterdir()
    spoil(stored)
    assert np.array_equal(cached_planes(films, Preprocessing(size=64), tmp_path), before)
    assert list(tmp_path.iterdir()) == [stored]
    decoded = stored.stat().st_mtime_ns
    cached_planes(films, Preprocessing(size=64), tmp_path)
    assert stored.stat().st_mtime_ns == decoded


def test_one_finding_under_two_names_does_not_become_two_outputs(tmp_path: Path) -> None:
    films = sorted((FILMS / "chestxray14" / "images").glob("*.jpg"))
    tables = []
    for name, finding, own in (("north", "Effusion", films[:4]), ("south", "effusion", films[4:8])):
        lines = [f"file,{finding}", *(f"{film},{i % 2}" for i, film in enumerate(own))]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
        tables.append(read_table(tmp_path / f"{name}.csv"))
    with pytest.raises(DataError, match="called 'Effusion' in one table and 'effusion' in another"):
        join(tables)
