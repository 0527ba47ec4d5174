"""How good is this model on these films? One evaluation, for a run, a bundle or an ONNX file, through any engine."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxredge import __version__
from cxredge.devices import this_machine
from cxredge.errors import DataError
from cxredge.imaging import Film
from cxredge.imaging.overlay import heat_maps, thumbnail
from cxredge.imaging.peak import strongest
from cxredge.metrics import Floats, Interval, proportion
from cxredge.runtimes import Outputs
from cxredge.scan.labels import slips
from cxredge.train.against import Against, compare_with
from cxredge.train.engine import engine_version
from cxredge.train.facts import Box, read_boxes, read_facts
from cxredge.train.judge import (
    Group,
    Judged,
    Pointing,
    judge_finding,
    mean_auroc,
    several_sources,
    subgroups,
    unnamed,
    youden_thresholds,
)
from cxredge.train.labels import without_patients
from cxredge.train.metadata import encode
from cxredge.train.prevalence import at_prevalence, read_prevalences
from cxredge.train.scores import Scores, Tick, score
from cxredge.train.sources import Films
from cxredge.train.subject import Subject
from cxredge.train.tables import read_films
from cxredge.train.unseen import check_unseen

SAMPLES = 2000


@dataclass(frozen=True)
class Evaluation:
    """What `cxredge evaluate` measured; `page` writes it for a person, `dataclasses.asdict` for a program.

    mean_auroc: over the findings with both kinds of film, 95 % interval by bootstrap over patients; of a finding that several
    sources label within each, as in `Judged`. mean_pooled: the same with all films ranked together, None where no finding is.
    refused: share of these films that the model's own gate would refuse; they are scored here all the same.
    against: how far it is from another model on the same films, where one was given. cautions: what a reader must know of these
    figures, such as that the model was trained on some of the films.
    """

    date: str
    cxredge: str
    machine: dict[str, str]
    model: dict[str, str]
    runtime: str
    data: dict[str, object]
    operating_point: str
    mean_auroc: Interval
    findings: list[Judged]
    subgroups: list[Group]
    pointing: list[Pointing]
    refused: Interval | None
    unread: list[str]
    against: Against | None = None
    cautions: list[str] = field(default_factory=list)
    mean_pooled: Interval | None = None


@dataclass(frozen=True)
class Example:
    """One film to look at. kind: flagged rightly, flagged wrongly, or missed. heat_map: PNG bytes to lay over the film."""

    finding: str
    kind: str
    file: str
    probability: float
    film: bytes
    heat_map: bytes
    boxes: list[Box]


def evaluate(
    subject: Subject, data: Sequence[Path], *, split: str = "test", runtime: str = "onnxruntime", threads: int = 1,
    metadata: bool = False, against: Subject | None = None, splits_of: Path | None = None, prevalence: Sequence[str] = (),
    samples: int = SAMPLES, examples: int = 1, tick: Tick | None = None,
) -> tuple[Evaluation, list[Example]]:  # fmt: skip
    """Evaluate a model on the official test films of data sets, or on another split.

    metadata: give the model age, sex and view from the tables, where it takes them; without, it is measured as a scan uses it.
    against: another model, to tell the paired difference from; it is given the films alone. splits_of: a run or
    bundle whose validation films stand for `validation`; a run knows no others than its own, a bundle has its own unless told.
    prevalence: shares for PPV and NPV, see `read_prevalences`. examples: films per finding and kind to look at.
    Raises DataError, TooFewFilmsError and the errors of `score`.
    """
    subject, run = subject.on(runtime), subject.path if subject.kind == "run" else None
    carved = split in {"train", "validation"}
    known_to = run or splits_of or (subject.splits_of if carved else None)
    films, columns = matched(read_films(data, split, splits_of=known_to), subject)
    stated = read_prevalences(prevalence, films.findings)
    # Who names a validation split answers for it; a model's own was held out from it.
    asked = (subject, against) if split != "validation" else () if splits_of is not None else (against,)
    cautions = [said for model in asked if model is not None for said in check_unseen(model, data, films, split)]
    labels = films.labels.astype(np.float64)
    boxes, peaks = read_boxes(data), _Peaks(columns, films)
    given = encode(read_facts(data, films)) if metadata else None
    scores = score(
        subject, films.files, runtime, threads=threads, metadata=given, look=peaks.look if boxes else None, tick=tick
    )
    if run is not None:
        subject = _with_thresholds(subject, data, runtime, threads, metadata=metadata)
    told, read = scores.probabilities[:, columns], scores.read
    patients, sources = films.patients[read], films.sources[read]
    if not read.any():
        raise DataError(f"none of the {len(films)} films can be read: {next(iter(scores.unread.values()))}")
    thresholds = [subject.thresholds[c] for c in columns] if subject.thresholds else None
    findings = [
        judge_finding(name, labels[read, i], told[read, i], thresholds[i] if thresholds else None, patients, sources)
        for i, name in enumerate(films.findings)
    ]
    findings = [
        replace(one, at_prevalence=at_prevalence(one.at_point, stated[one.finding]))
        if one.at_point and one.finding in stated
        else one
        for one in findings
    ]
    facts = read_facts(data, films.take(read))
    compared = None
    if against is not None:
        compared = compare_with(against, subject, films, scores, runtime, threads=threads, samples=samples, tick=tick)
    found = Evaluation(
        date=date.today().isoformat(),
        cxredge=__version__,
        machine=this_machine().text | {"python": platform.python_version()},
        model={
            "name": subject.name, "kind": subject.kind, "precision": subject.precision, "sha256": subject.sha256,
            "input": f"{subject.preprocessing.size} x {subject.preprocessing.size}",
            "metadata": "age, sex and view, from the tables" if metadata else "none",
            "megabytes": f"{subject.bytes / 1e6:.2f}",
        },
        runtime=engine_version(runtime),
        data=_described(films, data, split, read),
        operating_point=subject.operating_point or "none: no validation films to choose it on",
        mean_auroc=mean_auroc(labels[read], told[read], patients, sources=sources, samples=samples),
        findings=findings,
        subgroups=subgroups(
            films.findings, labels[read], told[read], patients, facts, thresholds, samples=samples, sources=sources
        ),
        pointing=_pointing(films, boxes, peaks),
        refused=_refused(scores, subject, films.patients),
        unread=list(scores.unread.values()),
        against=compared,
        cautions=[*cautions, *unnamed(without_patients(films)), *several_sources(findings)],
        mean_pooled=mean_auroc(labels[read], told[read], patients, samples=samples)
        if any(one.within for one in findings)
        else None,
    )  # fmt: skip
    chosen = _choose(labels, told, read, thresholds, examples) if thresholds else []
    return found, _pictures(chosen, films, told, boxes, subject, columns, runtime, threads, given)


def matched(films: Films, subject: Subject) -> tuple[Films, list[int]]:
    """The films with the labels of the model's findings only, and the model's columns for them.

    Raises DataError when the films are labelled for none of the model's findings, or for one under nearly its name.
    """
    # Left out in silence, it would be missing from the mean.
    for label, name in slips(films.findings, subject.findings).items():
        raise DataError(
            f"the films are labelled for {label!r}, which {subject.name} calls {name}; call it so in the labels table"
        )
    shared = [name for name in subject.findings if name in films.findings]
    known = [name for name in shared if not np.isnan(films.labels[:, films.findings.index(name)]).all()]
    if not known:
        raise DataError(
            f"these {len(films)} films have columns for {', '.join(shared)}, and not one of them a label: 1 is with it, 0 without"
            if shared
            else f"{subject.name} looks for {', '.join(subject.findings)}; these films are labelled for"
            f" {', '.join(films.findings)}"
        )
    rows = [films.findings.index(name) for name in known]
    labels = films.labels[:, rows]
    some = np.flatnonzero(~np.isnan(labels).all(1))
    kept = replace(films, findings=tuple(known), labels=labels).take(some)
    return kept, [subject.findings.index(name) for name in known]


class _Peaks:
    """Where each map of each film is strongest, kept while the films go by."""

    def __init__(self, columns: list[int], films: Films) -> None:
        self.columns, self.films = columns, films
        self.found: dict[tuple[int, str], tuple[float, float]] = {}

    def look(self, row: int, film: Film, outputs: Outputs) -> None:
        for name, column in zip(self.films.findings, self.columns, strict=True):
            self.found[row, name] = strongest(film, outputs.cam[0, column])


def _pointing(films: Films, boxes: dict[str, dict[str, list[Box]]], peaks: _Peaks) -> list[Pointing]:
    rows = []
    for name in films.findings:
        hits, areas, whose = [], [], []
        for row, file in enumerate(films.files):
            drawn = boxes.get(file.stem, {}).get(name)
            if drawn and (row, name) in peaks.found:
                hits.append(any(box.holds(*peaks.found[row, name]) for box in drawn))
                areas.append(min(1.0, sum(box.width * box.height for box in drawn)))
                whose.append(films.patients[row])
        if hits:
            share = proportion(np.array(hits), np.array(whose))
            rows.append(Pointing(name, len(hits), share, float(np.mean(areas))))
    return rows


def _with_thresholds(
    subject: Subject, data: Sequence[Path], runtime: str, threads: int, *, metadata: bool
) -> Subject:  # fmt: skip
    """A run has no operating point of its own: Youden's index on its validation films, where they are among the data."""
    try:
        films, columns = matched(read_films(data, "validation", splits_of=subject.path), subject)
    except DataError as error:
        return replace(subject, operating_point=f"none: {error}")
    given = encode(read_facts(data, films)) if metadata else None
    told = score(subject, films.files, runtime, threads=threads, metadata=given)
    chosen = youden_thresholds(films.labels[told.read].astype(np.float64), told.probabilities[told.read][:, columns])
    thresholds = [float("nan")] * len(subject.findings)
    for column, threshold in zip(columns, chosen, strict=True):
        thresholds[column] = threshold
    return replace(
        subject,
        thresholds=tuple(thresholds),
        operating_point=f"Youden's index on the run's own {len(films)} validation films",
    )


def _refused(scores: Scores, subject: Subject, patients: NDArray[np.str_]) -> Interval | None:
    if subject.gate is None or scores.atypicality is None:
        return None
    told = ~np.isnan(scores.atypicality)
    return proportion(scores.atypicality[told] > subject.gate, patients[told])


def _described(films: Films, data: Sequence[Path], split: str, read: NDArray[np.bool_]) -> dict[str, object]:
    """read: which of the films could be read; the others count in no figure."""
    judged = films.take(read)
    return {
        "sources": sorted({str(source) for source in films.sources}),
        "folders": [path.name for path in data],
        "split": split,
        "films": len(judged),
        "patients": len(set(judged.patients)),
    }


def _choose(
    labels: Floats, told: Floats, read: NDArray[np.bool_], thresholds: list[float], examples: int
) -> list[tuple[int, int, str]]:  # fmt: skip
    """Row, column and kind of the films to show: the surest right flags, the surest wrong ones, the furthest missed."""
    chosen = []
    for column, threshold in enumerate(thresholds):
        y, p = labels[:, column], told[:, column]
        flagged = read & (p >= threshold)
        for kind, mask, order in (
            ("flagged rightly", flagged & (y == 1), -p),
            ("flagged wrongly", flagged & (y == 0), -p),
            ("missed", read & (p < threshold) & (y == 1), p),
        ):
            rows = np.flatnonzero(mask)
            chosen += [(int(row), column, kind) for row in rows[np.argsort(order[rows], kind="stable")][:examples]]
    return chosen


def _pictures(
    chosen: list[tuple[int, int, str]], films: Films, told: Floats, boxes: dict[str, dict[str, list[Box]]],
    subject: Subject, columns: list[int], runtime: str, threads: int, metadata: NDArray[np.float32] | None,
) -> list[Example]:  # fmt: skip
    seen: dict[int, tuple[Film, Outputs]] = {}
    rows = sorted({row for row, _, _ in chosen})

    def keep(position: int, film: Film, outputs: Outputs) -> None:
        seen[rows[position]] = (film, outputs)

    given = None if metadata is None else metadata[rows]
    score(subject, [films.files[row] for row in rows], runtime, threads=threads, metadata=given, look=keep)
    found = []
    for row, column, kind in chosen:
        film, outputs = seen[row]
        name = films.findings[column]
        found.append(
            Example(
                name,
                kind,
                films.files[row].name,
                float(told[row, column]),
                thumbnail(film),
                heat_maps(film, outputs.cam[0, [columns[column]]])[0],
                boxes.get(films.files[row].stem, {}).get(name, []),
            )
        )
    return found
