"""Writing a result so that a crash or a power cut leaves either the old file or the new one, never half of it."""

import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal, overload

from cxredge.errors import OutputError


@overload
def atomic_write(path: Path, mode: Literal["w"] = "w") -> AbstractContextManager[IO[str]]: ...
@overload
def atomic_write(path: Path, mode: Literal["wb"]) -> AbstractContextManager[IO[bytes]]: ...
@contextmanager
def atomic_write(path: Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """A file to write to, UTF-8 text or bytes, that takes the place of `path` only when the block ends well.

    Text is written as it is, line ends included; what UTF-8 cannot hold (a file name in another encoding) is
    written as a backslash escape. The folder must exist. Raises OutputError when the disk does not take it.
    """
    # A dot in front: a scan of this folder leaves it out should the machine die before it is removed.
    unfinished = path.with_name(f".cxredge-{secrets.token_hex(6)}")
    try:
        with _create(unfinished, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}); close it where it is open, free some disk space,"
            " or choose another --output"
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink()


def drop_unfinished(folder: Path) -> None:
    """Remove what a killed run had begun to write into a folder or one of its own folders, and could not finish."""
    for path in (*folder.glob(".cxredge-*"), *folder.glob("*/.cxredge-*")):
        with suppress(OSError):
            path.unlink()


def write_picture(path: Path, picture: bytes) -> None:
    """One of thousands of small files, on the disk for good after `flush_pictures`.

    Its name must come from its content: a file of that name and size stays as it is, and one that was cut off when the
    machine died, which no page shows yet, is made whole by the next run. Raises OSError.
    """
    name = os.fspath(path)
    with suppress(FileNotFoundError):
        if os.stat(name).st_size == len(picture):  # noqa: PTH116 - pathlib takes as long as the system calls
            return
    try:
        with open(name, "wb") as file:  # noqa: PTH123
            file.write(picture)
            if not hasattr(os, "sync"):
                file.flush()
                os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def flush_pictures() -> None:
    """Put all pictures written so far on the disk; once, since a flush of each would take longer than reading a film."""
    if hasattr(os, "sync"):
        os.sync()


def _create(path: Path, mode: Literal["w", "wb"]) -> IO[Any]:
    if mode == "wb":
        return path.open("xb")
    return path.open("x", encoding="utf-8", errors="backslashreplace", newline="")


def _sync_folder(folder: Path) -> None:
    """Make the new name itself survive a power cut, where the system lets a folder be opened (Windows does not)."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
