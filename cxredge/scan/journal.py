"""The run's memory: what was read, with which model, so that a second run goes on where the first stopped."""

import base64
import hashlib
import itertools
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from types import TracebackType

from cxredge.errors import OutputError
from cxredge.scan.discover import Found, key
from cxredge.scan.pseudonym import SALT_BYTES, own_salt
from cxredge.scan.reading import Priority, Reading, Status
from cxredge.scan.scanner import Pictures

_SCHEMA = """
CREATE TABLE IF NOT EXISTS readings (
    path TEXT NOT NULL, read_with TEXT NOT NULL, size INTEGER, modified_ns INTEGER, content BLOB,
    status TEXT NOT NULL, reading TEXT NOT NULL, thumbnail BLOB, heat_maps TEXT, names_patient INTEGER NOT NULL,
    PRIMARY KEY (path, read_with)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS secrets (salt BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS watched (path BLOB PRIMARY KEY, name TEXT NOT NULL) WITHOUT ROWID;
"""
# Raised when the columns or a reading's fields change; an older journal is begun anew.
_VERSION = 6
# Of a file so many blocks are looked at, the first and the last among them: a header names study and patient in its first
# kilobytes, and films have black edges.
_BLOCKS, _BLOCK_BYTES = 16, 16_384
# A power cut costs at most this much work; a commit a film would cost more than the inference.
COMMIT_SECONDS = 0.5
# Another scan may be about to end.
_WAIT_SECONDS = 2.0


# Size, time of last change, and a hash of content; None each where the file cannot be looked at.
Looks = tuple[int | None, int | None, bytes | None]
GONE = (None, None)


class Journal:
    """SQLite in write-ahead mode, held by one process at a time and used from one thread.

    read_with: what a reading depends on besides the file (bundle, engine, cxredge); another value reads anew. It is set once
    the engine is known, before anything is looked up.
    salt: of the pseudonyms, the user's own where there is one, which `salt_is_own` tells. restart: forget earlier readings, and
    replace a journal that is damaged.
    Raises OutputError when the folder cannot be written, another scan writes there, or the journal is damaged.
    """

    def __init__(self, file: Path, *, restart: bool = False) -> None:
        self.read_with = ""
        self._file = file
        self._committed = time.monotonic()
        try:
            self._db = self._open()
        except sqlite3.DatabaseError as error:
            damaged = not isinstance(error, sqlite3.OperationalError)
            if not (damaged and restart):
                raise self._unusable(error, damaged=damaged) from None
            for part in ("", "-wal", "-shm"):
                file.with_name(file.name + part).unlink(missing_ok=True)
            self._db = self._open()
        except OSError as error:
            raise self._unusable(error) from None
        with self._said():
            if restart:
                self._db.execute("DELETE FROM readings")
                self._db.execute("DELETE FROM watched")
                self._db.commit()
            own = own_salt()
            self.salt, self.salt_is_own = own or self._kept_salt(), own is not None

    def _open(self) -> sqlite3.Connection:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self._file, timeout=_WAIT_SECONDS)
        try:
            # Two scans into one folder would undo each other; without a shared-memory file it works on network shares too.
            db.execute("PRAGMA locking_mode=EXCLUSIVE")
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            # What is forgotten may name patients.
            db.execute("PRAGMA secure_delete=ON")
            if db.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
                db.execute("DROP TABLE IF EXISTS readings")
                db.execute(f"PRAGMA user_version={_VERSION}")
            db.executescript(_SCHEMA)
            db.commit()
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _kept_salt(self) -> bytes:
        """A salt of this folder alone, where the user's own cannot be kept."""
        if self._db.execute("SELECT salt FROM secrets").fetchone() is None:
            self._db.execute("INSERT INTO secrets VALUES (?)", (secrets.token_bytes(SALT_BYTES),))
            self._db.commit()
        return bytes(self._db.execute("SELECT salt FROM secrets").fetchone()[0])

    def _unusable(self, error: Exception, *, damaged: bool = False) -> OutputError:
        if damaged:
            return OutputError(
                f"{self._file}: the journal is damaged ({error}); add --restart to read every film again"
            )
        if "locked" in str(error):
            return OutputError(f"{self._file}: another scan writes there; wait for it, or choose another --output")
        return OutputError(f"{self._file}: results cannot be written there ({error}); choose another --output")

    @contextmanager
    def _said(self) -> Iterator[None]:
        """SQLite's errors as one that says what to do."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OutputError(
                f"{self._file}: the journal cannot be written ({error}); is the disk full? Then run the same command to go on"
            ) from None
        except sqlite3.DatabaseError as error:
            raise self._unusable(error, damaged=True) from None

    def known(self, film: Found, *, heat_maps_too: bool = False) -> bool:
        """Whether this very file was read with this very model, so that it need not be read again.

        heat_maps_too: a reading of a flagged film whose maps were not asked for then does not count.
        """
        size, modified, content = fingerprint(film.path)
        with self._said():
            row = self._db.execute(
                "SELECT heat_maps IS NULL AND thumbnail IS NOT NULL, reading FROM readings WHERE path=? AND read_with=?"
                " AND size IS ? AND modified_ns IS ? AND content IS ? AND status != ?",
                (key(film.path), self.read_with, size, modified, content, Status.FAILED.value),
            ).fetchone()
        if row is None:
            return False
        return not (heat_maps_too and row[0] and any(json.loads(row[1])["flags"].values()))

    def add(self, film: Found, reading: Reading, pictures: Pictures, looks: Looks) -> None:
        """Remember a reading; committed every half second and at the end. looks: the file's when its reading began."""
        size, modified, content = looks
        row = (
            key(film.path), self.read_with, size, modified, content, reading.status.value, json.dumps(vars(reading)),
            pictures.thumbnail, _stored(pictures.heat_maps), bool(reading.patient_id or reading.patient_name),
        )  # fmt: skip
        with self._said():
            self._db.execute("INSERT OR REPLACE INTO readings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Make sure of what was added."""
        with self._said():
            self._db.commit()
        self._committed = time.monotonic()

    def reading(self, film: Found) -> Reading | None:
        """The reading of a film with this model, under the name it is called by now; None when there is none."""
        with self._said():
            row = self._db.execute(
                "SELECT reading FROM readings WHERE path=? AND read_with=?", (key(film.path), self.read_with)
            ).fetchone()
        return None if row is None else _reading(row[0], film.name)

    def content(self, film: Found) -> tuple[int, bytes] | None:
        """Size and hash of the file that a reading with this model is of."""
        with self._said():
            row = self._db.execute(
                "SELECT size, content FROM readings WHERE path=? AND read_with=? AND content IS NOT NULL",
                (key(film.path), self.read_with),
            ).fetchone()
        return row if row is None else (int(row[0]), bytes(row[1]))

    def pictures(self, film: Found) -> Pictures:
        """What `add` was given for this film."""
        with self._said():
            row = self._db.execute(
                "SELECT thumbnail, heat_maps FROM readings WHERE path=? AND read_with=?",
                (key(film.path), self.read_with),
            ).fetchone()
        return Pictures(row[0], _loaded(row[1])) if row else Pictures()

    def set_aside(self, film: Found, name: str) -> Found:
        """Keep the reading of a film whose file another one has taken the place of, under a name of its own."""
        aside = Found(name, film.path.with_name(PurePosixPath(name).name))
        # Clocks stand still and jump: what was set aside before stays.
        for number in itertools.count(2):
            if self.reading(aside) is None:
                break
            again = f"{name[:-1]}, {number})"
            aside = Found(again, film.path.with_name(PurePosixPath(again).name))
        with self._said():
            self._db.execute(
                "UPDATE readings SET path=? WHERE path=? AND read_with=?",
                (key(aside.path), key(film.path), self.read_with),
            )
        return aside

    def watched(self) -> list[Found]:
        """What a watch showed that did not come to its end, such as by a power cut, and was read with this model."""
        with self._said():
            rows = self._db.execute("SELECT path, name FROM watched").fetchall()
        return [
            film
            for film in (Found(name, Path(os.fsdecode(path))) for path, name in rows)
            if self.reading(film) is not None
        ]

    def keep_watched(self, films: Iterable[Found]) -> None:
        """Remember what a watch shows by now; nothing once it has come to its end."""
        with self._said():
            self._db.execute("DELETE FROM watched")
            rows = ((os.fsencode(film.path), film.name) for film in films)
            self._db.executemany("INSERT INTO watched VALUES (?, ?)", rows)
        self.commit()

    def forget_patients(self) -> None:
        """Drop every reading that carries a patient's name or number, of whatever model."""
        with self._said():
            self._db.execute("DELETE FROM readings WHERE names_patient")
        self.commit()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Kept even when the run was interrupted: that is what the journal is for.
        try:
            if error is None:
                self.commit()
            else:
                # The first error is the one to tell.
                with suppress(OutputError):
                    self.commit()
        finally:
            with suppress(sqlite3.Error):
                self._db.close()


def fingerprint(path: Path) -> Looks:
    """What tells a file from another one that lay there before.

    Its content too: uncompressed films of one machine are of one size, and cameras whose clock stands still, or archives, give all
    of them one time. All of it up to a quarter of a megabyte, of a larger one as much, spread evenly.
    """
    try:
        size, modified = stamp(path)
        if size is None:
            return None, None, None
        content = hashlib.blake2b(digest_size=16)
        with path.open("rb") as file:
            for block in range(_BLOCKS):
                file.seek(max(0, size - _BLOCK_BYTES) * block // (_BLOCKS - 1))
                content.update(file.read(_BLOCK_BYTES))
        return size, modified, content.digest()
    except OSError:
        return *stamp(path), None


def stamp(path: Path) -> tuple[int | None, int | None]:
    """Size and time of last change, without opening the file; `GONE` where there is none."""
    try:
        said = path.stat()
    except OSError:
        return GONE
    # A pipe must not be opened: nobody may be at its other end.
    return (said.st_size, said.st_mtime_ns) if S_ISREG(said.st_mode) else GONE


def _stored(heat_maps: dict[str, bytes] | None) -> str | None:
    if heat_maps is None:
        return None
    return json.dumps({finding: base64.b64encode(png).decode() for finding, png in heat_maps.items()})


def _loaded(stored: str | None) -> dict[str, bytes] | None:
    if stored is None:
        return None
    return {finding: base64.b64decode(png) for finding, png in json.loads(stored).items()}


def _reading(stored: str, name: str) -> Reading:
    said = json.loads(stored)
    typed = {"status": Status(said["status"]), "priority": Priority(said["priority"]), "near": tuple(said["near"])}
    return Reading(**{**said, "file": name, **typed})
