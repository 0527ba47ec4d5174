"""A cache of preprocessed films: decoded once, then mapped. Without torch, so that a build needs none either."""

import errno
import hashlib
import json
import os
import platform
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from cxredge.errors import CxredgeError, DataError, OutputError
from cxredge.imaging import Preprocessing, read_film


def cached_planes(files: Sequence[Path], preprocessing: Preprocessing, cache: Path) -> NDArray[np.uint8]:
    """Preprocessed films, uint8 [N, 1, size, size], memory-mapped: decoded once, keyed by file, size, time and preprocessing.

    Raises DataError naming every film that cannot be read, OutputError when the disk has no room for them.
    """
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.sha256(json.dumps([preprocessing.digest, stats]).encode()).hexdigest()[:16]
    stored = cache / f"planes-{key}.npy"
    shape = (len(files), 1, preprocessing.size, preprocessing.size)
    if (kept := _kept(stored, shape)) is not None:
        return kept
    with _writing(stored, shape) as planes:
        _decode(files, preprocessing, planes)
    return np.lib.format.open_memmap(stored, "r")


def _kept(stored: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """The films decoded earlier; None where there are none, or a copy cut short left less than all of them."""
    try:
        planes = np.lib.format.open_memmap(stored, "r")
    except (OSError, ValueError):
        return None
    return planes if planes.shape == shape and planes.dtype == np.uint8 else None


@contextmanager
def _writing(stored: Path, shape: tuple[int, ...]) -> Iterator[NDArray[np.uint8]]:
    """A mapped array, all of it on the disk beforehand, that gets its name when the block ends well and is gone otherwise."""
    writing = stored.with_name(f"{stored.name}.{platform.node()}.{os.getpid()}")
    try:
        stored.parent.mkdir(parents=True, exist_ok=True)
        _drop_unfinished(stored.parent)
        planes = np.lib.format.open_memmap(writing, "w+", np.uint8, shape)
        _take_room(writing)
        yield planes
        planes.flush()
        writing.replace(stored)
    except OSError as error:
        raise OutputError(
            f"{stored.parent}: cannot take {shape[0]} decoded films, {np.prod(shape) / 1e6:,.0f} MB ({error.strerror or error});"
            " free some disk space or choose another --cache"
        ) from error
    finally:
        with suppress(OSError):
            writing.unlink()


def _take_room(file: Path) -> None:
    """Fill a sparse file: a map takes its room as it is written to, and a full disk would then end the process without a word."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        with file.open("r+b") as out:
            os.posix_fallocate(out.fileno(), 0, file.stat().st_size)
    except OSError as error:
        # Some file systems cannot; that alone is no reason to stop.
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise


def _drop_unfinished(cache: Path) -> None:
    """Remove what processes of this machine that were killed had begun to write."""
    for left in cache.glob("planes-*.npy.*"):
        *machine, process = left.name.split(".npy.", 1)[1].rsplit(".", 1)
        if machine in ([], [platform.node()]) and process.isdigit() and not _lives(int(process)):
            with suppress(OSError):
                left.unlink()


def _lives(process: int) -> bool:
    # Elsewhere a signal of no meaning may end a process; there what is left stays.
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _decode(files: Sequence[Path], preprocessing: Preprocessing, planes: NDArray[np.uint8]) -> None:
    """Fill the planes on all cores. Raises DataError naming every film that cannot be read."""
    bad: list[str] = []

    def fill(i: int) -> None:
        try:
            planes[i] = read_film(files[i], preprocessing).image
        except (CxredgeError, OSError) as error:
            bad.append(f"{files[i]}: {error}")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in track(pool.map(fill, range(len(files))), "Decoding films", total=len(files), transient=True):
            pass
    if bad:
        raise DataError(f"{len(bad)} of {len(files)} films cannot be read:\n" + "\n".join(sorted(bad)[:20]))
