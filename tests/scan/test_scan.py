"""The main job, as a clinic runs it: the command line over folders of real files."""

import json
import os
import shutil
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


def test_version(cli: Cli) -> None:
    from cxredge import __version__

    assert cli("--version").stdout.strip() == f"cxredge {__version__}"
