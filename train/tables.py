"""The films to evaluate on: data sets in their published layout, or a generic labels table, by split."""

import csv
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from cxredge.bundle import open_bundle
from cxredge.errors import DataError
from cxredge.train.labels import read_table
from cxredge.train.sources import Films, Uncertain, carve_validation, join, read_source
from cxredge.train.subject import read_run

SPLITS = ("test", "validation", "train", "all")


def read_films(data: Sequence[Path], split: str, *, splits_of: Path | None = None) -> Films:
    """The films of one split of one or more data sets; a .csv file is read as a labels table.

    splits_of: a finished run, or a bundle (a folder, or a shipped model's name), whose own validation films then stand for
    `validation`. Raises DataError, and the errors of `open_bundle`.
    """
    uncertain = uncertain_of(splits_of) if splits_of is not None else "ignore"
    films = join([read_data(path, uncertain=uncertain) for path in data])
    if splits_of is not None and not (splits_of / "splits.csv").is_file():
        films = carved_as(films, splits_of)
    elif splits_of is not None:
        films = _split_as(films, splits_of)
        if split in {"train", "validation"}:
            _check_same(films, splits_of)
    if split == "all":
        return films
    return films.split(split)


def uncertain_of(where: Path) -> Uncertain:
    """What CheXpert's uncertain labels stood for when a run, or a bundle's network, was trained: validation was carved by it."""
    if (where / "run.json").is_file():
        facts = read_run(where)
    elif (where / "splits.csv").is_file():
        return "ignore"  # the splits alone, as a run that did not end leaves them
    else:
        facts = open_bundle(where).manifest.training.recipe
    return cast(Uncertain, facts.get("uncertain", "ignore"))


def read_data(path: Path, *, uncertain: Uncertain = "ignore") -> Films:
    """A data set in its published layout (`read_source`), or a .csv file as a labels table (`read_table`). Raises DataError."""
    return read_table(path) if path.suffix.lower() == ".csv" else read_source(path, uncertain=uncertain)


def _split_as(films: Films, run: Path) -> Films:
    """The splits as the run carved them. Test films stay what they are published as."""
    said = _splits(run)
    splits = films.splits.astype("U10")
    for i, film in enumerate(zip(films.sources.tolist(), films.names, strict=True)):
        if splits[i] != "test":
            splits[i] = said.get(film, splits[i])
    return replace(films, splits=splits)


def _check_same(films: Films, run: Path) -> None:
    """Raise DataError where the training and validation films of a source are not those of the run, or bear other labels.

    films: split as in the run. It may have learned from more sources than these; its hash of labels is of all of them.
    """
    said = {film for film, split in _splits(run).items() if split != "test"}
    own = films.take(films.splits != "test")
    given = set(zip(own.sources.tolist(), own.names, strict=True))
    for source in sorted(set(films.sources.tolist()) & {source for source, _ in said}):
        then, now = ({film for film in held if film[0] == source} for held in (said, given))
        if then != now:
            odd = sorted(name for _, name in then ^ now)
            raise DataError(
                f"{run} was trained and validated on other films of {source} than those given: {len(then)}, here {len(now)}"
                f" ({odd[0]} first); give the same --data"
            )
    facts = read_run(run) if (run / "run.json").is_file() else {}
    whole = set(own.sources.tolist()) == {source for source, _ in said}
    if whole and facts.get("data_sha256") not in {None, data_hash(own.ordered(facts.get("findings", ())))}:
        raise DataError(
            f"{run} was trained and validated on these films with other labels or patients; give the same --data"
        )


def _splits(run: Path) -> dict[tuple[str, str], str]:
    """Source and name of each film of a run, and the split it had."""
    with (run / "splits.csv").open(newline="", encoding="utf-8") as lines:
        return {(row["source"], row["file"]): row["split"] for row in csv.DictReader(lines)}


def carved_as(films: Films, where: Path) -> Films:
    """The splits as a bundle's network was trained with: carved anew as its manifest says, which gives the same films again.

    Raises DataError where these are not the films it was validated on.
    """
    training = open_bundle(where).manifest.training
    share, seed = (training.recipe.get(key) for key in ("validation_share", "split_seed"))
    # One seed drew everything before `split_seed` came.
    seed = training.recipe.get("seed") if seed is None else seed
    if not isinstance(share, float) or not isinstance(seed, int):
        raise DataError(f"{where} does not say how its validation films were carved; give --splits-of a run")
    films = carve_validation(films, share=share, seed=seed)
    for source in sorted(set(films.sources)):
        found = int(((films.sources == source) & (films.splits == "validation")).sum())
        wanted = training.films.get(str(source), {}).get("validation", 0)
        if found != wanted:
            raise DataError(
                f"{where} was validated on {wanted} films of {source}, and of those given {found} would be carved: not the films it"
                " was trained on, so which of them it knows cannot be told"
            )
    if not is_validated_on(training.recipe, films, whole=set(training.films) <= set(films.sources.tolist())):
        raise DataError(
            f"{where} was validated on as many films, but on others than would be carved of those given: with other labels or films"
            " the split is another, so which of them it knows cannot be told"
        )
    return films


def data_hash(films: Films) -> str:
    """SHA-256 over every film's name, source, patient, split and labels, in whatever order they stand; not over its pixels."""
    lines = sorted(
        json.dumps([name, *map(str, row), [None if math.isnan(v) else v for v in labels.tolist()]])
        for name, *row, labels in zip(
            films.names, films.sources, films.patients, films.splits, films.labels, strict=True
        )
    )
    return hashlib.sha256("\n".join([json.dumps(films.findings), *lines]).encode()).hexdigest()


def validation_hash(films: Films) -> str:
    """SHA-256 over source and name of every validation film, in whatever order they stand."""
    carved = zip(films.sources.tolist(), films.names, films.splits.tolist(), strict=True)
    lines = sorted(json.dumps([source, name]) for source, name, split in carved if split == "validation")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def validation_hashes(films: Films) -> dict[str, str]:
    """The same of each source alone: a bundle may be met with some of its sources only."""
    return {str(source): validation_hash(films.take(films.sources == source)) for source in sorted(set(films.sources))}


def is_validated_on(made: Mapping[str, object], films: Films, *, whole: bool) -> bool:
    """Whether the validation films of these are those that a network was validated on. made: `run.json`, or a manifest's recipe.

    whole: all its sources are here. Of some of them networks made before each source had its hash do not tell.
    """
    each = made.get("validation_sha256_of")
    if isinstance(each, Mapping):
        return all(each.get(source, now) == now for source, now in validation_hashes(films).items())
    return not whole or made.get("validation_sha256", validation_hash(films)) == validation_hash(films)
