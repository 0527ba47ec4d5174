"""Power cuts, full and read-only disks, changed films and models: the same command goes on, and nothing is half-written."""

import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from house import EXAMPLES, Cli, rows_of, without_times
from PIL import Image
from tamper import rewrite

from cxredge.bundle import Bundle
from cxredge.scan.journal import fingerprint

RESULTS = ("results.csv", "results.json", "summary.json", "report.html")


# Enough that no machine reads them all before it can be interrupted.
FILMS = 150


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    sources = sorted(path for path in EXAMPLES.iterdir() if path.suffix in {".jpg", ".jpeg", ".dcm", ".png"})
    for i in range(FILMS):
        shutil.copy(sources[i % len(sources)], folder / f"{i:03}{sources[i % len(sources)].suffix}")
    return folder


def started(cli: Cli, *words: str | Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        cli.command("scan", *words), cwd=cli.folder, env=cli.environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_until_some_are_read(out: Path, kilobytes: int = 100) -> None:
    wal = out / "journal.sqlite-wal"
    deadline = time.monotonic() + 60
    while not (wal.exists() and wal.stat().st_size > 1000 * kilobytes) and time.monotonic() < deadline:
        time.sleep(0.01)


def last_written(out: Path) -> int:
    """When the journal was last written, in nanoseconds; 0 where there is none."""
    wal = out / "journal.sqlite-wal"
    return wal.stat().st_mtime_ns if wal.exists() else 0


def summary_of(out: Path) -> dict[str, object]:
    return json.loads((out / "summary.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def test_ctrl_c_keeps_what_was_read_and_says_how_to_go_on(cli: Cli, tmp_path: Path, films: Path) -> None:
    running = started(cli, films, "--output", "out", "--workers", "1")
    wait_until_some_are_read(tmp_path / "out")
    running.send_signal(signal.SIGINT)
    _, said = running.communicate()
    assert running.returncode == 130
    assert "Traceback" not in said
    assert "The same command goes on from here" in said
    assert not (tmp_path / "out/results.csv").exists()
    assert cli("scan", films, "--output", "out").returncode == 0
    assert 0 < summary_of(tmp_path / "out")["resumed"] < FILMS  # type: ignore[operator]


def test_killed_three_times_it_ends_like_an_undisturbed_run(cli: Cli, tmp_path: Path, films: Path) -> None:
    chance = random.Random(7)
    for _ in range(3):
        before = last_written(tmp_path / "out")
        running = started(cli, films, "--output", "out")
        # On a busy machine a scan may take seconds to begin: the clock starts when it writes.
        deadline = time.monotonic() + 60
        while last_written(tmp_path / "out") == before and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(chance.uniform(0.1, 0.8))
        running.kill()
        running.communicate()
    (tmp_path / "out/.cxredge-0123456789ab").write_text("a table that a killed run had begun")
    assert cli("scan", films, "--output", "out").returncode == 0
    assert cli("scan", films, "--output", "undisturbed").returncode == 0
    assert without_times(rows_of(tmp_path / "out")) == without_times(rows_of(tmp_path / "undisturbed"))
    assert [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")] == []


def test_another_model_reads_every_film_again(cli: Cli, tmp_path: Path, bundle: Bundle) -> None:
    assert cli("scan", EXAMPLES, "--output", "out").returncode == 0
    other = tmp_path / "other"
    shutil.copytree(bundle.folder, other, ignore=shutil.ignore_patterns("__pycache__"))
    rewrite(other, lambda said: said.update(version=said["version"] + "+other"))
    assert cli("scan", EXAMPLES, "--output", "out", "--model", other).returncode == 0
    assert summary_of(tmp_path / "out")["resumed"] == 0
    # What the first model read is still there.
    assert cli("scan", EXAMPLES, "--output", "out").returncode == 0
    assert summary_of(tmp_path / "out")["resumed"] == len(rows_of(tmp_path / "out"))


def test_two_scans_into_one_folder_do_not_mix(cli: Cli, tmp_path: Path, films: Path) -> None:
    running = started(cli, films, "--output", "out", "--workers", "1")
    wait_until_some_are_read(tmp_path / "out", kilobytes=10)
    second = cli("scan", films, "--output", "out")
    assert second.returncode == 2
    assert "another scan writes there" in second.stderr
    running.kill()
    running.communicate()


def test_a_damaged_journal_is_named_and_restart_replaces_it(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/journal.sqlite").write_bytes(b"no database at all" * 1000)
    run = cli("scan", EXAMPLES, "--output", "out")
    assert run.returncode == 2
    assert "the journal is damaged" in run.stderr
    assert "--restart" in run.stderr
    assert cli("scan", EXAMPLES, "--output", "out", "--restart").returncode == 0


def test_a_journal_of_an_older_kind_is_begun_anew(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with sqlite3.connect(tmp_path / "out/journal.sqlite") as old:
        old.execute("CREATE TABLE readings (path TEXT, reading TEXT)")
        old.execute("PRAGMA user_version=1")
    old.close()
    assert cli("scan", EXAMPLES, "--output", "out").returncode == 0
    assert summary_of(tmp_path / "out")["resumed"] == 0


def limited(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_a_disk_that_takes_no_more_stops_the_run_with_one_clear_line(cli: Cli, tmp_path: Path, films: Path) -> None:
    assert cli("scan", EXAMPLES, "--output", "out").returncode == 0
    before = {name: (tmp_path / "out" / name).read_bytes() for name in RESULTS}
    run = subprocess.run(
        cli.command("scan", films, "--output", "out"), cwd=tmp_path, env=cli.environment, capture_output=True,
        text=True, check=False, preexec_fn=lambda: limited(300_000),
    )  # fmt: skip
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    assert "disk" in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
    assert {name: (tmp_path / "out" / name).read_bytes() for name in RESULTS} == before
    assert cli("scan", films, "--output", "out").returncode == 0
    assert len(rows_of(tmp_path / "out")) == FILMS


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    )
    if not mounted:
        pytest.skip("mounting a small disk takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_nothing_half_written(cli: Cli, films: Path, small_disk: Path) -> None:
    run = cli("scan", films, "--output", small_disk / "out")
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    assert "disk" in run.stderr
    for name in RESULTS:
        assert not (small_disk / "out" / name).exists()
    (small_disk / "out/filler").unlink(missing_ok=True)


def test_a_read_only_disk_says_so(cli: Cli, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    run = cli("scan", EXAMPLES, "--output", small_disk / "out")
    assert run.returncode == 2
    assert "results cannot be written" in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


def test_films_of_one_name_size_and_time_are_told_apart(cli: Cli, tmp_path: Path) -> None:
    film = tmp_path / "films" / "IM1.dcm"
    film.parent.mkdir()
    dataset = pydicom.dcmread(EXAMPLES / "00009683_000.dcm")
    for patient in ("1001", "1002"):
        dataset.PatientID = patient
        dataset.save_as(film)
        os.utime(film, (315532800, 315532800))
        assert cli("scan", film.parent, "--output", "out", "--with-patient-ids").returncode == 0
        (row,) = rows_of(tmp_path / "out")
        assert row["patient_id"] == patient


def test_films_that_differ_in_the_middle_alone_are_told_apart(tmp_path: Path) -> None:
    """Uncompressed, with black edges, under one name, of one size and time."""
    film, seen = tmp_path / "IM1.bmp", set()
    for grey in (40, 200):
        picture = np.zeros((1000, 1040), np.uint8)
        picture[40:960, 300:500] = grey
        Image.fromarray(picture).save(film)
        os.utime(film, (315532800, 315532800))
        seen.add(fingerprint(film))
    assert len(seen) == 2
    assert len({looks[:2] for looks in seen}) == 1
