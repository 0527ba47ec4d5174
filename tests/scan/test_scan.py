"""The main job, as a clinic runs it: the command line over folders of real files."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from house import EXAMPLES, Cli, rows_of, without_times
from pydicom.data import get_testdata_file

from cxredge.bundle import Bundle
from cxredge.report.tables import columns
from cxredge.scan.discover import discover
from cxredge.scan.reading import ORDER, Priority, Status
from cxredge.scan.run import Run
from cxredge.scan.scanner import Scanner


def test_examples_are_read_into_the_documented_files(cli: Cli, tmp_path: Path, bundle: Bundle) -> None:
    started = time.perf_counter()
    run = cli("scan", EXAMPLES, "--output", "out")
    assert run.returncode == 0, run.stderr
    assert time.perf_counter() - started < 15
    out = tmp_path / "out"
    written = {"results.csv", "results.json", "summary.json", "report.html", "journal.sqlite", "heatmaps"}
    assert {path.name for path in out.iterdir()} == written
    rows = rows_of(out)
    assert list(rows[0]) == columns(bundle.manifest.names)
    by_file = {row["file"]: row for row in rows}
    assert set(by_file) == {path.name for path in EXAMPLES.iterdir()}
    assert by_file["leg-cr.dcm"]["status"] == "refused"
    assert by_file["leg-cr.dcm"]["reason"] == "not_a_chest_film"
    assert by_file["README.md"]["reason"] == by_file["labels.csv"]["reason"] == "not_an_image"
    films = [
        row
        for row in rows
        if Path(row["file"]).suffix in {".jpg", ".jpeg", ".png", ".dcm"} and row["file"] != "leg-cr.dcm"
    ]
    assert [row["file"] for row in films if row["status"] != "ok"] == []
    for row in films:
        for finding in bundle.manifest.findings:
            p = float(row[f"p_{finding.name}"])
            assert 0 <= p <= 1
            if abs(p - finding.balanced.threshold) > 1e-4:
                assert row[f"flag_{finding.name}"] == str(int(p >= finding.balanced.threshold))
    ranks = [ORDER[Priority(row["priority"])] for row in rows]
    assert ranks == sorted(ranks)
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["films"], summary["ok"], summary["refused"], summary["failed"]) == (
        len(rows),
        len(films),
        len(rows) - len(films),
        0,
    )
    assert summary["drift"]["drift"] == {
        key: pytest.approx(getattr(bundle.manifest.accuracy.drift, key)) for key in ("value", "low", "high")
    }
    assert summary["model"]["sha256"] == bundle.model_sha256
    assert summary["whole"]["p50"] >= summary["inference"]["p50"] > 0
    assert "Research use; not a medical device" in run.stdout
    assert "leg-cr.dcm (does not look like a frontal chest film" in run.stdout


def test_every_bad_file_gets_its_reason_and_every_good_film_its_score(cli: Cli, tmp_path: Path) -> None:
    films = tmp_path / "films"
    (films / "x.dcm").mkdir(parents=True)
    (films / "notes.txt").write_text("not a film")
    (films / "empty.png").touch()
    dicom, jpeg = EXAMPLES / "chest-cr.dcm", next(EXAMPLES.glob("*.jpg"))
    (films / "cut.dcm").write_bytes(dicom.read_bytes()[:-2000])
    (films / "cut.jpg").write_bytes(jpeg.read_bytes()[:-2000])
    (films / "loop.dcm").symlink_to("loop.dcm")
    (films / "unplugged.jpg").symlink_to("/nowhere/film.jpg")
    shutil.copy(jpeg, films / "good.jpg")
    shutil.copy(dicom, films / "x.dcm" / "no-suffix")
    run = cli("scan", films, "--output", "out")
    assert run.returncode == 1, run.stderr
    assert "Traceback" not in run.stderr
    found = {row["file"]: (row["status"], row["reason"]) for row in rows_of(tmp_path / "out")}
    assert found == {
        "notes.txt": ("refused", "not_an_image"),
        "empty.png": ("refused", "empty"),
        "cut.dcm": ("refused", "ends_early"),
        "cut.jpg": ("refused", "ends_early"),
        "loop.dcm": ("failed", "cannot_be_opened"),
        "unplugged.jpg": ("failed", "cannot_be_opened"),
        "good.jpg": ("ok", ""),
        "x.dcm/no-suffix": ("ok", ""),
    }
    # What failed is tried again once it can be read; nothing else is read twice.
    (films / "loop.dcm").unlink()
    (films / "unplugged.jpg").unlink()
    shutil.copy(jpeg, films / "unplugged.jpg")
    again = cli("scan", films, "--output", "out")
    assert again.returncode == 0, again.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["films"], summary["resumed"], summary["failed"]) == (7, 6, 0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_film_without_permission_fails_and_says_so(cli: Cli, tmp_path: Path) -> None:
    film = Path(shutil.copy(next(EXAMPLES.glob("*.jpg")), tmp_path / "locked.jpg"))
    film.chmod(0)
    run = cli("scan", film, "--output", "out")
    assert run.returncode == 1
    assert "Permission denied" in run.stdout


def test_encodings_of_one_film_give_the_same_reading() -> None:
    """WG-04's RG1: reversible and irreversible content, each uncompressed and in JPEG 2000."""
    logits, priorities = {}, set()
    with Scanner() as scanner:
        for name in ("RG1_UNCR", "RG1_J2KR", "RG1_UNCI", "RG1_J2KI"):
            reading = scanner.read(str(get_testdata_file(f"{name}.dcm", download=False)))
            assert reading.status is Status.OK, reading.detail
            p = np.array(list(reading.probabilities.values()))
            logits[name] = np.log(p / (1 - p))
            priorities.add(reading.priority)
    assert (logits["RG1_UNCR"] == logits["RG1_J2KR"]).all()
    assert (logits["RG1_UNCI"] == logits["RG1_J2KI"]).all()
    # Lossy coding moves one input pixel in ten by one grey level: 0.02 in full precision, more after INT8 rounding.
    assert np.abs(logits["RG1_UNCR"] - logits["RG1_UNCI"]).max() <= 0.05
    assert len(priorities) == 1


def test_reduced_decoding_is_said_and_read_anew(cli: Cli, tmp_path: Path) -> None:
    """RG1 in JPEG 2000, with and without loss, at half its size: scores move a little, and no result is taken for the other's."""
    films = tmp_path / "films"
    films.mkdir()
    for name in ("RG1_J2KR", "RG1_J2KI"):
        shutil.copy(str(get_testdata_file(f"{name}.dcm", download=False)), films)
    logits = []
    for options in ([], ["--reduced-decoding"]):
        run = cli("scan", films, "--output", "out", *options)
        assert run.returncode == 0, run.stderr
        summary = json.loads((tmp_path / "out" / "summary.json").read_text())
        assert summary["resumed"] == 0
        assert summary["reduced_decoding"] == bool(options) == ("no larger than the network needs" in run.stdout)
        assert bool(options) == ("decoded no larger than needed" in (tmp_path / "out" / "report.html").read_text())
        rows = sorted(rows_of(tmp_path / "out"), key=lambda row: row["file"])
        p = np.array([[float(row[key]) for key in row if key.startswith("p_")] for row in rows])
        logits.append(np.log(p / (1 - p)))
    off = np.abs(logits[0] - logits[1])
    assert 0 < off.mean() < 0.04
    assert off.max() < 0.15


def test_monochrome1_and_monochrome2_of_one_film_give_equal_logits(tmp_path: Path) -> None:
    path = get_testdata_file("RG1_UNCR.dcm", download=False)
    turned = pydicom.dcmread(str(path))
    assert turned.PhotometricInterpretation == "MONOCHROME1"
    highest = (1 << turned.BitsStored) - 1
    turned.PixelData = (highest - turned.pixel_array).astype("<u2").tobytes()
    turned.PhotometricInterpretation = "MONOCHROME2"
    if "WindowCenter" in turned:
        # The window's middle moves with the values it is about.
        centres = np.atleast_1d(turned.WindowCenter).astype(float)
        turned.WindowCenter = [highest - centre + 1 for centre in centres]
    turned.save_as(tmp_path / "turned.dcm")
    with Scanner() as scanner:
        one, two = scanner.read(str(path)), scanner.read(tmp_path / "turned.dcm")
    assert one.probabilities
    assert one.probabilities == two.probabilities


def test_a_second_run_takes_over_and_gives_the_same_rows(cli: Cli, tmp_path: Path) -> None:
    assert cli("scan", EXAMPLES, "--output", "out").returncode == 0
    first = rows_of(tmp_path / "out")
    assert cli("scan", EXAMPLES, "--output", "out").returncode == 0
    assert rows_of(tmp_path / "out") == first
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["resumed"] == summary["films"]
    assert cli("scan", EXAMPLES, "--output", "out", "--restart").returncode == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["resumed"] == 0
    assert without_times(rows_of(tmp_path / "out")) == without_times(first)


def test_a_changed_film_is_read_again(cli: Cli, tmp_path: Path) -> None:
    one, two = sorted(EXAMPLES.glob("*.jpg"))[:2]
    film = tmp_path / "films" / "film.jpg"
    film.parent.mkdir()
    shutil.copyfile(one, film)
    assert cli("scan", film.parent, "--output", "out").returncode == 0
    before = without_times(rows_of(tmp_path / "out"))
    shutil.copyfile(two, film)
    assert cli("scan", film.parent, "--output", "out").returncode == 0
    after = without_times(rows_of(tmp_path / "out"))
    assert before != after
    assert len(after) == 1


def test_a_film_that_changes_while_it_is_read_is_read_again(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = sorted(EXAMPLES.glob("*.jpg"))[:2]
    film = tmp_path / "films" / "film.jpg"
    film.parent.mkdir()
    shutil.copyfile(one, film)
    read = Scanner.read_with_pictures

    def and_then_another_arrives(self: Scanner, path: Path, **more: Any) -> Any:
        found = read(self, path, **more)
        shutil.copyfile(two, film)
        return found

    with Run([film.parent], tmp_path / "out", model=str(bundle.folder)) as run:
        monkeypatch.setattr(Scanner, "read_with_pictures", and_then_another_arrives)
        run.update(run.films())
        monkeypatch.undo()
        assert [run.known(each) for each in run.films()] == [False]
        first = rows_of(tmp_path / "out")
        run.update(run.films())
        assert [run.known(each) for each in run.films()] == [True]
    assert without_times(first) != without_times(rows_of(tmp_path / "out"))


def test_films_below_links_to_other_folders_are_found_once(tmp_path: Path) -> None:
    for folder in ("films/ward", "films/.hidden", "archive", "archive/new", "archive/old", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "film.jpg").touch()
    root = tmp_path / "films"
    (root / "archive").symlink_to(tmp_path / "archive")
    (root / "again").symlink_to(tmp_path / "archive" / "old")
    (root / "inside").symlink_to(root / "ward")
    (root / "above").symlink_to(tmp_path)
    # A circle, by way of the other folder.
    (tmp_path / "archive" / "back").symlink_to(root)
    (tmp_path / "archive" / "round").symlink_to(tmp_path / "archive")
    (root / "gone").symlink_to(tmp_path / "unmounted")
    assert [film.name for film in discover([root])] == [
        "gone", "again/film.jpg", "archive/film.jpg", "archive/new/film.jpg", "ward/film.jpg"
    ]  # fmt: skip
    assert [film.name for film in discover([root, tmp_path / "elsewhere"])][-1].endswith("elsewhere/film.jpg")


def test_labels_give_this_runs_auroc(cli: Cli, tmp_path: Path) -> None:
    run = cli("scan", EXAMPLES, "--output", "out", "--labels", EXAMPLES / "labels.csv")
    assert run.returncode == 0, run.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert "labels.csv" not in {row["file"] for row in rows_of(tmp_path / "out")}
    assert summary["labels"]
    judged = {row["finding"]: row for row in summary["labels"]}
    both = [row for row in summary["labels"] if row["positives"] and row["negatives"]]
    assert both
    for row in summary["labels"]:
        assert (row["auroc"] is not None) == bool(row["positives"] and row["negatives"])
    assert f"this run, {both[0]['finding']}" in run.stdout
    assert judged


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("name,Effusion\na.jpg,1\n", "needs a column `file`"),
        ("file,Sprain\na.jpg,1\n", "at least one of the model's findings"),
        ("file,Effusion\na.jpg,maybe\n", "line 2, Effusion: 'maybe' is neither"),
        ("file,Effusion\na.jpg,1\na.jpg,0\n", "line 3: a.jpg stands there twice"),
        ("file,Effusion\nabsent.jpg,1\n", "none of the 1 films"),
    ],
)
def test_wrong_labels_stop_the_run_before_it_reads(cli: Cli, tmp_path: Path, table: str, says: str) -> None:
    (tmp_path / "labels.csv").write_text(table)
    run = cli("scan", EXAMPLES, "--output", "out", "--labels", "labels.csv")
    assert run.returncode == 2
    assert says in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "out" / "results.csv").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("scan", "nowhere"), "nowhere: no such file or folder"),
        (("scan", EXAMPLES, "--model", "nothing"), "no shipped model of that name (chestxray14"),
        (("scan", EXAMPLES, "--output", "/proc/none"), "results cannot be written"),
    ],
)
def test_what_cannot_run_says_why_in_one_line(cli: Cli, words: tuple[str | Path, ...], says: str) -> None:
    run = cli(*words)
    assert run.returncode == 2
    assert says in run.stderr
    assert "Traceback" not in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


def test_an_empty_folder_is_an_error_not_an_empty_worklist(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    run = cli("scan", "films")
    assert run.returncode == 2
    assert "no files in films" in run.stderr


def test_strange_names_and_several_folders_are_all_in_the_results(cli: Cli, tmp_path: Path) -> None:
    film = next(EXAMPLES.glob("*.jpg"))
    names = [b"a/caf\xe9.jpg", "a/प्रति.jpg".encode(), b"b/<b>.jpg", b"b/=1+1.jpg"]
    for name in names:
        target = tmp_path / os.fsdecode(name)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(film, target)
    run = cli("scan", "a", "b", "--output", "out")
    assert run.returncode == 0, run.stderr
    assert {row["file"] for row in rows_of(tmp_path / "out")} == {
        "a/caf\\xe9.jpg",
        "a/प्रति.jpg",
        "b/<b>.jpg",
        "b/=1+1.jpg",
    }
    assert "<b>.jpg" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_version(cli: Cli) -> None:
    from cxredge import __version__

    assert cli("--version").stdout.strip() == f"cxredge {__version__}"


def test_films_below_the_output_folder_are_read_and_what_is_written_there_is_not(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    shutil.copyfile(EXAMPLES / "00028351_000.jpg", tmp_path / "films" / "film.jpg")
    for _ in range(2):
        run = cli("scan", "films", "-o", ".")
        assert run.returncode == 0, run.stderr
        assert [row["file"] for row in rows_of(tmp_path)] == ["film.jpg"]
    # The other way round too.
    assert cli("scan", ".", "-o", "films").returncode == 0
    assert {row["file"] for row in rows_of(tmp_path / "films")} >= {"report.html"}


def test_pipes_brackets_and_narrow_consoles_stop_nothing(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    shutil.copyfile(EXAMPLES / "00028351_000.jpg", tmp_path / "films" / f"{'片' * 75}.jpg")
    (tmp_path / "films" / "плёнка.txt").write_text("no film")
    os.mkfifo(tmp_path / "films" / "pipe.dcm")
    run = subprocess.run(
        cli.command("scan", "films", "-o", "out[/x]"), cwd=tmp_path, check=False, capture_output=True, timeout=120,
        env=cli.environment | {"PYTHONIOENCODING": "cp1252"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert b"Open out[/x]/report.html" in run.stdout
    assert {row["file"]: row["status"] for row in rows_of(tmp_path / "out[" / "x]")} == {
        f"{'片' * 75}.jpg": "ok", "плёнка.txt": "refused", "pipe.dcm": "refused",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("Effusion,file\n1,00028351_000.jpg\n1\n", "line 3: names no file"),
        (f"file,Effusion\n{'x' * 200_000},1\n", "cannot be read as a table"),
    ],
)
def test_labels_tables_that_do_not_hold_together_are_one_line(cli: Cli, tmp_path: Path, table: str, says: str) -> None:
    (tmp_path / "labels.csv").write_text(table)
    run = cli("scan", EXAMPLES, "--labels", "labels.csv")
    assert run.returncode == 2
    assert says in run.stderr
    assert "Traceback" not in run.stderr
