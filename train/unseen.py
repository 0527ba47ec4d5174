"""Which films a model was trained on: measured on those it looks better than it is."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cxredge.bundle import open_bundle
from cxredge.errors import DataError
from cxredge.train.rows import same_patient
from cxredge.train.sources import PUBLISHED, Films, join, name_of
from cxredge.train.subject import Subject
from cxredge.train.tables import carved_as, read_data, uncertain_of


def check_unseen(model: Subject, data: Sequence[Path], films: Films, split: str) -> list[str]:
    """What a reader must know of a model and these films: sentences, none where it has seen none of them.

    films: of `data`, by `read_films` with that split. Raises DataError when the model was trained on some of these validation or
    test films, or on others of their patients.
    """
    if model.splits_of is None or split == "train":
        return []
    try:
        seen = learned_from(model.splits_of, data, films)
    except DataError as error:
        if split == "validation":
            raise
        return [f"{model.name} may have been trained on some of these films: {error}"]
    if not seen:
        return called_alike(model.splits_of, model.name, films, "films")
    kind = "films" if split == "all" else f"{split} films"
    said = f"{model.name} was trained on {len(seen)} of these {len(films)} {kind}, or on others of their patients ({seen[0]} first)"
    if split == "all":
        return [f"{said}: they flatter it"]
    instead = {
        "validation": "compare on --split test, or with a model of the same split_seed and validation_share",
        "test": "give films that it has not seen; --split all takes these, and its page says so",
    }
    raise DataError(f"{said}, so it would look better than it is; {instead[split]}")


def learned_from(where: Path, data: Sequence[Path], films: Films) -> list[str]:
    """Names of those films that a run, or a bundle's network, was trained on, or on others of their patients. films: of `data`.

    A bundle carries no list of its films: those of sources that it does not know it has not seen, nor the official test films of
    published ones; the others are carved anew. Raises DataError where that does not give the films it was trained with, and the
    errors of `open_bundle`.
    """
    if (where / "splits.csv").is_file():
        trained = _trained(where)
        seen = {(row["source"], row["file"]) for row in trained}
        # As tables spell them now: a run may be older than that.
        patients = {
            f"{row['source']}/{same_patient(row['patient'].removeprefix(row['source'] + '/'))}" for row in trained
        }
    else:
        sources = list(open_bundle(where).manifest.training.films)
        official = np.isin(films.sources, PUBLISHED) & (films.splits == "test")
        if not (np.isin(films.sources, sources) & ~official).any():
            return []
        known = join([read_data(path, uncertain=uncertain_of(where)) for path in data])
        carved = carved_as(known.take(np.isin(known.sources, sources)), where)
        learned = carved.take(carved.splits == "train")
        seen = set(zip(learned.sources.tolist(), learned.names, strict=True))
        patients = set(learned.patients.tolist())
    given = zip(films.sources.tolist(), films.names, films.patients.tolist(), strict=True)
    return [name for source, name, patient in given if (source, name) in seen or patient in patients]


def called_alike(where: Path, name: str, films: Films, kind: str) -> list[str]:
    """A sentence where films are called as films of another data set that a run was trained on. name, kind: what it calls them."""
    alike = _namesakes(where, films)
    return [
        f"{len(alike)} of these {len(films)} {kind} are called as films of another data set that {name} was trained on"
        f" ({first} first); if they are the same, they flatter it"
        for first in alike[:1]
    ]


def _namesakes(where: Path, films: Films) -> list[str]:
    """Names of films of other sources than a run's whose file is called as one that it was trained on: a table may have been
    given another name."""
    if not (where / "splits.csv").is_file():
        return []
    trained = _trained(where)
    files, sources = {name_of(Path(row["file"])) for row in trained}, {row["source"] for row in trained}
    given = zip(films.names, films.files, films.sources.tolist(), strict=True)
    return [name for name, file, source in given if name_of(file) in files and source not in sources]


def _trained(run: Path) -> list[dict[str, str]]:
    with (run / "splits.csv").open(newline="", encoding="utf-8") as lines:
        return [row for row in csv.DictReader(lines) if row["split"] == "train"]
