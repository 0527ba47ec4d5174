"""What compression or another engine cost: paired drift against a full-precision reference, flips, calibration, agreement."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxredge.benchmarks.measure import Say
from cxredge.errors import TooFewFilmsError
from cxredge.metrics import Floats, Interval, auroc_drift, auroc_interval, mean_auroc_interval
from cxredge.train.curves import calibration_error
from cxredge.train.evaluate import matched
from cxredge.train.facts import read_facts
from cxredge.train.judge import Group, mean_auroc, measurable, subgroups
from cxredge.train.scores import Scores, score
from cxredge.train.sources import Films
from cxredge.train.subject import Subject
from cxredge.train.tables import read_films

SAMPLES = 2000
_ONE_KIND = "no finding has both films with it and films without it in one data set: AUROC needs both"


@dataclass(frozen=True)
class FindingDrift:
    """One finding. drift: AUROC minus the reference's, paired DeLong by patient; bootstrap: the same over the same patients.

    flips: share of films whose flag differs from the reference's at the operating point.
    """

    finding: str
    films: int
    positives: int
    auroc: Interval
    drift: Interval | None
    bootstrap: Interval | None
    calibration_error: float
    flips: float | None


@dataclass(frozen=True)
class Agreement:
    """An engine against the model's first engine: differences of logits, and flags that differ."""

    mean: float
    largest: float
    flips: float | None


@dataclass(frozen=True)
class Accuracy:
    """A model on an engine. mean_auroc and drift over the findings with both kinds of film, bootstrapped by patient. Of a finding
    that several data sets label AUROC is the mean within each: between them a network can tell the hospital.

    graph: precision of the graph that the bundle holds for this engine alone; empty for the portable model. unjudged: findings that
    the films are labelled for and cannot be judged by, since all that are ranked together have it, or none has. unread: why of each
    film that could not be read, and is in no figure.
    """

    model: str
    runtime: str
    graph: str
    films: int
    patients: int
    mean_auroc: Interval
    drift: Interval | None
    flips: float | None
    calibration_error: float
    findings: list[FindingDrift]
    unjudged: list[str]
    unread: list[str]
    subgroups: list[Group]
    agreement: Agreement | None

    @property
    def largest_disagreement(self) -> float | None:
        """How far DeLong's interval and the bootstrap's lie apart at most, over all findings and both ends."""
        pairs = [(one.drift, one.bootstrap) for one in self.findings if one.drift and one.bootstrap]
        return max((max(abs(a.low - b.low), abs(a.high - b.high)) for a, b in pairs), default=None)


def judge_all(
    subjects: Sequence[Subject], runtimes: Sequence[Sequence[str]], data: Sequence[Path], *, reference: int | None,
    samples: int = SAMPLES, say: Say = print,
) -> list[Accuracy]:  # fmt: skip
    """Score every model on each of its engines, on the test films of the data sets.

    reference: which of the models is the full-precision one, on its first engine; None where there is none.
    Raises DataError and TooFewFilmsError.
    """
    films = judged_films(subjects, data)
    told: dict[tuple[int, str], Scores] = {}
    for number, (subject, engines) in enumerate(zip(subjects, runtimes, strict=True)):
        for runtime in engines:
            say(f"Accuracy: {subject.name}, {runtime}, {len(films)} films")
            told[number, runtime] = score(subject.on(runtime), films.files, runtime)
    first = {number: told[number, engines[0]] for number, engines in enumerate(runtimes)}
    against = None
    if reference is not None:
        against = _columns(first[reference].probabilities, subjects[reference], films)
    found = []
    for (number, runtime), scores in told.items():
        subject = subjects[number]
        compared = against if (number, runtime) != (reference, runtimes[reference or 0][0]) else None
        same = first[number] if runtime != runtimes[number][0] else None
        found.append(_judge(subject, runtime, scores, films, data, compared, same, samples))
    return found


def judged_films(subjects: Sequence[Subject], data: Sequence[Path]) -> Films:
    """The test films that are labelled for a finding of any of the models. Raises DataError when a model has none of them, and
    TooFewFilmsError when they cannot judge it: it is said before anything is measured."""
    everything = read_films(data, "test")
    for subject in subjects:
        own, _ = matched(everything, subject)
        if not measurable(own.labels.astype(np.float64), sources=own.sources):
            raise TooFewFilmsError(f"{subject.name}: {_ONE_KIND}")
    every = tuple(dict.fromkeys(name for subject in subjects for name in subject.findings))
    return matched(everything, replace(subjects[0], findings=every))[0]


def _columns(values: Floats, subject: Subject, films: Films) -> Floats:
    """A model's outputs in the order of the films' findings; nan for a finding it does not know. [N, L] -> [N, findings]."""
    placed = np.full((len(values), len(films.findings)), np.nan)
    for column, name in enumerate(films.findings):
        if name in subject.findings:
            placed[:, column] = values[:, subject.findings.index(name)]
    return placed


def _judge(
    subject: Subject, runtime: str, scores: Scores, films: Films, data: Sequence[Path], against: Floats | None,
    same: Scores | None, samples: int,
) -> Accuracy:  # fmt: skip
    told = _columns(scores.probabilities, subject, films)
    knows = np.array([name in subject.findings for name in films.findings])
    labels = np.where(knows, films.labels.astype(np.float64), np.nan)
    # What only one of the two looks for has no drift; where they share nothing, nothing has.
    shared = knows & (~np.isnan(against).all(0) if against is not None else False)
    against = against if shared.any() else None
    readable = ~np.isnan(told).all(1) & (~np.isnan(against).all(1) if against is not None else True)
    read = np.flatnonzero(readable & ~np.isnan(labels).all(1))
    labels, told, patients, sources = labels[read], told[read], films.patients[read], films.sources[read]
    base = against[read] if against is not None else None
    thresholds = None
    if subject.thresholds is not None:
        thresholds = _columns(np.array([subject.thresholds]), subject, films)[0]
    columns = measurable(labels, sources=sources)
    if not columns:
        raise TooFewFilmsError(f"{subject.name}: {_ONE_KIND}")
    findings = [
        _finding(films.findings[c], labels[:, c], told[:, c], base[:, c] if base is not None and shared[c] else None,
                 None if thresholds is None else float(thresholds[c]), patients, sources, samples)
        for c in columns
    ]  # fmt: skip
    paired = [c for c in columns if shared[c]]
    flips = [one.flips for one in findings if one.flips is not None]
    return Accuracy(
        model=subject.name,
        runtime=runtime,
        graph=subject.on(runtime).graph,
        films=len(labels),
        patients=len(set(patients)),
        mean_auroc=mean_auroc(labels, told, patients, sources=sources, samples=samples),
        drift=None if base is None or not paired else mean_auroc_interval(
            labels[:, paired], told[:, paired], patients, baseline=base[:, paired], sources=sources, samples=samples
        ),
        flips=float(np.mean(flips)) if flips else None,
        calibration_error=float(np.mean([one.calibration_error for one in findings])),
        findings=findings,
        unjudged=[
            name
            for c, name in enumerate(films.findings)
            if c not in columns and not np.isnan(labels[:, c]).all()
        ],
        unread=list(scores.unread.values()),
        subgroups=subgroups(
            films.findings, labels, told, patients, read_facts(data, films.take(read)),
            None if thresholds is None else list(thresholds), samples=samples, sources=sources,
        ),
        agreement=None if same is None else _agreement(scores, same, subject),
    )  # fmt: skip


def _finding(
    name: str, labels: Floats, told: Floats, base: Floats | None, threshold: float | None, patients: NDArray[np.str_],
    sources: NDArray[np.str_], samples: int,
) -> FindingDrift:  # fmt: skip
    known = ~np.isnan(labels)
    drift = bootstrap = flips = None
    if base is not None:
        drift = auroc_drift(labels, base, told, patients, sources)
        # Another road to the same interval, so that the two can be held against each other.
        bootstrap = mean_auroc_interval(
            labels[:, None], told[:, None], patients, baseline=base[:, None], sources=sources, samples=samples
        )
        if threshold is not None and not np.isnan(threshold):
            flips = float(((told >= threshold) != (base >= threshold)).mean())
    return FindingDrift(
        name, int(known.sum()), int((labels == 1).sum()), auroc_interval(labels, told, patients, sources), drift, bootstrap,
        calibration_error(labels[known] > 0.5, told[known]), flips,
    )  # fmt: skip


def _agreement(scores: Scores, first: Scores, subject: Subject) -> Agreement:
    both: NDArray[np.bool_] = scores.read & first.read
    off = np.abs(scores.logits[both] - first.logits[both])
    flips = None
    if subject.thresholds is not None:
        limits = np.array(subject.thresholds)
        flips = float(((scores.probabilities[both] >= limits) != (first.probabilities[both] >= limits)).mean())
    return Agreement(float(off.mean()), float(off.max()), flips)
