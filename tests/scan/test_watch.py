"""`--watch`: films are read as they arrive, whole ones only, and stopping it leaves the results written."""

import errno
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from house import EXAMPLES, Cli, rows_of

from cxredge.bundle import Bundle
from cxredge.errors import DataError
from cxredge.imaging import Film
from cxredge.scan import scanner
from cxredge.scan import watch as watching
from cxredge.scan.discover import Found, discover
from cxredge.scan.reading import Reading
from cxredge.scan.run import Run
from cxredge.scan.summary import Summary
from cxredge.scan.watch import Arrivals, on_network
from cxredge.scan.watch import watch as run_watch

FILM, OTHER = EXAMPLES / "00028351_000.jpg", EXAMPLES / "00003400_003.jpg"
Watcher = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def watcher(cli: Cli) -> Iterator[Watcher]:
    running = []

    def begin(*words: str | Path) -> "subprocess.Popen[str]":
        command = cli.command("scan", *words, "--watch", "--output", "out")
        running.append(
            subprocess.Popen(
                command, cwd=cli.folder, env=cli.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def wait_for(out: Path, wanted: dict[str, str]) -> None:
    """Until the results hold these files with these statuses."""
    deadline, found = time.monotonic() + 40, None
    while time.monotonic() < deadline:
        if (out / "results.csv").exists():
            found = {row["file"]: row["status"] for row in rows_of(out)}
            if found == wanted:
                return
        time.sleep(0.1)
    raise AssertionError(f"{found} instead of {wanted}")


def test_films_are_read_as_they_arrive_and_a_growing_one_once_it_is_whole(watcher: Watcher, tmp_path: Path) -> None:
    films, out = tmp_path / "films", tmp_path / "out"
    films.mkdir()
    shutil.copyfile(FILM, films / "first.jpg")
    running = watcher(films)
    wait_for(out, {"first.jpg": "ok"})
    (films / "ward").mkdir()
    whole = OTHER.read_bytes()
    with (films / "ward/slow.jpg").open("wb") as growing:
        for start in range(0, len(whole), len(whole) // 6):
            growing.write(whole[start : start + len(whole) // 6])
            growing.flush()
            time.sleep(0.5)
            assert {row["file"] for row in rows_of(out)} == {"first.jpg"}
    wait_for(out, {"first.jpg": "ok", "ward/slow.jpg": "ok"})
    # What was read stays, though its file is taken away; a new one comes beside it.
    (films / "first.jpg").unlink()
    (films / "note.txt").write_text("no film")
    wait_for(out, {"first.jpg": "ok", "ward/slow.jpg": "ok", "note.txt": "refused"})
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=20)
    assert running.returncode == 0
    assert "Traceback" not in said
    assert "Stopped watching; the results are written" in said
    assert (out / "report.html").exists()


def test_stopping_in_the_middle_of_a_batch_writes_what_was_read(watcher: Watcher, tmp_path: Path) -> None:
    films, out = tmp_path / "films", tmp_path / "out"
    films.mkdir()
    for i in range(300):
        shutil.copyfile(EXAMPLES / "chest-cr.dcm", films / f"{i:03}.dcm")
    running = watcher(films, "--workers", "1")
    wal, deadline = out / "journal.sqlite-wal", time.monotonic() + 40
    while not (wal.exists() and wal.stat().st_size > 100_000) and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=30)
    assert running.returncode == 0
    assert "Traceback" not in said
    assert 0 < len(rows_of(out)) < 300


def test_a_folder_that_is_not_there_is_an_error(watcher: Watcher) -> None:
    running = watcher("nowhere")
    _, said = running.communicate(timeout=30)
    assert running.returncode == 2
    assert "no such file or folder" in said


def test_a_file_has_arrived_when_two_looks_agree(tmp_path: Path) -> None:
    file = tmp_path / "film.dcm"
    file.write_bytes(b"1")
    films, arrivals = [Found("film.dcm", file)], Arrivals(settled=2)
    assert arrivals.whole(films, now=0) == []
    assert arrivals.whole(films, now=1.9) == []
    file.write_bytes(b"12")
    assert arrivals.whole(films, now=2.1) == []
    assert arrivals.whole(films, now=4.2) == films


@pytest.mark.parametrize(
    ("folder", "network"),
    [("/mnt/share/films", True), ("/mnt/share 2/films", True), ("/mnt/shared", False), ("/", False)],
)
def test_network_shares_are_known_by_their_mount(tmp_path: Path, folder: str, network: bool) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/sda1 / ext4 rw 0 0\nserver:/x /mnt/share nfs4 rw 0 0\n//server/y /mnt/share\\0402 cifs rw 0 0\n"
    )
    assert on_network(Path(folder), mounts) is network


def test_a_film_under_a_used_name_takes_nobodys_place(bundle: Bundle, tmp_path: Path) -> None:
    films, stop, seen = tmp_path / "films", Event(), list[dict[str, str]]()
    films.mkdir()
    shutil.copyfile(FILM, films / "IM1.jpg")

    def batch(summary: Summary, _unread: list[Reading]) -> None:
        seen.append({row["file"]: row["model_sha256"] + row["p_Effusion"] for row in rows_of(tmp_path / "out")})
        assert summary.resumed == 0
        if len(seen) == 1:
            # As uncompressed films of a machine whose clock stands still: no larger, no smaller, no later.
            before = (films / "IM1.jpg").stat()
            (films / "IM1.jpg").unlink()
            shutil.copyfile(OTHER, films / "IM1.jpg")
            with (films / "IM1.jpg").open("ab") as padded:
                padded.write(bytes(before.st_size - OTHER.stat().st_size))
            os.utime(films / "IM1.jpg", ns=(before.st_atime_ns, before.st_mtime_ns))
        elif len(seen) == 2:
            # Touched, and still the same film.
            os.utime(films / "IM1.jpg", (1, 1))
        else:
            stop.set()

    with Run([films], tmp_path / "out", model=str(bundle.folder)) as run:
        run_watch(run, [films], batch=batch, stop=stop)
    first, second, third = seen
    assert list(first) == ["IM1.jpg"]
    assert len(second) == 2
    (aside,) = set(second) - {"IM1.jpg"}
    assert re.fullmatch(r"IM1\.jpg \(before \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\)", aside)
    assert second[aside] == first["IM1.jpg"] != second["IM1.jpg"]
    assert third == second


def test_two_films_set_aside_in_one_second_both_stay(bundle: Bundle, tmp_path: Path) -> None:
    """Clocks stand still, and summer time ends."""
    film, when = Found("IM1.jpg", tmp_path / "films" / "IM1.jpg"), datetime(2026, 10, 25, 2, 30, tzinfo=UTC)
    film.path.parent.mkdir()
    with Run([film.path.parent], tmp_path / "out", model=str(bundle.folder)) as run:
        names = []
        for source in (FILM, OTHER, FILM):
            shutil.copyfile(source, film.path)
            run.read([film], of=1)
            aside = run.set_aside(film, when)
            assert aside is not None
            names.append(aside.name)
            assert run.has(aside)
    assert names == [
        "IM1.jpg (before 2026-10-25 02:30:00)",
        *(f"IM1.jpg (before 2026-10-25 02:30:00, {i})" for i in (2, 3)),
    ]


def test_a_watch_that_was_cut_off_goes_on_with_what_it_showed(watcher: Watcher, tmp_path: Path) -> None:
    films, out = tmp_path / "films", tmp_path / "out"
    films.mkdir()
    shutil.copyfile(FILM, films / "A.jpg")
    shutil.copyfile(OTHER, films / "B.jpg")
    process = watcher("films")
    wait_for(out, {"A.jpg": "ok", "B.jpg": "ok"})
    process.kill()
    process.communicate()
    # The films were fetched in the meantime.
    shutil.move(films / "A.jpg", tmp_path / "A.jpg")
    shutil.copyfile(EXAMPLES / "00000457_002.jpg", films / "C.jpg")
    process = watcher("films")
    wait_for(out, {"A.jpg": "ok", "B.jpg": "ok", "C.jpg": "ok"})
    process.send_signal(signal.SIGTERM)
    said = "".join(process.communicate(timeout=30))
    assert process.returncode == 0
    assert "Going on with 2 films" in said
    assert "Stopped watching; the results are written" in said
    # One that was ended is over.
    shutil.copyfile(EXAMPLES / "00000457_002.jpg", films / "D.jpg")
    watcher("films")
    wait_for(out, {"B.jpg": "ok", "C.jpg": "ok", "D.jpg": "ok"})


def test_what_is_no_film_is_listed_once_and_the_name_of_a_copy_goes_with_it(bundle: Bundle, tmp_path: Path) -> None:
    films, stop, seen = tmp_path / "films", Event(), list[set[str]]()
    films.mkdir()
    (films / "notes.txt").write_text("no film")
    (films / "B.jpg.part").write_bytes(FILM.read_bytes()[:9000])

    def batch(_summary: Summary, _unread: list[Reading]) -> None:
        seen.append({row["file"] for row in rows_of(tmp_path / "out")})
        if len(seen) == 1:
            os.utime(films / "notes.txt", (1, 1))
            (films / "B.jpg.part").unlink()
            shutil.copyfile(FILM, films / "B.jpg")
        elif "B.jpg" in seen[-1] and "B.jpg.part" not in seen[-1]:
            stop.set()

    with Run([films], tmp_path / "out", model=str(bundle.folder)) as run:
        run_watch(run, [films], batch=batch, stop=stop)
    assert seen[0] == {"notes.txt", "B.jpg.part"}
    assert seen[-1] == {"notes.txt", "B.jpg"}


def test_an_offline_share_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(_self: Path) -> bool:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Path, "is_dir", stale)
    with pytest.raises(DataError, match="cannot be listed"):
        discover([tmp_path])


def test_a_film_that_a_share_did_not_give_is_asked_for_again(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films, stop, seen = tmp_path / "films", Event(), list[dict[str, str]]()
    films.mkdir()
    shutil.copyfile(FILM, films / "A.jpg")
    tries, read_film = [], scanner.read_film

    def offline(*said: Any, **named: Any) -> Film:
        tries.append(len(seen))
        if len(tries) < 4:
            raise OSError(errno.ESTALE, "Stale file handle")
        return read_film(*said, **named)

    def batch(_summary: Summary, _unread: list[Reading]) -> None:
        seen.append({row["file"]: row["status"] for row in rows_of(tmp_path / "out")})
        if seen[-1] == {"A.jpg": "ok"}:
            stop.set()

    monkeypatch.setattr(scanner, "read_film", offline)
    monkeypatch.setattr(watching, "TRY_AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(watching, "LOOK_AGAIN_SECONDS", 0.2)
    with Run([films], tmp_path / "out", model=str(bundle.folder)) as run:
        run_watch(run, [films], batch=batch, stop=stop)
    # Told once, not at every try.
    assert seen == [{"A.jpg": "failed"}, {"A.jpg": "ok"}]
    assert tries == [0, 1, 1, 1]


def begun(run: Run, films: Sequence[Found]) -> None:
    """As a watch that a power cut ended after it had shown these."""
    run.read(films, of=len(films))
    run.keep_watched(films)


def shown_by(run: Run, roots: Sequence[Path], out: Path) -> list[str]:
    """What a watch shows once it has read what lies there."""
    stop = Event()
    run_watch(run, roots, batch=lambda _summary, _unread: stop.set(), stop=stop)
    return sorted(row["file"] for row in rows_of(out))


def test_a_watch_begun_again_by_another_path_shows_every_film_once(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films = tmp_path / "films"
    films.mkdir()
    shutil.copyfile(FILM, films / "A.jpg")
    monkeypatch.chdir(tmp_path)
    with Run([Path("films")], tmp_path / "out", model=str(bundle.folder)) as run:
        begun(run, run.films())
    with Run([films], tmp_path / "out", model=str(bundle.folder)) as run:
        assert shown_by(run, [films], tmp_path / "out") == ["A.jpg"]


def test_films_of_one_name_in_two_folders_keep_their_own_pictures(bundle: Bundle, tmp_path: Path) -> None:
    wards = [tmp_path / "a", tmp_path / "b"]
    for ward, film in zip(wards, (FILM, OTHER), strict=True):
        ward.mkdir()
        shutil.copyfile(film, ward / "IM1.jpg")
    with Run(wards[:1], tmp_path / "out", model=str(bundle.folder)) as run:
        begun(run, run.films())
    with Run(wards[1:], tmp_path / "out", model=str(bundle.folder)) as run:
        assert shown_by(run, wards[1:], tmp_path / "out") == sorted(["IM1.jpg", str(wards[0] / "IM1.jpg")])
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    pictures = re.findall(r'src="(data:image/jpeg;base64,[^"]{100,})"', page)
    assert len(pictures) == len(set(pictures)) == 2


def test_what_was_set_aside_is_not_lost_with_the_batch_that_a_power_cut_ends(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films, read = tmp_path / "films", Run.read
    films.mkdir()
    shutil.copyfile(FILM, films / "IM1.jpg")

    def batch(_summary: Summary, _unread: list[Reading]) -> None:
        shutil.copyfile(OTHER, films / "IM1.jpg")

        def cut(*_: object, **__: object) -> None:
            raise RuntimeError("no power")

        monkeypatch.setattr(Run, "read", cut)

    with (
        pytest.raises(RuntimeError, match="no power"),
        Run([films], tmp_path / "out", model=str(bundle.folder)) as run,
    ):
        run_watch(run, [films], batch=batch)
    monkeypatch.setattr(Run, "read", read)
    with Run([films], tmp_path / "out", model=str(bundle.folder)) as run:
        aside, new = sorted(shown_by(run, [films], tmp_path / "out"), reverse=True)
    assert new == "IM1.jpg"
    assert aside.startswith("IM1.jpg (before ")
