"""Every film of a folder is in the results, wherever it lies and whatever it is called."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from house import EXAMPLES, Cli, rows_of

from cxredge.bundle import Bundle
from cxredge.scan.discover import discover


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


def test_films_below_the_output_folder_are_read_and_what_is_written_there_is_not(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    shutil.copyfile(EXAMPLES / "00028351_000.jpg", tmp_path / "films" / "film.jpg")
    for _ in range(2):
        run = cli("scan", "films", "-o", ".")
        assert run.returncode == 0, run.stderr
        assert [row["file"] for row in rows_of(tmp_path)] == ["film.jpg"]
    # The other way round too: what lies there of that scan is not read.
    assert cli("scan", ".", "-o", "films").returncode == 0
    there = {row["file"] for row in rows_of(tmp_path / "films")}
    assert "films/film.jpg" in there
    assert there.isdisjoint({"report.html", "results.csv", "journal.sqlite"})


def test_films_in_folders_named_like_those_of_a_scan_are_read(cli: Cli, tmp_path: Path) -> None:
    """An export for a PACS lies in `dicom` as often as not."""
    for name in ("dicom/PAT1/IM1", "dicom/IM2", "heatmaps/IM3.jpg", "thumbnails/IM4.jpg"):
        (tmp_path / "films" / name).parent.mkdir(parents=True, exist_ok=True)
        source = EXAMPLES / ("00000041_006.dcm" if name.startswith("dicom") else "00028351_000.jpg")
        shutil.copyfile(source, tmp_path / "films" / name)
    assert cli("scan", "films", "-o", "elsewhere").returncode == 0
    named = {row["file"] for row in rows_of(tmp_path / "elsewhere")}
    assert len(named) == 4
    for _ in range(2):
        assert cli("scan", "films", "-o", "films", "--dicom-out").returncode == 0
        assert {row["file"] for row in rows_of(tmp_path / "films")} == named
    # Nor are the pictures of that scan films of the next one, wherever it writes.
    assert cli("scan", "films", "-o", "films/again").returncode == 0
    assert {row["file"] for row in rows_of(tmp_path / "films" / "again")} == named


def test_what_the_system_keeps_on_a_disk_is_not_read_and_a_locked_folder_stops_nothing(
    cli: Cli, tmp_path: Path
) -> None:
    stick = tmp_path / "stick"
    for folder in ("$RECYCLE.BIN/S-1-5-21", "System Volume Information", "lost+found", "ward", "locked"):
        (stick / folder).mkdir(parents=True)
        shutil.copyfile(EXAMPLES / "00028351_000.jpg", stick / folder / "film.jpg")
    locked = stick / "locked"

    def scan(*prefix: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, *cli.command("scan", "stick", "-o", "out")], cwd=tmp_path, env=cli.environment, check=False,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    locked.chmod(0)
    try:
        # To root nothing is locked, unless it gives that up.
        powers = "-dac_override,-dac_read_search"
        ours = os.geteuid() == 0
        run = scan(*["setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}"] * ours)
    finally:
        locked.chmod(0o755)
    assert run.returncode == 1, run.stderr
    assert "the folder cannot be opened (Permission denied)" in run.stdout
    rows = {row["file"]: (row["status"], row["reason"]) for row in rows_of(tmp_path / "out")}
    assert rows == {"ward/film.jpg": ("ok", ""), "locked": ("failed", "cannot_be_opened")}
    assert scan().returncode == 0
    assert {row["file"] for row in rows_of(tmp_path / "out")} == {"ward/film.jpg", "locked/film.jpg"}


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


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_model_below_a_name_that_is_no_utf8_is_read(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"mod\xe8les")
    shutil.copytree(bundle.folder, folder)
    run = cli("scan", EXAMPLES / "00000457_002.jpg", "--model", folder, "--runtime", "onnxruntime", "-o", "out")
    assert run.returncode == 0, run.stderr
    assert [row["status"] for row in rows_of(tmp_path / "out")] == ["ok"]


def test_a_flagged_film_whose_name_the_systems_encoding_does_not_know_has_its_report(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    shutil.copyfile(EXAMPLES / "00000457_002.jpg", tmp_path / "films" / "röntgen.jpg")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for _ in range(2):
        run = subprocess.run(
            cli.command("scan", "films"),
            capture_output=True,
            check=False,
            cwd=tmp_path,
            env=cli.environment | ascii_only,
        )
        assert run.returncode == 0, run.stderr
    assert [row["file"] for row in rows_of(tmp_path / "cxredge-scan")] == ["röntgen.jpg"]
    (picture,) = (tmp_path / "cxredge-scan" / "heatmaps").iterdir()
    assert picture.name.startswith("röntgen.jpg-")
