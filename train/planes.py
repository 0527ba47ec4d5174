"""A cache of preprocessed films: decoded once, then mapped. Without torch, so that a build needs none either."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from cxredge.errors import CxredgeError, DataError
from cxredge.imaging import Preprocessing, read_film


def cached_planes(files: Sequence[Path], preprocessing: Preprocessing, cache: Path) -> NDArray[np.uint8]:
    """Preprocessed films, uint8 [N, 1, size, size], memory-mapped: decoded once, keyed by file, size, time and preprocessing.

    Raises DataError naming every film that cannot be read.
    """
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.sha256(json.dumps([preprocessing.digest, stats]).encode()).hexdigest()[:16]
    stored = cache / f"planes-{key}.npy"
    if not stored.exists():
        cache.mkdir(parents=True, exist_ok=True)
        shape = (len(files), 1, preprocessing.size, preprocessing.size)
        writing = cache / f"{stored.name}.{os.getpid()}"
        planes = np.lib.format.open_memmap(writing, "w+", np.uint8, shape)
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
            writing.unlink()
            raise DataError(f"{len(bad)} of {len(files)} films cannot be read:\n" + "\n".join(sorted(bad)[:20]))
        planes.flush()
        writing.replace(stored)
    planes_read: NDArray[np.uint8] = np.load(stored, mmap_mode="r")
    return planes_read
