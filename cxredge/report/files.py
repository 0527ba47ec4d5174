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
