"""A film whose decoder ends the whole process ends one scan and not every one."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from house import EXAMPLES, Cli, rows_of

from cxredge.bundle import Bundle
from cxredge.scan import in_hand
from cxredge.scan.discover import key
from cxredge.scan.in_hand import InHand, survives
from cxredge.scan.reading import Status
from cxredge.scan.run import Run

# The decoder of one film breaks down, as GDCM's did over a precision that it did not know.
DEADLY = """
import os, sys
from cxredge.imaging import preprocess
decode = preprocess.decode
preprocess.decode = lambda path, **more: os.abort() if path.name == "b.jpg" else decode(path, **more)
from cxredge.cli import main
sys.argv = ["cxredge", "scan", *sys.argv[1:]]
main()
"""


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    for name, film in zip("abc", sorted(EXAMPLES.glob("*.jp*g")), strict=False):
        shutil.copyfile(film, folder / f"{name}.jpg")
    return folder


def test_the_scan_after_the_one_that_died_reads_all_other_films(
    cli: Cli, films: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = subprocess.run(
        [sys.executable, "-c", DEADLY, films, "-o", "out", "--workers", "1"],
        cwd=cli.folder, env=cli.environment, check=False, capture_output=True,
    )  # fmt: skip
    assert died.returncode == -signal.SIGABRT
    assert not (cli.folder / "out" / "results.csv").exists()
    broken = f"import os, sys\nif sys.argv[1].endswith('b.jpg'): os.abort()\n{in_hand.TRIAL}"
    monkeypatch.setattr(in_hand, "TRIAL", broken)
    # And the one after that: what failed is tried again, and still ends nothing.
    for _ in range(2):
        with Run([films], cli.folder / "out", model=str(bundle.folder)) as run:
            summary, unread = run.update(run.films())
        assert {row["file"]: row["status"] for row in rows_of(cli.folder / "out")} == {
            "a.jpg": "ok", "b.jpg": "failed", "c.jpg": "ok",
        }  # fmt: skip
        assert summary.failed == 1
        assert [(one.reason, one.status) for one in unread] == [("decoder_broke_down", Status.FAILED)]
    # With a decoder that is mended it is a film like any other.
    monkeypatch.undo()
    assert cli("scan", films, "-o", "out").returncode == 0
    assert {row["status"] for row in rows_of(cli.folder / "out")} == {"ok"}
    assert not (cli.folder / "out" / "in-hand").exists()


def test_a_film_lives_or_dies_by_itself(films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (films / "bad.jpg").write_bytes(b"\xff\xd8 no film")
    assert survives(films / "a.jpg", reduced=False)
    assert survives(films / "bad.jpg", reduced=True)
    monkeypatch.setattr(in_hand, "TRIAL", "import os; os.abort()")
    assert not survives(films / "a.jpg", reduced=False)


def test_only_what_was_begun_and_not_done_is_left(tmp_path: Path) -> None:
    log = InHand(tmp_path / "in-hand")
    for path in (tmp_path / "a", tmp_path / "b\n-c", tmp_path / "d"):
        log.begin(path)
    log.done(tmp_path / "a")
    again = InHand(tmp_path / "in-hand")
    assert again.left == {key(tmp_path / "b\n-c"), key(tmp_path / "d")}
    again.close([tmp_path / "d"])
    log = InHand(tmp_path / "in-hand")
    assert log.left == {key(tmp_path / "d")}
    log.close([])
    assert not (tmp_path / "in-hand").exists()
