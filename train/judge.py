"""From labels and scores to the figures of an evaluation: per finding, over findings, per subgroup, and where it points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxredge.errors import TooFewFilmsError
from cxredge.metrics import Floats, Interval, auroc_interval, mean_auroc_interval, proportion, youden_point
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

# Fewer films of either kind make a subgroup's AUROC noise; it is then counted but not shown.
ENOUGH = 10
# A group of fewer films has no mean of its own, and does not narrow the findings that the others of its axis are compared by.
ENOUGH_FILMS = 50
Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Judged:
    """One finding on N labelled films. Figures that need both kinds of film are None where one kind is missing.

    roc: (false positive rate, sensitivity); precision_recall: (recall, precision).
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


@dataclass(frozen=True)
class Group:
    """A subgroup. auroc: averaged over `findings`, those with enough films in every group of its axis that has `ENOUGH_FILMS`;
    None without any, and where the group itself has fewer.

    sensitivity, specificity: over all pairs of film and finding at the operating point; their intervals take the pairs as
    independent and are therefore somewhat narrow. None without an operating point.
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
    finding: str, labels: Floats, probabilities: Floats, threshold: float | None, patients: NDArray[np.str_]
) -> Judged:
    """All figures of one finding. labels [N] in {0, 1, nan}; probabilities [N]; patients [N], whose the films are."""
    mask = ~np.isnan(labels)
    truth, told = labels[mask] > 0.5, probabilities[mask]
    both = bool(truth.any() and not truth.all())
    return Judged(
        finding,
        len(truth),
        int(truth.sum()),
        auroc_interval(labels, probabilities, patients) if both else None,
        average_precision(truth, told) if both else None,
        calibration_error(truth, told) if both else None,
        None
        if threshold is None or np.isnan(threshold) or not len(truth)
        else confusion(truth, told, threshold, patients[mask]),
        reliability(truth, told) if both else [],
        thin(*roc(truth, told)) if both else [],
        thin(*precision_recall(truth, told)) if both else [],
    )


def mean_auroc(labels: Floats, scores: Floats, patients: NDArray[np.str_], *, samples: int) -> Interval:
    """Mean over the findings that have both kinds of film, bootstrapped by patient. Raises TooFewFilmsError without any."""
    columns = measurable(labels)
    if not columns:
        raise TooFewFilmsError("no finding has both films with it and films without it: AUROC needs both")
    return mean_auroc_interval(labels[:, columns], scores[:, columns], patients, samples=samples)


def measurable(labels: Floats, *, enough: int = 1) -> list[int]:
    """Columns with at least so many positive and so many negative films."""
    positive, negative = (labels == 1).sum(0), (labels == 0).sum(0)
    return [int(column) for column in np.flatnonzero((positive >= enough) & (negative >= enough))]


def comparable(labels: Floats, groups: Mapping[str, NDArray[np.bool_]]) -> list[int]:
    """Columns that groups of one axis can be compared by: enough films of either kind in every group that is not too small.

    labels: [N, L] in {0, 1, nan}; groups: name -> which films, [N]. None at all when every group is too small.
    """
    large = [rows for rows in groups.values() if rows.sum() >= ENOUGH_FILMS]
    if not large:
        return []
    return sorted(set.intersection(*(set(measurable(labels[rows], enough=ENOUGH)) for rows in large)))


def subgroups(
    names: Sequence[str], labels: Floats, probabilities: Floats, patients: NDArray[np.str_], facts: Facts,
    thresholds: Sequence[float] | None, *, samples: int,
) -> list[Group]:  # fmt: skip
    """Every group of every axis. Groups of one axis are averaged over the same findings, so that they can be compared."""
    found = []
    for axis, groups in facts.groups.items():
        present = {name: rows for name, rows in groups.items() if rows.any()}
        shared = comparable(labels, present)
        for name, rows in present.items():
            auroc = None
            if shared and rows.sum() >= ENOUGH_FILMS:
                auroc = mean_auroc_interval(
                    labels[rows][:, shared], probabilities[rows][:, shared], patients[rows], samples=samples
                )
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
