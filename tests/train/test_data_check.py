"""`cxredge data check` finds what is planted and raises no alarm over real films that merely look alike."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from house import FILMS, Cli
from PIL import Image

from cxredge.train.data_check import check_data

TABLE = "Data_Entry_2017_v2020.csv"


@pytest.fixture
def nih(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FILMS / "chestxray14", tmp_path / "nih"))


def saved(out: Path) -> dict[str, Any]:
    return json.loads((out / "data-check.json").read_text(encoding="utf-8"))


def listed(folder: Path, split: str) -> list[str]:
    return [Path(name).stem for name in (folder / f"{split}.txt").read_text().split()]


def plant_copy(folder: Path, *, of: str, at: str, **how: int) -> None:
    """The film `of`, a little larger and saved again, in the place of the film `at`."""
    with Image.open(folder / "images" / f"{of}.jpg") as film:
        side = round(1.1 * film.width)
        film.resize((side, side)).save(folder / "images" / f"{at}.jpg", **how)


def give_to(folder: Path, stem: str, patient: str) -> None:
    with (folder / TABLE).open(newline="") as lines:
        rows = list(csv.reader(lines))
    with (folder / TABLE).open("w", newline="") as out:
        csv.writer(out).writerows([*row[:3], patient, *row[4:]] if row[0].startswith(stem) else row for row in rows)


def test_sound_data_has_no_fault_though_films_look_alike(cli: Cli) -> None:
    run = cli("data", "check", FILMS / "chestxray14", FILMS / "chest_xray", python=("-X", "importtime"))
    assert run.returncode == 0, run.stdout + run.stderr
    loaded = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in run.stderr.splitlines()}
    assert "numpy" in loaded
    # Neither the networks' libraries nor, without a page to write, the one for figures.
    assert not loaded & {"torch", "torchvision", "matplotlib"}
    assert "Exact copies: 0 sets" in run.stdout
    assert "Near copies: 0 sets" in run.stdout
    assert "No fault found" in run.stdout


def test_shares_of_films_are_as_sure_as_there_are_patients(nih: Path) -> None:
    """Two films that say the same of one patient are worth one."""
    with (nih / TABLE).open(newline="") as lines:
        head, *rows = list(csv.reader(lines))

    def interval(patients: int) -> float:
        with (nih / TABLE).open("w", newline="") as out:
            labelled = ("Effusion", "No Finding")
            csv.writer(out).writerows(
                [
                    head,
                    *(
                        [row[0], labelled[i % patients % 2], row[2], i % patients, *row[4:]]
                        for i, row in enumerate(rows)
                    ),
                ]
            )
        (source,) = check_data([nih]).sources
        shares = [one.share for one in source.prevalence if one.finding == "Effusion" and one.share]
        return sum(share.high - share.low for share in shares)

    assert interval(len(rows) // 4) > 1.2 * interval(len(rows))


def test_everything_planted_is_found_named_and_drawn(cli: Cli, nih: Path) -> None:
    train, test = listed(nih, "train_val_list"), listed(nih, "test_list")
    shutil.copy(nih / "images" / f"{train[0]}.jpg", nih / "images" / f"{train[5]}.jpg")
    plant_copy(nih, of=train[2], at=test[0], quality=70)
    give_to(nih, test[1], "2")
    (nih / "images" / f"{test[2]}.jpg").unlink()
    broken = nih / "images" / f"{train[7]}.jpg"
    broken.write_bytes(broken.read_bytes()[:900])
    run = cli("data", "check", nih, "--output", "out")
    assert run.returncode == 1, run.stderr
    found = saved(cli.folder / "out")
    source = found["sources"][0]
    assert source["missing"] == [f"{test[2]}.png"]
    assert [(one["file"], one["split"]) for one in source["unreadable"]] == [(f"images/{train[7]}.jpg", "train")]
    assert "ends early" in source["unreadable"][0]["reason"]
    assert [(one["patient"], one["splits"]["test"]) for one in source["leaks"]] == [("2", 1)]
    [exact], [near] = found["exact"], found["near"]
    assert {film["file"] for film in exact["films"]} == {f"images/{train[0]}.jpg", f"images/{train[5]}.jpg"}
    assert not exact["leaks"]
    assert {film["file"] for film in near["films"]} == {f"images/{train[2]}.jpg", f"images/{test[0]}.jpg"}
    assert near["leaks"]
    assert source["films"] == {"train": 16, "test": 7}
    # Copies within a split are told and are no fault; each of the others is one.
    assert len(found["faults"]) == 4
    page = (cli.folder / "out" / "data-check.html").read_text(encoding="utf-8")
    assert "<svg" in page
    for name in (test[0], test[2], train[7]):
        assert name in page
        assert name in run.stdout


def test_labels_and_the_mix_of_patients_are_counted(nih: Path) -> None:
    [source] = check_data([nih]).sources
    with (nih / TABLE).open(newline="") as lines:
        rows = {Path(row["Image Index"]).stem: row for row in csv.DictReader(lines)}
    train = [rows[stem] for stem in listed(nih, "train_val_list")]
    [emphysema] = [one for one in source.prevalence if (one.finding, one.split) == ("Emphysema", "train")]
    assert emphysema.positive == sum("Emphysema" in row["Finding Labels"] for row in train)
    assert emphysema.positive + emphysema.negative == len(train)
    assert source.mix["sex"]["female"]["train"] == sum(row["Patient Gender"] == "F" for row in train)
    assert source.mix["view"]["PA"]["train"] == sum(row["View Position"] == "PA" for row in train)


def test_a_copy_in_another_data_set_s_test_films_leaks(cli: Cli, nih: Path, tmp_path: Path) -> None:
    """Both may train one model."""
    film = FILMS / "chestxray14" / "images" / f"{listed(nih, 'train_val_list')[0]}.jpg"
    (tmp_path / "own.csv").write_text("file,Effusion,split\na.jpg,1,test\ngone.jpg,0,test\n")
    shutil.copy(film, tmp_path / "a.jpg")
    run = cli("data", "check", nih, "own.csv")
    assert run.returncode == 1
    assert "1 sets of exact copies lie across splits" in run.stdout
    assert "line 3: gone.jpg" in run.stdout


def test_patients_numbers_that_tables_share_are_a_warning(cli: Cli, tmp_path: Path) -> None:
    films = sorted((FILMS / "chestxray14" / "images").glob("*.jpg"))[:6]
    for name, own, patients in (("north", films[:3], ("12.0", "7", "")), ("south", films[3:], ("12", "12", "8"))):
        rows = [f"{name}-{film.name},{patient},1" for film, patient in zip(own, patients, strict=True)]
        for film in own:
            shutil.copy(film, tmp_path / f"{name}-{film.name}")
        (tmp_path / f"{name}.csv").write_text("\n".join(["file,patient,Effusion", *rows]) + "\n")
    run = cli("data", "check", "north.csv", "south.csv", "-o", "out")
    assert run.returncode == 0, run.stdout
    assert "several tables share; are they the same people?: 1\n  12 (1 in north, 2 in south)\n" in run.stdout
    assert "12 (1 in north, 2 in south)" in (tmp_path / "out" / "data-check.html").read_text(encoding="utf-8")
    (shared,) = json.loads((tmp_path / "out" / "data-check.json").read_text())["shared"]
    assert shared == {"patient": "12", "tables": {"north": 1, "south": 2}}


@pytest.mark.parametrize("words", [("nowhere",), (), (FILMS / "chest_xray", FILMS / "chest_xray")])
def test_what_cannot_be_checked_is_wrong_usage(cli: Cli, words: tuple[Path, ...]) -> None:
    assert cli("data", "check", *words).returncode == 2
