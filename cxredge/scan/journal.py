"""The run's memory: what was read, with which model, so that a second run goes on where the first stopped."""

import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from cxredge.errors import OutputError
from cxredge.scan.discover import Found, printable
from cxredge.scan.reading import Priority, Reading, Status
from cxredge.scan.scanner import Pictures

_SCHEMA = """
CREATE TABLE IF NOT EXISTS readings (
    path TEXT NOT NULL, read_with TEXT NOT NULL, size INTEGER, modified_ns INTEGER,
    status TEXT NOT NULL, reading TEXT NOT NULL, thumbnail BLOB, heat_map BLOB,
    PRIMARY KEY (path, read_with)
) WITHOUT ROWID
"""
# A power cut costs at most this much work; a commit a film would cost more than the inference.
COMMIT_SECONDS = 0.5


class Journal:
    """SQLite in write-ahead mode. Used from one thread.

    read_with: what a reading depends on besides the file (bundle, engine, cxredge); another value reads anew.
    Raises OutputError when the folder cannot be written or the journal is damaged.
    """

    def __init__(self, file: Path, *, read_with: str) -> None:
        self._read_with = read_with
        self._committed = time.monotonic()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(file)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise OutputError(f"{file}: results cannot be written there ({error}); choose another --output") from None

    def known(self, film: Found) -> Reading | None:
        """The earlier reading of this very file with this very model; None when it must be read (again)."""
        size, modified = _fingerprint(film.path)
        row = self._db.execute(
            "SELECT reading FROM readings WHERE path=? AND read_with=? AND size IS ? AND modified_ns IS ? AND status != ?",
            (_path(film), self._read_with, size, modified, Status.FAILED.value),
        ).fetchone()
        return None if row is None else _reading(row[0], film.name)

    def add(self, film: Found, reading: Reading, pictures: Pictures) -> None:
        """Remember a reading; committed every half second and at the end."""
        size, modified = _fingerprint(film.path)
        row = (
            _path(film), self._read_with, size, modified, reading.status.value, json.dumps(asdict(reading)),
            pictures.thumbnail, pictures.heat_map,
        )  # fmt: skip
        try:
            self._db.execute("INSERT OR REPLACE INTO readings VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            if time.monotonic() - self._committed > COMMIT_SECONDS:
                self.commit()
        except sqlite3.Error as error:
            raise OutputError(
                f"the journal cannot be written ({error}); is the disk full? Run the same command to go on"
            ) from None

    def commit(self) -> None:
        self._db.commit()
        self._committed = time.monotonic()

    def readings(self, films: list[Found]) -> Iterator[Reading]:
        """The readings of these films, in their order."""
        for film in films:
            row = self._db.execute(
                "SELECT reading FROM readings WHERE path=? AND read_with=?", (_path(film), self._read_with)
            ).fetchone()
            yield _reading(row[0], film.name)

    def pictures(self, film: Found) -> tuple[bytes | None, bytes | None]:
        """Thumbnail and heat map of a film, as JPEG."""
        row = self._db.execute(
            "SELECT thumbnail, heat_map FROM readings WHERE path=? AND read_with=?", (_path(film), self._read_with)
        ).fetchone()
        return (row[0], row[1]) if row else (None, None)

    def forget(self) -> None:
        """Begin anew."""
        self._db.execute("DELETE FROM readings")
        self.commit()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Kept even when the run was interrupted: that is what the journal is for.
        self._db.commit()
        self._db.close()


def _path(film: Found) -> str:
    return printable(film.path.absolute().as_posix())


def _fingerprint(path: Path) -> tuple[int | None, int | None]:
    try:
        stat = path.stat()
    except OSError:
        return None, None
    return stat.st_size, stat.st_mtime_ns


def _reading(stored: str, name: str) -> Reading:
    said = json.loads(stored)
    return Reading(**{**said, "file": name, "status": Status(said["status"]), "priority": Priority(said["priority"])})
