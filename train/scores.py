"""Films through a model, one at a time as a clinic reads them, decoded as they are needed so that any number fits."""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxredge.errors import CxredgeError, FilmFailedError, FilmRefusedError
from cxredge.imaging import Film, Preprocessing, read_film
from cxredge.runtimes import Outputs, Session
from cxredge.train.engine import open_engine
from cxredge.train.subject import Subject

_AHEAD = 64
Look = Callable[[int, Film, Outputs], None]
Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class Scores:
    """What a model says of N films, L findings.

    logits: float64 [N, L], nan in the row of a film that could not be read. atypicality: float64 [N] or None.
    unread: row -> why.
    """

    logits: NDArray[np.float64]
    atypicality: NDArray[np.float64] | None
    unread: dict[int, str]

    @property
    def probabilities(self) -> NDArray[np.float64]:
        return 1 / (1 + np.exp(-self.logits))

    @property
    def read(self) -> NDArray[np.bool_]:
        """Which films have scores, [N]."""
        return np.array([not np.isnan(row).any() for row in self.logits], bool)


def score(
    subject: Subject,
    files: Sequence[Path],
    runtime: str,
    *,
    threads: int = 1,
    look: Look | None = None,
    tick: Tick | None = None,
) -> Scores:
    """Score films with a model on an engine. look: called with each film's row, pixels and outputs.

    Raises RuntimeMissingError, and CxredgeError when the model does not keep the network's contract.
    """
    with tempfile.TemporaryDirectory() as scratch:
        session = open_engine(subject.path, runtime, threads, Path(scratch))
        try:
            return _score(subject, files, session, look, tick)
        finally:
            session.close()


def _score(
    subject: Subject, files: Sequence[Path], session: Session, look: Look | None, tick: Tick | None
) -> Scores:  # fmt: skip
    logits = np.full((len(files), len(subject.findings)), np.nan)
    far = np.full(len(files), np.nan)
    unread = {}
    for row, film in read_ahead(files, subject.preprocessing):
        if isinstance(film, Film):
            outputs = session.run(film.image[None])
            if outputs.logits.shape != (1, len(subject.findings)):
                raise CxredgeError(
                    f"{subject.path}: gives logits of shape {outputs.logits.shape}, expected (1, {len(subject.findings)});"
                    " it does not keep the network's contract or has other findings"
                )
            if not np.isfinite(outputs.logits).all():
                raise CxredgeError(f"{subject.path}: gives numbers that are not finite for {files[row]}")
            logits[row] = outputs.logits[0]
            if outputs.atypicality is not None:
                far[row] = outputs.atypicality[0]
            if look is not None:
                look(row, film, outputs)
        else:
            unread[row] = film
        if tick is not None:
            tick(row + 1, len(files))
    return Scores(logits, None if np.isnan(far).all() else far, unread)


def read_ahead(files: Sequence[Path], preprocessing: Preprocessing) -> Iterator[tuple[int, Film | str]]:
    """Row and film, or row and why it cannot be read, in order; a few dozen films are decoded ahead on all cores."""

    def read(file: Path) -> Film | str:
        try:
            return read_film(file, preprocessing)
        except (FilmRefusedError, FilmFailedError, OSError) as error:
            return f"{file.name}: {error}"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), _AHEAD):
            yield from enumerate(pool.map(read, files[start : start + _AHEAD]), start)
