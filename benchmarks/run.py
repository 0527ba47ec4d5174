"""One benchmark: models, engines and settings in, one report out."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from cxredge import __version__
from cxredge.benchmarks import sensors
from cxredge.benchmarks.accuracy import SAMPLES, Accuracy, judge_all, judged_films
from cxredge.benchmarks.measure import Measured, Profile, Samples, Say, Setting, measure
from cxredge.devices import this_machine
from cxredge.errors import DataError, RuntimeMissingError
from cxredge.runtimes import MODULES
from cxredge.train.engine import engines
from cxredge.train.scores import read_ahead
from cxredge.train.sources import Films
from cxredge.train.subject import RUN_RUNTIME, Subject, check_like, full_precision_of, open_subject

# Films that the timed streams take turns with; more would measure the processor's cache, fewer one film's luck.
POOL = 32
# Films that cannot be read and are named on the page.
NAMED = 5


@dataclass(frozen=True)
class Report:
    """All of it. reference: the full-precision model that drift is measured against, None where there is none;
    reference_added: whether nobody named it to be measured. films_sha256: of the films judged and their labels.
    left_out: engines and settings that were asked for and could not be measured here, each with why.
    """

    command: str
    date: str
    cxredge: str
    machine: dict[str, str]
    data: list[str]
    films_sha256: str
    profile: Profile
    reference: str | None
    reference_added: bool
    models: list[dict[str, str]]
    measured: list[Measured]
    accuracy: list[Accuracy]
    left_out: list[str]


def benchmark(
    models: Sequence[str], data: Sequence[Path], *, profile: Profile, runtimes: Sequence[str] | None = None,
    threads: Sequence[int] = (1,), batches: Sequence[int] = (1,), reference: str | None = None, like: str | None = None,
    command: str = "", samples: int = SAMPLES, say: Say = print,
) -> tuple[Report, Samples]:  # fmt: skip
    """Measure models on this machine and on these films. runtimes: None for every engine that runs here.

    reference: a full-precision model; unless told, the first one that a model carries, else the first that is a full-
    precision model itself. Raises the errors of opening, reading and measuring.
    """
    check_like(like, [*models, *([reference] if reference is not None else [])])
    if unknown := [name for name in runtimes or () if name not in {RUN_RUNTIME, *MODULES}]:
        raise RuntimeMissingError(
            f"{unknown[0]!r} is no engine of this cxredge; it knows {', '.join((*MODULES, RUN_RUNTIME))}"
        )
    subjects = _unlike([open_subject(model, like=like) for model in models])
    subjects, full = _with_reference(subjects, reference, like)
    settings, per_model, left_out = _settings(subjects, runtimes, threads, batches)
    films = judged_films(subjects, data)
    timed = _readable(films.files, subjects[0])
    measured, raw = measure(subjects, settings, timed, profile, say=say)
    accuracy = judge_all(subjects, per_model, data, reference=full, samples=samples, say=say)
    machine = this_machine().text | {"governor": sensors.governor() or "not readable"}
    return (
        Report(
            command=command,
            date=date.today().isoformat(),
            cxredge=__version__,
            machine=machine | _not_readable(measured),
            data=[path.name for path in data],
            films_sha256=_hash_of(films),
            profile=profile,
            reference=None if full is None else subjects[full].name,
            reference_added=full == len(models),
            models=[_said(subject) for subject in subjects],
            measured=measured,
            accuracy=accuracy,
            left_out=[*left_out, *_unread(accuracy)],
        ),
        raw,
    )


def _hash_of(films: Films) -> str:
    """Of the films by name and of their labels, in whatever order a table has them."""
    rows = sorted(zip(films.sources.tolist(), films.names, films.labels.tolist(), strict=True), key=lambda row: row[:2])
    return hashlib.sha256(json.dumps([films.findings, rows]).encode()).hexdigest()


def _readable(files: Sequence[Path], subject: Subject) -> list[Path]:
    """The first films that can be read, for the timed streams. Raises DataError for none."""
    good, bad = [], []
    for row, film in read_ahead(files, subject.preprocessing):
        if isinstance(film, str):
            bad.append(film)
        else:
            good.append(files[row])
        if len(good) == POOL:
            break
    if not good:
        raise DataError(f"none of the {len(files)} films can be read: {bad[0] if bad else 'there are none'}")
    return good


def _unread(accuracy: Sequence[Accuracy]) -> list[str]:
    """Why films are in no figure; of many, the first few and how many more: `benchmark.json` has them all."""
    films = list(dict.fromkeys(why for one in accuracy for why in one.unread))
    more = [f"{len(films) - NAMED} more films that cannot be read"] if len(films) > NAMED else []
    return [*(f"{why} (in no figure)" for why in films[:NAMED]), *more]


def _with_reference(
    subjects: list[Subject], reference: str | None, like: str | None
) -> tuple[list[Subject], int | None]:  # fmt: skip
    """The models with the reference among them, and its place."""
    if reference is not None:
        told = open_subject(reference, like=like or (subjects[0].bundle.folder if subjects[0].bundle else None))
        for number, subject in enumerate(subjects):
            if subject.sha256 == told.sha256:
                return subjects, number
        return _unlike([*subjects, told]), len(subjects)
    for subject in subjects:
        full = full_precision_of(subject)
        if full is not None:
            known = [number for number, other in enumerate(subjects) if other.sha256 == full.sha256]
            return (subjects, known[0]) if known else (_unlike([*subjects, full]), len(subjects))
    for number, subject in enumerate(subjects):
        if subject.precision == "fp32":
            return subjects, number
    return subjects, None


def _unlike(subjects: list[Subject]) -> list[Subject]:
    """Names that differ, so that a table's rows can be told apart: a number is added to the second of a name."""
    seen: dict[str, int] = {}
    named = []
    for subject in subjects:
        seen[subject.name] = seen.get(subject.name, 0) + 1
        count = seen[subject.name]
        named.append(subject if count == 1 else replace(subject, name=f"{subject.name} ({count})"))
    return named


def _settings(
    subjects: Sequence[Subject], runtimes: Sequence[str] | None, threads: Sequence[int], batches: Sequence[int]
) -> tuple[list[Setting], list[list[str]], list[str]]:
    """Every model on every engine that runs it here, and what was left out, with why."""
    cores = this_machine().cores
    left_out = [f"{count} threads: this machine lends {cores} cores" for count in threads if count > cores]
    settings, per_model = [], []
    for number, subject in enumerate(subjects):
        possible = engines(subject.path)
        wanted = [name for name in possible if runtimes is None or name in runtimes]
        # A run has one engine, whatever was asked for the others.
        usable = [name for name in wanted if not possible[name]] or ([*possible] if subject.kind == "run" else [])
        left_out += [f"{subject.name} on {name}: {possible[name]}" for name in wanted if possible[name]]
        if not usable:
            raise RuntimeMissingError(
                f"{subject.name}: no engine for it here: {'; '.join(left_out) or 'none was named'}"
            )
        per_model.append(usable)
        settings += [
            Setting(number, name, count, batch)
            for name in usable
            for count in threads
            if count <= cores
            for batch in batches
        ]
    if not settings:
        raise DataError(f"nothing to measure: {'; '.join(left_out)}")
    return settings, per_model, list(dict.fromkeys(left_out))


def _not_readable(measured: Sequence[Measured]) -> dict[str, str]:
    """What the machine would not tell, said once instead of empty columns."""
    silent = [
        name
        for name, values in (
            ("temperature", [one.celsius for one in measured]),
            ("throttling", [one.throttled for one in measured]),
            ("energy", [one.joules_per_film for one in measured]),
        )
        if all(value is None for value in values)
    ]
    load = (
        f"{os.getloadavg()[0]:.1f} (processes wanting a core, last minute)" if hasattr(os, "getloadavg") else "unknown"
    )
    return {"not readable here": ", ".join(silent) or "nothing", "load at the end": load}


def _said(subject: Subject) -> dict[str, str]:
    return {
        "name": subject.name,
        "kind": subject.kind,
        "precision": subject.precision,
        "input": f"{subject.preprocessing.size} x {subject.preprocessing.size}",
        "sha256": subject.sha256,
        "operating point": subject.operating_point or "none",
    }
