"""What tells one film from another: every film of a data set decoded once, by the road that training takes."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxredge.errors import CxredgeError, FilmRefusedError
from cxredge.imaging import Preprocessing
from cxredge.imaging.preprocess import decode, prepare

# No film is larger, so a JPEG is decoded whole, where training would decode a smaller one of a large film.
_WHOLE = 1 << 16
# What is done, how many films of how many are through.
Tick = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Look:
    """A film that can be read. digest: of its pixels and shape. coarse: uint8 [24, 24]."""

    digest: bytes
    coarse: NDArray[np.uint8]


def look_at(files: list[Path], tick: Tick | None) -> list[Look | str]:
    """Each film, or why it cannot be read."""
    preprocessing = Preprocessing()

    def look(file: Path) -> Look | str:
        try:
            plane = decode(file, at_least=_WHOLE)
            coarse = prepare(plane, preprocessing).coarse
        except FilmRefusedError as error:
            return str(error)
        except (CxredgeError, OSError) as error:
            return f"cannot be read here: {error}"
        digest = hashlib.sha256(repr(plane.pixels.shape).encode() + plane.pixels.tobytes())
        return Look(digest.digest(), coarse)

    found: list[Look | str] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for one in pool.map(look, files):
            found.append(one)
            if tick is not None:
                tick("Decoding films", len(found), len(files))
    return found
