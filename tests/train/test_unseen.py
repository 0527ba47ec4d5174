"""What a model was trained on is no test of it, whatever a table calls it now."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from house import FILMS, Cli

from cxredge.errors import DataError
from cxredge.train.evaluate import evaluate
from cxredge.train.fit import fit
from cxredge.train.recipe import Recipe
from cxredge.train.recipe import written as as_toml
from cxredge.train.subject import open_subject
from cxredge.train.tables import read_films

PICTURES = sorted((FILMS / "chestxray14" / "images").glob("*.jpg"))
SMALL = Recipe(weights="none", size=64, epochs=1, batch_size=8, validation_share=0.3)


def written(path: Path, rows: list[dict[str, str]], *, without: str = "") -> Path:
    """A labels table of these rows."""
    with path.open("w", newline="") as out:
        table = csv.DictWriter(out, [column for column in rows[0] if column != without], extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)
    return path


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, str]]:
    """Twelve patients with two films each; the last three are test patients."""
    for i, picture in enumerate(PICTURES[:24]):
        shutil.copy(picture, tmp_path / f"{i:02}.jpg")
    return [
        {
            "file": f"{i:02}.jpg",
            "patient": str(i // 2),
            "split": "test" if i // 2 > 8 else "train",
            "Effusion": str(i % 3 % 2),
        }
        for i in range(24)
    ]


@pytest.fixture
def run(rows: list[dict[str, str]], tmp_path: Path) -> Path:
    return fit(SMALL, [written(tmp_path / "lab.csv", rows)], tmp_path / "run", cache=tmp_path).run


def measure(model: Path | str, table: Path, *, split: str = "test", against: Path | None = None) -> list[str]:
    """The cautions of an evaluation."""
    subject = open_subject(model)
    engine = "torch" if subject.kind == "run" else "onnxruntime"
    other = open_subject(against) if against else None
    found, _ = evaluate(subject, [table], split=split, runtime=engine, against=other, samples=20, examples=0)
    return found.cautions


def test_films_that_a_run_was_trained_on_are_no_test_films(
    rows: list[dict[str, str]], run: Path, tmp_path: Path
) -> None:
    assert measure(run, tmp_path / "lab.csv") == []
    shutil.copytree(run, tmp_path / "other")
    written(tmp_path / "lab.csv", rows, without="split")
    trained = sum(row["split"] == "train" for row in csv.DictReader((run / "splits.csv").read_text().splitlines()))
    for model, against in ((run, None), ("chestxray14", run)):
        with pytest.raises(DataError, match=rf"run was trained on {trained} of these 24 test films.* --split all"):
            measure(model, tmp_path / "lab.csv", against=against)
    # A new film of a patient that trained it gives the patient away.
    splits = csv.DictReader((run / "splits.csv").read_text().splitlines())
    seen = next(row for row in splits if row["split"] == "train")
    held = [row for row in rows if row["split"] == "test"]
    shutil.copy(tmp_path / "23.jpg", tmp_path / "new.jpg")
    held.append({"file": "new.jpg", "patient": seen["patient"].split("/")[1], "split": "test", "Effusion": "1"})
    with pytest.raises(DataError, match=r"trained on 1 of these 7 test films, or on others of their patients"):
        measure(run, written(tmp_path / "lab.csv", held))


def test_all_films_are_measured_and_said_to_flatter(
    cli: Cli, rows: list[dict[str, str]], run: Path, tmp_path: Path
) -> None:
    told = cli("evaluate", "run", "--data", "lab.csv", "--split", "all", "-o", "out", "--examples", "0")
    assert told.returncode == 0, told.stderr
    said = re.compile(r"run was trained on \d+ of these 24 films, or on others of their patients .* they flatter it")
    assert said.search(told.stdout)
    assert said.search((tmp_path / "out" / "evaluation.html").read_text())
    assert said.search(json.loads((tmp_path / "out" / "evaluation.json").read_text())["cautions"][0])
    # Under another name of the table it cannot be sure that they are the same films.
    (caution,) = measure(run, written(tmp_path / "again.csv", rows, without="split"))
    assert re.match(r"\d+ of these 24 films are called as films of another data set that run was trained on", caution)


def test_a_run_that_learns_from_films_under_another_name_says_so(
    cli: Cli, rows: list[dict[str, str]], run: Path, tmp_path: Path
) -> None:
    written(tmp_path / "again.csv", rows)
    # Drawn by another seed, validation holds films that the first was trained on.
    (tmp_path / "other.toml").write_text(as_toml(SMALL.model_copy(update={"split_seed": 7}), "Trial"))
    words = (
        "train",
        "--data",
        "again.csv",
        "--recipe",
        "other.toml",
        "--weights",
        run.name,
        "--cache",
        "cache",
        "-o",
        "second",
    )
    told = cli(*words)
    assert told.returncode == 0, told.stderr
    assert re.search(
        r"Caution: \d+ of these \d+ validation films are called as films of another data set that run was trained on",
        told.stdout + told.stderr,
    )


def test_a_run_goes_on_with_its_films_in_their_order_only(rows: list[dict[str, str]], tmp_path: Path) -> None:
    recipe = SMALL.model_copy(update={"epochs": 2})

    def stop(_epoch: int, _area: float) -> None:
        raise KeyboardInterrupt

    table, again = written(tmp_path / "lab.csv", rows), {"cache": tmp_path / "cache"}
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, [table], tmp_path / "begun", watch=stop, **again)
    written(table, rows[::-1])
    with pytest.raises(DataError, match="or of these in another order"):
        fit(recipe, [table], tmp_path / "begun", **again)
    written(table, rows)
    fit(recipe, [table], tmp_path / "begun", **again)


def test_what_a_bundle_was_trained_on_is_told_as_far_as_it_can_be() -> None:
    published = FILMS / "chestxray14"
    # The official test films of a published set trained nothing; these are too few to carve the others anew.
    assert measure("chestxray14", published) == []
    (caution,) = measure("chestxray14", published, split="all")
    assert "chestxray14 may have been trained on some of these films" in caution


def test_other_films_or_labels_are_not_what_a_run_was_validated_on(
    rows: list[dict[str, str]], run: Path, tmp_path: Path
) -> None:
    table = tmp_path / "lab.csv"
    assert len(read_films([table], "validation", splits_of=run))
    trained = [row for row in rows if row["split"] == "train"]
    turned = [{**row, "Effusion": "1" if row is trained[0] else row["Effusion"]} for row in rows]
    assert turned != rows
    with pytest.raises(DataError, match="these films with other labels"):
        read_films([written(table, turned)], "validation", splits_of=run)
    for other in (rows[1:], [*rows, {**rows[0], "file": "new.jpg"}]):
        shutil.copy(tmp_path / "00.jpg", tmp_path / "new.jpg")
        with pytest.raises(DataError, match="was trained and validated on other films of lab than those given"):
            read_films([written(table, other)], "validation", splits_of=run)
    # Test films may be fewer.
    assert measure(run, written(table, [row for row in rows if row["split"] == "test"])) == []
