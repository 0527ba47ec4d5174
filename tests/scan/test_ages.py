"""A model for children says how many scored films say no age: nothing in them could have refused an adult's."""

import json
import shutil
import subprocess
from pathlib import Path
from threading import Timer

import pydicom
from house import EXAMPLES, FILMS, Cli

from cxredge.scan.summary import Ages

CHILD = sorted((FILMS / "chest_xray/test/NORMAL").iterdir())[0]


def dicom(target: Path, age: str | None) -> None:
    dataset = pydicom.dcmread(EXAMPLES / "00000041_006.dcm")
    if age is None:
        dataset.pop("PatientAge", None)
    else:
        dataset.PatientAge = age
    dataset.save_as(target)


def test_scored_films_without_an_age_are_counted_on_screen_in_the_summary_and_in_the_report(
    cli: Cli, tmp_path: Path
) -> None:
    films = tmp_path / "films"
    films.mkdir()
    shutil.copyfile(CHILD, films / f"child{CHILD.suffix}")
    dicom(films / "without.dcm", None)
    dicom(films / "child.dcm", "003Y")
    dicom(films / "adult.dcm", "058Y")
    said = "2 of 3 scored films say no age; the model is for children of 1-5 years: check them yourself"
    # The second run takes every reading from the journal and says the same.
    for _ in range(2):
        run = cli("scan", films, "--output", "out", "--model", "paediatric-pneumonia")
        assert run.returncode == 0, run.stderr
        assert said in run.stdout
        ages = json.loads((tmp_path / "out/summary.json").read_text(encoding="utf-8"))["ages"]
        assert ages == {"without": 2, "scored": 3, "low": 1.0, "high": 5.0, "note": said}
        assert f"<strong>{said}.</strong>" in (tmp_path / "out/report.html").read_text(encoding="utf-8")
    read = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))["films"]
    assert {film["file"]: (film["status"], film["says_age"]) for film in read} == {
        f"child{CHILD.suffix}": ("ok", False),
        "without.dcm": ("ok", False),
        "child.dcm": ("ok", True),
        # Refused for its age, so nobody need be told of it twice.
        "adult.dcm": ("refused", True),
    }


def test_nothing_is_said_where_every_scored_film_says_an_age(cli: Cli, tmp_path: Path) -> None:
    dicom(tmp_path / "child.dcm", "004Y")
    run = cli("scan", tmp_path / "child.dcm", "--output", "out", "--model", "paediatric-pneumonia")
    assert run.returncode == 0, run.stderr
    assert "no age" not in run.stdout
    assert json.loads((tmp_path / "out/summary.json").read_text(encoding="utf-8"))["ages"]["note"] == ""
    assert "no age;" not in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_a_model_for_patients_of_any_age_says_nothing_of_ages(cli: Cli, tmp_path: Path) -> None:
    run = cli("scan", EXAMPLES / "00028351_000.jpg", "--output", "out")
    assert "no age" not in run.stdout
    assert json.loads((tmp_path / "out/summary.json").read_text(encoding="utf-8"))["ages"] is None


def test_the_sentence_fits_the_number_and_the_ages() -> None:
    one = "1 of 4 scored films says no age; the model is for patients of 18-90 years: check them yourself"
    assert Ages.of(1, 4, (18, 90)).note == one
    assert Ages.of(0, 4, (18, 90)).note == ""


def test_a_watch_says_it_with_its_results(cli: Cli, tmp_path: Path) -> None:
    shutil.copyfile(CHILD, tmp_path / f"child{CHILD.suffix}")
    command = cli.command(
        "scan", f"child{CHILD.suffix}", "--watch", "--output", "out", "--model", "paediatric-pneumonia"
    )
    watching = subprocess.Popen(command, cwd=cli.folder, env=cli.environment, stderr=subprocess.PIPE, text=True)
    # Its screen ends when it is killed, so that a watch that says nothing fails instead of going on for ever.
    end = Timer(120, watching.kill)
    end.start()
    try:
        assert watching.stderr is not None
        assert any("1 of 1 scored films says no age" in line for line in watching.stderr)
    finally:
        end.cancel()
        watching.kill()
        watching.communicate()
