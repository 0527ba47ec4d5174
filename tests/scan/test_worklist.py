"""Copies of a film: all are listed, all are scored, and all say so."""

import json
import os
import shutil
from pathlib import Path

import pydicom
from house import EXAMPLES, Cli, rows_of

DICOM = EXAMPLES / "00000041_006.dcm"


def copy(source: Path, target: Path, patient: str) -> None:
    dataset = pydicom.dcmread(source)
    dataset.PatientID = patient
    dataset.save_as(target)


def test_a_copy_is_scored_like_its_twin_and_names_it(cli: Cli, tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    for name in ("a.jpg", "b.jpg"):
        shutil.copyfile(EXAMPLES / "00028351_000.jpg", films / name)
    shutil.copyfile(EXAMPLES / "00003400_003.jpg", films / "c.jpg")
    assert cli("scan", films, "--output", "out").returncode == 0
    rows = {row["file"]: row for row in rows_of(tmp_path / "out")}
    assert [rows[name]["status"] for name in ("a.jpg", "b.jpg", "c.jpg")] == ["ok", "ok", "ok"]
    assert [rows[name]["reason"] for name in ("a.jpg", "b.jpg", "c.jpg")] == ["", "duplicate", ""]
    assert rows["b.jpg"]["note"] == "the same picture as a.jpg"
    scores = [key for key in rows["a.jpg"] if key.startswith(("p_", "flag_", "priority"))]
    assert [rows["a.jpg"][key] for key in scores] == [rows["b.jpg"][key] for key in scores]


def test_one_picture_under_two_patients_sends_every_copy_to_a_person(cli: Cli, tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    copy(DICOM, films / "a.dcm", "one")
    copy(DICOM, films / "b.dcm", "another")
    copy(DICOM, films / "c.dcm", "one")
    assert cli("scan", films, "--output", "out").returncode == 0
    rows = {row["file"]: row for row in rows_of(tmp_path / "out")}
    assert "the same picture as b.dcm, under another patient" in rows["a.dcm"]["note"]
    assert "the same picture as a.dcm, under another patient" in rows["b.dcm"]["note"]
    assert "the same picture as b.dcm, under another patient" in rows["c.dcm"]["note"]
    assert "routine" not in {row["priority"] for row in rows.values()}
    assert rows["a.dcm"]["patient"] == rows["c.dcm"]["patient"] != rows["b.dcm"]["patient"]


def test_results_json_holds_the_rows_of_the_table(cli: Cli, tmp_path: Path) -> None:
    assert cli("scan", EXAMPLES, "--output", "out").returncode == 0
    told = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))
    rows = rows_of(tmp_path / "out")
    assert [film["file"] for film in told["films"]] == [row["file"] for row in rows]
    for film, row in zip(told["films"], rows, strict=True):
        for name in ("status", "reason", "priority", "top_finding", "view", "patient", "note", "model_sha256"):
            assert film[name] == row[name]
        for finding, p in film["probabilities"].items():
            assert f"{p:.4f}" == row[f"p_{finding}"]
        assert "patient_id" not in film
    assert told["model"]["sha256"] == rows[0]["model_sha256"]


def test_the_operating_point_in_force_is_in_the_table_and_in_the_summary(cli: Cli, tmp_path: Path) -> None:
    run = cli("scan", EXAMPLES, "--output", "out")
    summary = json.loads((tmp_path / "out/summary.json").read_text(encoding="utf-8"))
    assert "operating point" in run.stdout
    assert "urgent from 95 % specificity" in run.stdout
    assert summary["operating_point"] == "balanced"
    assert summary["points"]
    for point in summary["points"]:
        assert 0 < point["flagged_from"] < 1
        assert point["experimental"] or point["near"] > 0
        assert not (point["experimental"] and point["urgent_from"])


def test_a_copy_that_names_nobody_hides_no_mixed_up_patients(cli: Cli, tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    nameless = pydicom.dcmread(DICOM)
    for keyword in ("PatientID", "PatientName", "PatientBirthDate"):
        setattr(nameless, keyword, "")
    nameless.save_as(films / "1.dcm")
    copy(DICOM, films / "2.dcm", "one")
    copy(DICOM, films / "3.dcm", "another")
    assert cli("scan", films, "--output", "out").returncode == 0
    rows = {row["file"]: row for row in rows_of(tmp_path / "out")}
    assert "the same picture as 3.dcm, under another patient" in rows["2.dcm"]["note"]
    assert "the same picture as 2.dcm, under another patient" in rows["3.dcm"]["note"]
    assert rows["2.dcm"]["priority"] != "routine" != rows["3.dcm"]["priority"]


def test_names_that_print_alike_are_two_films(cli: Cli, tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    shutil.copyfile(EXAMPLES / "00028351_000.jpg", films / os.fsdecode(b"a\xff.jpg"))
    shutil.copyfile(EXAMPLES / "00003400_003.jpg", films / "a\\xff.jpg")
    shutil.copyfile(EXAMPLES / "00003400_003.jpg", films / "b\x1b[2J.jpg")
    run = cli("scan", films, "--output", "out")
    assert run.returncode == 0
    rows = {row["file"]: row for row in rows_of(tmp_path / "out")}
    assert set(rows) == {r"a\xff.jpg", r"a\\xff.jpg", r"b\x1b[2J.jpg"}
    assert rows[r"a\xff.jpg"]["p_Effusion"] != rows[r"a\\xff.jpg"]["p_Effusion"]
    assert "\x1b" not in run.stdout
