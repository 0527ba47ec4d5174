"""The films to evaluate on: data sets in their published layout, or a generic labels table, by split."""

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from cxredge.bundle import open_bundle
from cxredge.errors import DataError
from cxredge.train.sources import (
    PUBLISHED,
    Films,
    Listing,
    Uncertain,
    carve_validation,
    join,
    patients_in_two_splits,
    read_source,
)

SPLITS = ("test", "validation", "train", "all")


def read_films(data: Sequence[Path], split: str, *, splits_of: Path | None = None) -> Films:
    """The films of one split of one or more data sets; a .csv file is read as a labels table.

    splits_of: a finished run, or a bundle (a folder, or a shipped model's name), whose own validation films then stand for
    `validation`. Raises DataError, and the errors of `open_bundle`.
    """
    uncertain = _uncertain_of(splits_of) if splits_of is not None else "ignore"
    films = join([read_data(path, uncertain=uncertain) for path in data])
    if splits_of is not None:
        films = _split_as(films, splits_of) if (splits_of / "splits.csv").is_file() else _carved_as(films, splits_of)
    if split == "all":
        return films
    return films.split(split)


def learned_from(where: Path, data: Sequence[Path], films: Films) -> list[str]:
    """Names of those films that a run, or a bundle's network, was trained on. films: of the data sets.

    Of sources that it does not know it has seen nothing. Raises DataError where it cannot be told, and the errors of `open_bundle`.
    """
    if (where / "splits.csv").is_file():
        with (where / "splits.csv").open(newline="", encoding="utf-8") as lines:
            seen = {(row["source"], row["file"]) for row in csv.DictReader(lines) if row["split"] == "train"}
    else:
        sources = list(open_bundle(where).manifest.training.films)
        known = join([read_data(path, uncertain=_uncertain_of(where)) for path in data])
        known = known.take(np.isin(known.sources, sources))
        carved = _carved_as(known, where) if len(known) else known
        trained = carved.take(carved.splits == "train")
        seen = set(zip(trained.sources.tolist(), trained.names, strict=True))
    given = zip(films.sources.tolist(), films.names, strict=True)
    return [name for source, name in given if (source, name) in seen]


def _uncertain_of(where: Path) -> Uncertain:
    """What CheXpert's uncertain labels stood for when a run, or a bundle's network, was trained: validation was carved by it."""
    if (where / "run.json").is_file():
        facts = json.loads((where / "run.json").read_text(encoding="utf-8"))
    elif (where / "splits.csv").is_file():
        return "ignore"  # the splits alone, as a run that did not end leaves them
    else:
        facts = open_bundle(where).manifest.training.recipe
    return cast(Uncertain, facts.get("uncertain", "ignore"))


def read_data(path: Path, *, uncertain: Uncertain = "ignore") -> Films:
    """A data set in its published layout (`read_source`), or a .csv file as a labels table (`read_table`). Raises DataError."""
    return read_table(path) if path.suffix.lower() == ".csv" else read_source(path, uncertain=uncertain)


def read_table(table: Path) -> Films:
    """A labels table: `file` (relative to the table), a column of 0, 1 or empty per finding, and optionally `patient`, `split`,
    `age`, `sex`, `view`. Without `split` every film is a test film; without `patient` every film is a patient's only one.

    Raises DataError that names the line, or the patient who has films in both splits.
    """
    listing = list_table(table)
    if listing.missing:
        raise DataError(f"{table}, {listing.missing[0]} is not there")
    for patient, splits in patients_in_two_splits(listing.films).items():
        raise DataError(f"{table}: patient {patient.split('/', 1)[1]} has films in both {splits[0]} and {splits[1]}")
    return listing.films


def list_table(table: Path) -> Listing:
    """`read_table` without its verdict on films that are not there: `line 12: films/a.png` in `missing`.

    Raises DataError that names the line when a label is none, and when none of the films is there.
    """
    try:
        lines = list(csv.DictReader(table.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{table}: cannot be read as UTF-8 text ({error})") from None
    columns = list(lines[0]) if lines else []
    findings = tuple(c for c in columns if c not in {"file", "patient", "split", "age", "sex", "view"})
    if "file" not in columns or not findings:
        raise DataError(
            f"{table}: needs a column `file`, at least one finding, and at least one film; found: {columns}"
        )
    if table.stem in PUBLISHED:
        raise DataError(f"{table}: {table.stem} is the name of the published data set; call the table otherwise")
    files, labels, there, missing = [], [], [], []
    names: dict[str, int] = {}
    absent: set[int] = set()
    for number, row in enumerate(lines, start=2):
        if None in row or row["file"] is None:
            raise DataError(
                f"{table}, line {number} has {'more' if None in row else 'fewer'} cells than the first line"
            )
        name = Path(row["file"].strip().replace("\\", "/")).as_posix()
        if (first := names.setdefault(name, number)) != number:
            raise DataError(f"{table}, line {number}: {name} stands in line {first} already")
        if (split := (row.get("split") or "").strip()) not in {"", "train", "test"}:
            raise DataError(
                f"{table}, line {number}: split {split!r} is neither train nor test; validation is carved from train"
            )
        file = table.parent / name
        values = {"": np.nan, "0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0}
        said = {finding: (row[finding] or "").strip() for finding in findings}
        if wrong := [f"{finding}: {text!r}" for finding, text in said.items() if text not in values]:
            raise DataError(f"{table}, line {number}, {wrong[0]} is neither 0, 1 nor empty")
        if not file.is_file():
            missing.append(f"line {number}: {file}")
            absent.add(number)
            continue
        there.append(row)
        files.append(file)
        labels.append([values[text] for text in said.values()])
    if not files:
        raise DataError(f"{table}, {missing[0]} is not there, nor is any other film it names")
    films = Films(
        tuple(files),
        np.array([f"{table.stem}/{(row.get('patient') or '').strip() or row['file']}" for row in there]),
        np.full(len(files), table.stem),
        np.array([(row.get("split") or "").strip() or "test" for row in there]),
        findings,
        np.array(labels, np.float32),
        # Folders may hold films of like names.
        tuple(name for name, number in names.items() if number not in absent),
    )
    return Listing(films, tuple(missing))


def _split_as(films: Films, run: Path) -> Films:
    """The splits as the run carved them. Test films stay what they are published as."""
    with (run / "splits.csv").open(newline="", encoding="utf-8") as lines:
        said = {(row["source"], row["file"]): row["split"] for row in csv.DictReader(lines)}
    splits = films.splits.astype("U10")
    for i, film in enumerate(zip(films.sources.tolist(), films.names, strict=True)):
        if splits[i] != "test":
            splits[i] = said.get(film, splits[i])
    return replace(films, splits=splits)


def _carved_as(films: Films, where: Path) -> Films:
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
    # The hash is of all its sources together; of some of them the counts alone tell.
    whole = set(training.films) <= set(films.sources.tolist())
    if whole and training.recipe.get("validation_sha256", validation_hash(films)) != validation_hash(films):
        raise DataError(
            f"{where} was validated on as many films, but on others than would be carved of those given: with other labels or films"
            " the split is another, so which of them it knows cannot be told"
        )
    return films


def validation_hash(films: Films) -> str:
    """SHA-256 over source and name of every validation film, in whatever order they stand."""
    carved = zip(films.sources.tolist(), films.names, films.splits.tolist(), strict=True)
    lines = sorted(json.dumps([source, name]) for source, name, split in carved if split == "validation")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
