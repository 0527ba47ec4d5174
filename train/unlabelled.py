"""Films that nobody has labelled: a teacher can tell a student about them all the same (Hinton et al. 2015, section 4)."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from cxredge.bundle.bundle import sha256_of
from cxredge.errors import DataError
from cxredge.train.labels import name_in, read_rows
from cxredge.train.sources import Films, is_picture, join


def add_unlabelled(films: Films, where: Sequence[Path]) -> Films:
    """The films of a training with further training films behind them, every label of which is unknown (nan).

    where: folders of pictures, however deep, or tables (.csv) with a column `file`, relative to the table; other columns are not
    read. None becomes a validation film. Raises DataError where there is no film, or one that `films` holds already, be it a copy
    under another name: a test film would be learned from.
    """
    held = {file.resolve(): file for file in films.files}
    by_size: dict[int, list[Path]] = {}
    for file in films.files:
        by_size.setdefault(file.stat().st_size, []).append(file)
    hashed = cache(sha256_of)

    def twin(file: Path) -> Path | None:
        """The film held already that this one is, or is a copy of, byte for byte."""
        alike = (other for other in by_size.get(file.stat().st_size, ()) if hashed(other) == hashed(file))
        return held.get(file.resolve()) or next(alike, None)

    blocks = [films]
    for path in where:
        files = _pictures(path)
        if not files:
            raise DataError(f"{path}: no films; give a folder of pictures, or a table (.csv) with a column `file`")
        if doubled := [(file, other) for file in files if (other := twin(file))]:
            raise DataError(
                f"{path}: {len(doubled)} of its films are in the labelled data already ({doubled[0][0].name} first, the same as"
                f" {doubled[0][1]}), whose test and validation films may not be learned from; leave them out"
            )
        held |= {file.resolve(): file for file in files}
        name = f"unlabelled-{path.stem}"
        blocks.append(
            Films(
                tuple(files),
                np.array([f"{name}/{file}" for file in files]),
                np.full(len(files), name),
                np.full(len(files), "train"),
                films.findings,
                np.full((len(files), len(films.findings)), np.nan, np.float32),
            )
        )
    return join(blocks)


def _pictures(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if is_picture(file))
    named = [name_in(row) for _, row in read_rows(path) if row.get("file")]
    files = [path.parent / name for name in dict.fromkeys(named)]
    if missing := [file for file in files if not file.is_file()]:
        raise DataError(f"{path}: {missing[0]} is not there")
    return files
