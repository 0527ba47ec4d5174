"""Films as tensors: a cache of preprocessed planes, and augmentation of whole batches."""

import hashlib
import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

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


def augment(films: Tensor, generator: torch.Generator) -> Tensor:
    """What a film may differ in and still be the same film: position, proportions, exposure, contrast, a covered patch.

    films: uint8 [N, 1, H, W] -> uint8, same shape. Rotation to 8 degrees, scale 0.88-1.14, each side stretched by up to
    12 % (published copies are squashed to squares, a clinic's are not), shift to 6 %, gamma 0.7-1.4, contrast, noise.
    Never mirrored: that would hide dextrocardia.
    """
    n = len(films)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=generator) * (high - low) + low

    angle, stretch = uniform(-8, 8) * math.pi / 180, uniform(-0.12, 0.12)
    scale = uniform(0.88, 1.14)
    sx, sy = scale * (1 + stretch), scale * (1 - stretch)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack(
        [cos * sx, -sin * sx, uniform(-0.12, 0.12), sin * sy, cos * sy, uniform(-0.12, 0.12)], dim=1
    ).view(n, 2, 3)
    grid = torch.nn.functional.affine_grid(theta, list(films.shape), align_corners=False)
    moved = torch.nn.functional.grid_sample(films.float() / 255, grid, align_corners=False)
    exposed = moved.pow(uniform(0.7, 1.4, 1, 1, 1)) * uniform(0.85, 1.1, 1, 1, 1) + uniform(-0.05, 0.05, 1, 1, 1)
    noise = torch.randn(moved.shape, generator=generator) * uniform(0, 0.02, 1, 1, 1)
    film = ((exposed + noise).clamp_(0, 1) * 255).to(torch.uint8)
    side = films.shape[-1]
    for i in torch.nonzero(torch.rand(n, generator=generator) < 0.25).flatten().tolist():
        high, wide = torch.randint(side // 16, side // 5, (2,), generator=generator).tolist()
        top = int(torch.randint(0, side - high, (1,), generator=generator))
        left = int(torch.randint(0, side - wide, (1,), generator=generator))
        film[i, :, top : top + high, left : left + wide] = 0
    return film
