"""From labels and scores to the figures of an evaluation: per finding, over findings, per subgroup, and where it points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cxredge.errors import TooFewFilmsError
from cxredge.metrics import (
    Floats,
    Interval,
    auroc_interval,
    by_source,
    mean_auroc_interval,
    proportion,
    youden_point,
)
from cxredge.train.curves import (
    Bin,
    Confusion,
    average_precision,
    calibration_error,
    confusion,
    precision_recall,
    reliability,
    roc,
    thin,
)
from cxredge.train.facts import Facts
from cxredge.train.prevalence import AtPrevalence

# Fewer films of either kind make a subgroup's AUROC noise; it is then counted but not shown.
ENOUGH = 10
# A group of fewer films has no mean of its own, and does not narrow the findings that the others of its axis are compared by.
ENOUGH_FILMS = 50
Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Within:
    """One finding on the films of one source; auroc: None where it has films of one kind only."""

    source: str
    films: int
    positives: int
    auroc: Interval | None


@dataclass(frozen=True)
class Judged:
    """One finding on N labelled films. Figures that need both kinds of film are None where one kind is missing.

    Where several sources label it, auroc is the mean of those `within` each, and pooled that of all films ranked together, part of
    which may be telling the sources apart; all else is of all films together. Where one does, the two are left out.
    roc: (false positive rate, sensitivity); precision_recall: (recall, precision). at_prevalence: PPV and NPV at a share that was
    stated, where one was.
    """

    finding: str
    films: int
    positives: int
    auroc: Interval | None
    average_precision: float | None
    calibration_error: float | None
    at_point: Confusion | None
    reliability: list[Bin]
    roc: Curve
    precision_recall: Curve
    at_prevalence: AtPrevalence | None = None
    pooled: Interval | None = None
    within: list[Within] = field(default_factory=list)


@dataclass(frozen=True)
class Group:
    """A subgroup. auroc: averaged over `findings`, those with enough films in every group of its axis that has `ENOUGH_FILMS`;
    None without any, and where the group itself has fewer.

    sensitivity, specificity: over all pairs of film and finding at the operating point, a patient's counted together. None without
    an operating point.
    """

    axis: str
    name: str
    films: int
    patients: int
    findings: tuple[str, ...]
    auroc: Interval | None
    sensitivity: Interval | None
    specificity: Interval | None


@dataclass(frozen=True)
class Pointing:
    """The pointing game for one finding: the map's strongest point lies in a radiologist's box, or not.

    area: mean share of the film that its boxes cover: what pointing anywhere at random would score.
    """

    finding: str
    films: int
    hits: Interval
    area: float


def judge_finding(
    finding: str, labels: Floats, probabilities: Floats, threshold: float | None, patients: NDArray[np.str_],
    sources: NDArray[np.str_] | None = None,
) -> Judged:  # fmt: skip
    """All figures of one finding. labels [N] in {0, 1, nan}; probabilities [N]; patients [N], whose the films are; sources [N],
    where they are from, None where it does not matter."""
    mask = ~np.isnan(labels)
    truth, told = labels[mask] > 0.5, probabilities[mask]
    both = bool(truth.any() and not truth.all())
    pooled = auroc_interval(labels, probabilities, patients) if both else None
    within = _within(labels, probabilities, patients, sources)
    return Judged(
        finding,
        len(truth),
        int(truth.sum()),
        auroc_interval(labels, probabilities, patients, sources)
        if measurable(labels[:, None], sources=sources)
        else None,
        average_precision(truth, told) if both else None,
        calibration_error(truth, told) if both else None,
        None
        if threshold is None or np.isnan(threshold) or not len(truth)
        else confusion(truth, told, threshold, patients[mask]),
        reliability(truth, told, patients[mask]) if both else [],
        thin(*roc(truth, told)) if both else [],
        thin(*precision_recall(truth, told)) if both else [],
        pooled=pooled if within else None,
        within=within,
    )


def _within(
    labels: Floats, probabilities: Floats, patients: NDArray[np.str_], sources: NDArray[np.str_] | None
) -> list[Within]:
    """The finding source by source, where several label it."""
    if sources is None or len(labelled := np.unique(sources[~np.isnan(labels)])) < 2:
        return []
    found = []
    for source in labelled:
        own = labels[sources == source]
        figures = probabilities[sources == source], patients[sources == source]
        auroc = auroc_interval(own, *figures) if measurable(own[:, None]) else None
        found.append(Within(str(source), int((~np.isnan(own)).sum()), int((own == 1).sum()), auroc))
    return found


def several_sources(findings: Sequence[Judged]) -> list[str]:
    """How the figures of findings that several sources label are to be read; nothing where none is."""
    shared = [one.finding for one in findings if one.within]
    if not shared:
        return []
    return [
        f"Labelled by several data sets: {', '.join(shared)}. AUROC is the mean within each; where all are ranked together, part of"
        " it may be telling the data sets apart. Curves, average precision and calibration are of all films together."
    ]


def unnamed(tables: Sequence[str]) -> list[str]:
    """How intervals are to be read where tables do not say whose the films are (`labels.without_patients`)."""
    return [
        f"{table} names no patients: each film counts as another one's, and where some are of one, intervals are too narrow; a"
        " column `patient` says whose they are."
        for table in tables
    ]


def mean_auroc(
    labels: Floats, scores: Floats, patients: NDArray[np.str_], *, samples: int, sources: NDArray[np.str_] | None = None
) -> Interval:
    """Mean over the findings that have both kinds of film, in one source where sources are told, bootstrapped by patient.

    Raises TooFewFilmsError without any.
    """
    columns = measurable(labels, sources=sources)
    if not columns:
        raise TooFewFilmsError(
            "no finding has both films with it and films without it in one data set: AUROC needs both"
        )
    return mean_auroc_interval(labels[:, columns], scores[:, columns], patients, sources=sources, samples=samples)


def measurable(labels: Floats, *, enough: int = 1, sources: NDArray[np.str_] | None = None) -> list[int]:
    """Columns with at least so many positive and so many negative films, among those that are ranked together (`by_source`)."""
    return [
        column
        for column in range(labels.shape[1])
        if any(
            (part == 1).sum() >= enough and (part == 0).sum() >= enough
            for part in by_source(labels[:, column], sources)
        )
    ]


def comparable(
    labels: Floats, groups: Mapping[str, NDArray[np.bool_]], sources: NDArray[np.str_] | None = None
) -> list[int]:
    """Columns that groups of one axis can be compared by: enough films of either kind in every group that is not too small.

    labels: [N, L] in {0, 1, nan}; groups: name -> which films, [N]; sources: as in `measurable`. None at all when every group is
    too small.
    """
    large = [rows for rows in groups.values() if rows.sum() >= ENOUGH_FILMS]
    if not large:
        return []
    told = [
        measurable(labels[rows], enough=ENOUGH, sources=None if sources is None else sources[rows]) for rows in large
    ]
    return sorted(set.intersection(*map(set, told)))


def subgroups(
    names: Sequence[str], labels: Floats, probabilities: Floats, patients: NDArray[np.str_], facts: Facts,
    thresholds: Sequence[float] | None, *, samples: int, sources: NDArray[np.str_] | None = None,
) -> list[Group]:  # fmt: skip
    """Every group of every axis. Groups of one axis are averaged over the same findings, so that they can be compared."""
    found = []
    for axis, groups in facts.groups.items():
        present = {name: rows for name, rows in groups.items() if rows.any()}
        shared = comparable(labels, present, sources)
        for name, rows in present.items():
            auroc = None
            if shared and rows.sum() >= ENOUGH_FILMS:
                auroc = mean_auroc_interval(
                    labels[rows][:, shared], probabilities[rows][:, shared], patients[rows], samples=samples,
                    sources=None if sources is None else sources[rows],
                )  # fmt: skip
            sensitivity, specificity = _pooled(labels[rows], probabilities[rows], patients[rows], thresholds)
            found.append(
                Group(
                    axis,
                    name,
                    int(rows.sum()),
                    len(set(patients[rows])),
                    tuple(names[c] for c in shared),
                    auroc,
                    sensitivity,
                    specificity,
                )
            )
    return found


def _pooled(
    labels: Floats, probabilities: Floats, patients: NDArray[np.str_], thresholds: Sequence[float] | None
) -> tuple[Interval | None, Interval | None]:
    """Sensitivity and specificity over all pairs of film and finding; what belongs to one patient is counted together."""
    if thresholds is None:
        return None, None
    flagged, chosen = probabilities >= np.array(thresholds), ~np.isnan(thresholds)
    positive, negative = (labels == 1) & chosen, (labels == 0) & chosen
    whose = np.broadcast_to(patients[:, None], labels.shape)
    return (
        proportion(flagged[positive], whose[positive]) if positive.any() else None,
        proportion(~flagged[negative], whose[negative]) if negative.any() else None,
    )


def youden_thresholds(labels: Floats, probabilities: Floats) -> tuple[float, ...]:
    """Per finding the threshold of Youden's index, nan where the films cannot give one. labels, probabilities: [N, L]."""
    chosen = [float("nan")] * labels.shape[1]
    for column in measurable(labels):
        chosen[column] = youden_point(labels[:, column], probabilities[:, column]).threshold
    return tuple(chosen)
