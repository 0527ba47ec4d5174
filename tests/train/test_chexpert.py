"""CheXpert as it is published, with films of another data set in its folders."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from house import FILMS, Cli
from safetensors.torch import load_file

from cxredge.errors import DataError
from cxredge.train.chexpert import FINDINGS
from cxredge.train.facts import read_facts
from cxredge.train.fit import fit
from cxredge.train.recipe import Recipe
from cxredge.train.sources import CHESTXRAY14, Films, join, list_source, name_of, read_source

COLUMNS = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", *FINDINGS]


def row(path: str, *, view: str = "AP", **labels: str) -> list[str]:
    """labels: a column's name, with _ for a blank, and its cell."""
    said = {name.replace("_", " "): value for name, value in labels.items()}
    side = "Lateral" if "lateral" in path else "Frontal"
    start = [f"CheXpert-v1.0-small/{path}", "Female", "68", side, "" if side == "Lateral" else view, ""]
    return start + [said.get(column, "") for column in FINDINGS]


def write(folder: Path, table: str, rows: list[list[str]]) -> None:
    with (folder / table).open("w", newline="") as out:
        csv.writer(out).writerows([COLUMNS, *rows])


@pytest.fixture
def chexpert(tmp_path: Path) -> Path:
    folder = tmp_path / "CheXpert-v1.0-small"
    films = sorted((FILMS / "chestxray14" / "images").iterdir())
    paths = [
        "train/patient00001/study1/view1_frontal.jpg",
        "train/patient00002/study1/view1_frontal.jpg",
        "train/patient00002/study2/view1_frontal.jpg",
        "train/patient00002/study2/view2_lateral.jpg",
        "valid/patient64541/study1/view1_frontal.jpg",
    ]
    for film, path in zip(films, paths, strict=False):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(film, folder / path)
    labelled = [
        row(paths[0], Pleural_Effusion="1.0", Edema="-1.0", Fracture="0.0"),
        row(paths[1], Cardiomegaly="-1.0"),
        row(paths[2], view="PA", Lung_Lesion="1.0"),
        row(paths[3], Lung_Lesion="1.0"),
    ]
    write(folder, "train.csv", labelled)
    write(folder, "valid.csv", [row(paths[4], **{name.replace(" ", "_"): "0.0" for name in FINDINGS})])
    return folder


def label(films: Films, name: str, finding: str) -> float:
    at = [name_of(file) for file in films.files].index(f"{name}/view1_frontal.jpg")
    return float(films.labels[at, films.findings.index(finding)])


def test_frontal_films_with_patients_from_the_path_and_valid_as_test(chexpert: Path) -> None:
    films = read_source(chexpert)
    assert films.patients.tolist() == [f"chexpert/patient{n}" for n in ("00001", "00002", "00002", "64541")]
    assert films.splits.tolist() == ["train", "train", "train", "test"]
    assert list_source(chexpert).left_out == (("lateral films", 1),)
    facts = read_facts([chexpert], films)
    assert facts.view.tolist() == ["AP", "AP", "PA", "AP"]
    assert (set(facts.sex), set(facts.age)) == ({"F"}, {68.0})


def test_uncertain_is_unknown_and_empty_is_absent(chexpert: Path) -> None:
    films = read_source(chexpert)
    assert label(films, "patient00001/study1", "Effusion") == 1
    assert np.isnan(label(films, "patient00001/study1", "Edema"))
    assert label(films, "patient00001/study1", "Pneumonia") == 0
    assert label(read_source(chexpert, uncertain="ones"), "patient00001/study1", "Edema") == 1
    assert label(read_source(chexpert, uncertain="zeros"), "patient00002/study1", "Cardiomegaly") == 0


def test_findings_that_mean_the_same_share_a_column_with_chestxray14(chexpert: Path) -> None:
    films = join([read_source(FILMS / "chestxray14"), read_source(chexpert)])
    shared = set(CHESTXRAY14) & set(FINDINGS.values())
    assert shared == {
        "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Pneumonia", "Pneumothorax"
    }  # fmt: skip
    assert len(films.findings) == 14 + 13 - len(shared)
    rows = films.sources == "chexpert"
    assert np.isnan(films.labels[rows, films.findings.index("Mass")]).all()


def test_films_of_equal_file_names_keep_names_of_their_own(chexpert: Path) -> None:
    films = read_source(chexpert)
    assert len({name_of(file) for file in films.files}) == len(films)
    assert name_of(Path("images/00000001_000.png")) == "00000001_000.png"


def test_a_re_encoded_copy_is_found_by_its_stem(chexpert: Path) -> None:
    film = read_source(chexpert).files[0]
    film.rename(film.with_suffix(".png"))
    assert len(read_source(chexpert)) == 4


def test_mistakes_name_the_table_and_line(chexpert: Path) -> None:
    write(chexpert, "valid.csv", [row("valid/patient64541/study1/view1_frontal.jpg", Edema="2")])
    with pytest.raises(DataError, match=r"valid\.csv, line 2, Edema: '2'"):
        read_source(chexpert)
    write(chexpert, "valid.csv", [row("valid/view1_frontal.jpg")])
    with pytest.raises(DataError, match=r"valid\.csv, line 2: .* names no patient"):
        read_source(chexpert)


def test_a_film_in_two_rows_is_found_and_refused(chexpert: Path, cli: Cli) -> None:
    with (chexpert / "train.csv").open("a", newline="") as out:
        csv.writer(out).writerow(row("train/patient00001/study1/view1_frontal.jpg", Fracture="1.0"))
    said = "view1_frontal.jpg stands in line 2 of train.csv and again in line 6 of train.csv"
    with pytest.raises(DataError, match=said):
        read_source(chexpert)
    assert len(list_source(chexpert).films) == 4
    run = cli("data", "check", chexpert)
    assert run.returncode == 1
    assert said in run.stdout


def test_rows_cut_short_and_tables_without_findings_say_nothing_of_a_film(chexpert: Path) -> None:
    with (chexpert / "train.csv").open(newline="") as lines:
        head, *rows = list(csv.reader(lines))

    def save(*lines: list[str]) -> None:
        with (chexpert / "train.csv").open("w", newline="") as out:
            csv.writer(out).writerows(lines)

    save(head, *rows[:2], rows[2][:6])
    with pytest.raises(DataError, match=r"train\.csv, line 4 has fewer cells than the first line"):
        read_source(chexpert)
    save(head, rows[0], [*rows[1], "1.0"])
    with pytest.raises(DataError, match=r"train\.csv, line 3 has more cells than the first line"):
        read_source(chexpert)
    save(*(line[:6] for line in (head, *rows)))
    with pytest.raises(DataError, match=r"train\.csv: .* none of its columns is a finding"):
        read_source(chexpert)
    save(head[1:], *(line[1:] for line in rows))
    with pytest.raises(DataError, match=r"train\.csv lacks the published table's column 'Path'"):
        read_source(chexpert)


def test_it_reads_the_same_however_its_header_is_written(chexpert: Path) -> None:
    films = read_source(chexpert)
    table = chexpert / "train.csv"
    head, *rows = table.read_text().splitlines()
    for header in (head.replace(",", " , ") + " ", head.lower()):
        table.write_text("\n".join([header, *rows, "," * head.count(",")]))
        again = read_source(chexpert)
        assert np.array_equal(again.labels, films.labels, equal_nan=True)
        assert read_facts([chexpert], again).sex.tolist() == ["F"] * 4


def test_data_check_reads_it_and_finds_a_patient_in_two_splits(chexpert: Path, cli: Cli) -> None:
    assert cli("data", "check", chexpert).returncode == 0
    study = Path("valid/patient00001/study9")
    shutil.copytree(chexpert / "valid" / "patient64541" / "study1", chexpert / study)
    write(
        chexpert, "valid.csv", [row(f"{study}/view1_frontal.jpg"), row("valid/patient64541/study9/view1_frontal.jpg")]
    )
    run = cli("data", "check", chexpert)
    assert run.returncode == 1
    assert "patient00001 (1 in train, 1 in test)" in run.stdout
    assert "patient64541/study9" in run.stdout
    with pytest.raises(DataError, match="patient patient00001 has films in both train and test"):
        read_source(chexpert)


def test_a_recipe_says_what_uncertain_labels_stand_for(chexpert: Path, tmp_path: Path) -> None:
    said = {}
    for uncertain in ("ignore", "ones"):
        recipe = Recipe(weights="none", size=64, epochs=1, validation_share=0.5, uncertain=uncertain)
        fit(recipe, [chexpert], tmp_path / uncertain, cache=tmp_path / "cache")
        said[uncertain] = json.loads((tmp_path / uncertain / "run.json").read_text())
        assert said[uncertain]["uncertain"] == uncertain
        weights = load_file(tmp_path / uncertain / "model.safetensors")
        assert all(value.isfinite().all() for value in weights.values())
    # Edema of patient00001 is unknown in the one and present in the other.
    assert said["ignore"]["data_sha256"] != said["ones"]["data_sha256"]
