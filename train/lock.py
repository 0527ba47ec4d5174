"""One process at a time writes a folder."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from cxredge.errors import OutputError

LOCK = "run.lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder until the block ends, or the process does, however it ends.

    An empty SQLite file is locked, as `scan` locks its journal: every system lets go of that. Raises OutputError when another
    process is there, or the folder cannot be written.
    """
    try:
        db = sqlite3.connect(folder / LOCK, timeout=0, isolation_level=None)
        db.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise OutputError(
                f"{folder}: another process trains there; wait for it, or choose another --output"
            ) from None
        raise OutputError(f"{folder}: cannot be written ({error}); choose another --output") from None
    with closing(db):
        yield
