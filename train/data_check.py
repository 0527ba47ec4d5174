"""Is this data fit to train on and to be judged by? Every film decoded once, by the road that training takes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from cxredge import __version__
from cxredge.metrics import Interval, proportion
from cxredge.train.duplicates import exact_copies, near_copies
from cxredge.train.facts import read_facts
from cxredge.train.labels import list_table
from cxredge.train.looks import Look, Tick, look_at
from cxredge.train.sources import PUBLISHED, Films, Listing, list_source, patients_in_two_splits

NOT_STATED = "not stated"


@dataclass(frozen=True)
class Named:
    """One film. file: below its source's folder."""

    source: str
    split: str
    file: str


@dataclass(frozen=True)
class Unreadable:
    """A film that training would stop at, and why."""

    split: str
    file: str
    reason: str


@dataclass(frozen=True)
class Leak:
    """A patient with films in two splits: which, and how many films in each."""

    patient: str
    splits: dict[str, int]


@dataclass(frozen=True)
class Shared:
    """A patient's number that stands in several labels tables, and how many films it has in each."""

    patient: str
    tables: dict[str, int]

    @property
    def text(self) -> str:
        return f"{self.patient} ({', '.join(f'{count} in {table}' for table, count in self.tables.items())})"


@dataclass(frozen=True)
class Copies:
    """Films that are one. kind: `exact` (the same pixels) or `near` (saved again, resized, brightened).

    leaks: they stand in different splits. patients: how many patients they are said to be of; with more than one, splitting by
    patient does not keep them together.
    """

    kind: str
    films: list[Named]
    leaks: bool
    patients: int


@dataclass(frozen=True)
class Share:
    """One finding in one split: films with it, without it, and of unknown label; the share among the known, 95 %, a patient's films
    counted together (`metrics.proportion`)."""

    finding: str
    split: str
    positive: int
    negative: int
    unknown: int
    share: Interval | None


@dataclass(frozen=True)
class SourceCheck:
    """What one data set holds.

    name: its folder. films, patients: split -> how many. mix: axis (sex, age, view) -> group -> split -> films.
    missing, contradictions, left_out: as in `Listing`. age: split -> 5th, 50th and 95th percentile in years, where stated.
    """

    name: str
    folder: str
    films: dict[str, int]
    patients: dict[str, int]
    missing: list[str]
    unreadable: list[Unreadable]
    contradictions: list[str]
    left_out: dict[str, int]
    leaks: list[Leak]
    prevalence: list[Share]
    mix: dict[str, dict[str, dict[str, int]]]
    age: dict[str, tuple[float, float, float]]

    @property
    def splits(self) -> list[str]:
        return list(self.films)


@dataclass(frozen=True)
class DataCheck:
    """What `cxredge data check` found; `dataclasses.asdict` writes it for a program.

    exact, near: copies within and across splits, over all sources together, since they may train one model together. Of films
    with the same pixels only the first is held against the others for near copies. shared: a warning, since every hospital may have
    a patient 12; if they are the same people, splits that are drawn table by table do not keep them together.
    faults: one sentence per kind of fault that makes the data unfit; empty when there is none.
    """

    date: str
    cxredge: str
    sources: list[SourceCheck]
    exact: list[Copies]
    near: list[Copies]
    shared: list[Shared]
    faults: list[str]


def check_data(data: Sequence[Path], *, tick: Tick | None = None) -> DataCheck:
    """Check data sets in their published layouts, or labels tables (.csv): counts, broken and missing films, copies, leaks, labels.

    Nothing is changed or written. Raises DataError when a folder or table is of no known layout.
    """
    listings = [list_table(path) if path.suffix.lower() == ".csv" else list_source(path) for path in data]
    names = [path.resolve().name for path in data]
    looked = look_at([file for listing in listings for file in listing.films.files], tick)
    sources, named, patients, start = [], [], [], 0
    for path, name, listing in zip(data, names, listings, strict=True):
        films = listing.films
        seen = looked[start : start + len(films)]
        start += len(films)
        files = [_below(file, path) for file in films.files]
        sources.append(_check_source(path, name, listing, files, seen))
        named += [Named(name, str(split), file) for split, file in zip(films.splits, files, strict=True)]
        patients += films.patients.tolist()
    rows = [row for row, look in enumerate(looked) if isinstance(look, Look)]
    looks = [look for look in looked if isinstance(look, Look)]
    exact = exact_copies([look.digest for look in looks])
    spare = {row for group in exact for row in group[1:]}
    once = [i for i in range(len(looks)) if i not in spare]
    coarse = np.array([looks[i].coarse for i in once], np.uint8)
    near = near_copies(coarse, tick=lambda done: tick("Comparing films", done, len(once)) if tick else None)

    def copies(kind: str, group: list[int]) -> Copies:
        members = [rows[i] for i in group]
        splits = {named[row].split for row in members}
        return Copies(kind, [named[row] for row in members], len(splits) > 1, len({patients[row] for row in members}))

    exact_found = [copies("exact", group) for group in exact]
    near_found = [copies("near", [once[i] for i in group]) for group in near]
    return DataCheck(
        date=date.today().isoformat(),
        cxredge=__version__,
        sources=sources,
        exact=exact_found,
        near=near_found,
        shared=_shared([listing.films for listing in listings if listing.films.sources[0] not in PUBLISHED]),
        faults=_faults(sources, exact_found, near_found),
    )


def _check_source(
    path: Path, name: str, listing: Listing, files: list[str], looked: Sequence[Look | str]
) -> SourceCheck:  # fmt: skip
    films = listing.films
    order = {"train": 0, "validation": 1, "test": 2}
    splits = sorted({str(split) for split in films.splits}, key=lambda split: (order.get(split, 3), split))
    mix, age = _mix(path, films, splits)
    return SourceCheck(
        name=name,
        folder=str(path),
        films={split: int((films.splits == split).sum()) for split in splits},
        patients={split: len(set(films.patients[films.splits == split])) for split in splits},
        missing=list(listing.missing),
        unreadable=[
            Unreadable(str(split), file, look)
            for split, file, look in zip(films.splits, files, looked, strict=True)
            if isinstance(look, str)
        ],
        contradictions=list(listing.contradictions),
        left_out=dict(listing.left_out),
        leaks=[
            Leak(
                patient.split("/", 1)[1],
                {split: int(((films.patients == patient) & (films.splits == split)).sum()) for split in held},
            )
            for patient, held in patients_in_two_splits(films).items()
        ],
        prevalence=[_share(films, column, split) for column in range(len(films.findings)) for split in splits],
        mix=mix,
        age=age,
    )


def _shared(tables: Sequence[Films]) -> list[Shared]:
    held: dict[str, Counter[str]] = {}
    for films in tables:
        named = zip(films.sources.tolist(), films.patients.tolist(), films.names, strict=True)
        for table, patient, name in named:
            # Without a number a film is its own patient.
            if patient != f"{table}/{name}":
                held.setdefault(patient.removeprefix(f"{table}/"), Counter())[table] += 1
    return [Shared(patient, dict(films)) for patient, films in sorted(held.items()) if len(films) > 1]


def _share(films: Films, column: int, split: str) -> Share:
    labels, patients = (of[films.splits == split] for of in (films.labels[:, column], films.patients))
    positive, negative = int((labels == 1).sum()), int((labels == 0).sum())
    known = (labels == 1) | (labels == 0)
    share = proportion(labels[known] == 1, patients[known]) if known.any() else None
    return Share(films.findings[column], split, positive, negative, int((~known).sum()), share)


def _mix(
    path: Path, films: Films, splits: list[str]
) -> tuple[dict[str, dict[str, dict[str, int]]], dict[str, tuple[float, float, float]]]:
    facts = read_facts([path], films)
    mix: dict[str, dict[str, dict[str, int]]] = {}
    for axis, groups in facts.groups.items():
        told = np.any(list(groups.values()), axis=0)
        if told.any():
            masks = groups if told.all() else {**groups, NOT_STATED: ~told}
            mix[axis] = {
                group: {split: int((mask & (films.splits == split)).sum()) for split in splits}
                for group, mask in masks.items()
            }
    age = {}
    for split in splits:
        years = facts.age[(films.splits == split) & ~np.isnan(facts.age)]
        if len(years):
            low, middle, high = np.percentile(years, (5, 50, 95))
            age[split] = (float(low), float(middle), float(high))
    return mix, age


def _faults(sources: list[SourceCheck], exact: list[Copies], near: list[Copies]) -> list[str]:
    counts: Counter[str] = Counter()
    for source in sources:
        counts["films that a table names are missing"] += len(source.missing)
        counts["films cannot be read"] += len(source.unreadable)
        counts["films stand in two split lists or in two rows of a table"] += len(source.contradictions)
        counts["patients have films in two splits"] += len(source.leaks)
    counts["sets of exact copies lie across splits"] = sum(one.leaks for one in exact)
    counts["sets of near copies lie across splits"] = sum(one.leaks for one in near)
    return [f"{count} {what}" for what, count in counts.items() if count]


def _below(file: Path, path: Path) -> str:
    top = path if path.is_dir() else path.parent
    return file.relative_to(top).as_posix() if file.is_relative_to(top) else str(file)
