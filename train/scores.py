"""Films through a model, one at a time as a clinic reads them, decoded as they are needed so that any number fits."""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cxredge.errors import CxredgeError, FilmFailedError, FilmRefusedError
from cxredge.imaging import Film, Preprocessing, read_film
from cxredge.runtimes import MetadataSession, Outputs, Session
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
    metadata: NDArray[np.float32] | None = None,
    look: Look | None = None,
    tick: Tick | None = None,
) -> Scores:
    """Score films with a model on an engine. look: called with each film's row, pixels and outputs.

    metadata: of the films, float32 [N, 6], see `train.metadata`; None: the films alone. Raises RuntimeMissingError, and
    CxredgeError when the model does not keep the network's contract, or takes no metadata where some is given.
    """
    with tempfile.TemporaryDirectory() as scratch:
        session = open_engine(subject.path, runtime, threads, Path(scratch))
        try:
            return _score(subject, files, _reader(subject, session, runtime, metadata), look, tick)
        finally:
            session.close()


def _reader(
    subject: Subject, session: Session, runtime: str, metadata: NDArray[np.float32] | None
) -> Callable[[int, NDArray[np.uint8]], Outputs]:
    """What gives the outputs for a film, by its row and its pixels, uint8 [1, 1, H, W]."""
    if metadata is None:
        return lambda _, image: session.run(image)
    if not getattr(session, "takes_metadata", False):
        raise CxredgeError(
            f"{subject.name} takes no age, sex or view in {runtime}: only what was trained with `metadata = true` does, in PyTorch"
            " and ONNX Runtime; leave --metadata out"
        )
    taking = cast(MetadataSession, session)
    return lambda row, image: taking.run(image, metadata[row : row + 1])


def _score(
    subject: Subject, files: Sequence[Path], run: Callable[[int, NDArray[np.uint8]], Outputs],
    look: Look | None, tick: Tick | None,
) -> Scores:  # fmt: skip
    logits = np.full((len(files), len(subject.findings)), np.nan)
    far = np.full(len(files), np.nan)
    unread = {}
    for row, film in read_ahead(files, subject.preprocessing):
        if isinstance(film, Film):
            outputs = run(row, film.image[None])
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
