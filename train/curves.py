"""Curves and figures of one finding, in NumPy alone. labels: bool [N]; scores, probabilities: float [N]."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxredge.metrics import Floats, Interval, proportion

Truth = NDArray[np.bool_]


def roc(labels: Truth, scores: Floats) -> tuple[Floats, Floats]:
    """False and true positive rate at every distinct threshold, from (0, 0) to (1, 1)."""
    true, false = _counts(labels, scores)
    return np.r_[0, false / max(1, false[-1])], np.r_[0, true / max(1, true[-1])]


def precision_recall(labels: Truth, scores: Floats) -> tuple[Floats, Floats]:
    """Recall and precision at every distinct threshold, strictest first."""
    true, false = _counts(labels, scores)
    return true / max(1, true[-1]), true / (true + false)


def average_precision(labels: Truth, scores: Floats) -> float:
    """Precision averaged over the positives, without interpolation (scikit-learn's definition)."""
    recall, precision = precision_recall(labels, scores)
    return float((np.diff(recall, prepend=0) * precision).sum())


def _counts(labels: Truth, scores: Floats) -> tuple[Floats, Floats]:
    """True and false positives at every distinct threshold, strictest first."""
    order = np.argsort(-scores, kind="stable")
    last = np.r_[np.flatnonzero(np.diff(scores[order])), len(scores) - 1]
    return np.cumsum(labels[order])[last].astype(float), np.cumsum(~labels[order])[last].astype(float)


def thin(x: Floats, y: Floats, *, points: int = 200) -> list[tuple[float, float]]:
    """At most so many points of a curve and one more, for a page and a JSON file of sensible size.

    Its ends are kept, and where y lies furthest above x, which of a ROC curve is Youden's index.
    """
    keep = np.unique(np.r_[np.linspace(0, len(x) - 1, points).round().astype(int), np.argmax(y - x)])
    return [(round(float(x[i]), 5), round(float(y[i]), 5)) for i in keep]


@dataclass(frozen=True)
class Bin:
    """Films of similar probability: their mean probability, the share that is positive with its interval, how many."""

    predicted: float
    observed: Interval
    films: int


def reliability(
    labels: Truth, probabilities: Floats, patients: NDArray[np.str_] | None = None, *, bins: int = 10
) -> list[Bin]:
    """Bins of equal numbers of films, lowest probability first; fixed-width bins would leave a rare finding's nearly empty.

    patients: [N], whose the films are; None where each is of another one. Films of one probability share their labels' mean, so
    that where a bin ends among them their order in the table tells nothing.
    """
    _, tied = np.unique(probabilities, return_inverse=True)
    shared = (np.bincount(tied, labels) / np.bincount(tied))[tied]
    return [
        Bin(
            float(probabilities[rows].mean()),
            proportion(shared[rows], None if patients is None else patients[rows]),
            len(rows),
        )
        for rows in np.array_split(np.argsort(probabilities, kind="stable"), min(bins, len(labels)))
    ]


def calibration_error(labels: Truth, probabilities: Floats, *, bins: int = 10) -> float:
    """Expected calibration error: |mean probability - share positive|, averaged over films (Naeini et al., AAAI 2015)."""
    cells = reliability(labels, probabilities, bins=bins)
    return sum(cell.films * abs(cell.predicted - cell.observed.value) for cell in cells) / len(labels)


@dataclass(frozen=True)
class Confusion:
    """Counts at a threshold, and the figures a reader wants of them; an interval is None where nothing was counted."""

    threshold: float
    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int
    sensitivity: Interval | None
    specificity: Interval | None
    ppv: Interval | None
    npv: Interval | None
    f1: float | None


def confusion(labels: Truth, probabilities: Floats, threshold: float, patients: NDArray[np.str_]) -> Confusion:
    """Flag where probability >= threshold, and count. PPV and NPV hold at these films' prevalence only. patients: [N]."""
    flagged = probabilities >= threshold
    tp, fp = int((flagged & labels).sum()), int((flagged & ~labels).sum())
    fn, tn = int((~flagged & labels).sum()), int((~flagged & ~labels).sum())

    def share(hits: Truth, of: Truth) -> Interval | None:
        return proportion(hits[of], patients[of]) if of.any() else None

    return Confusion(
        threshold, tp, fp, fn, tn, share(flagged, labels), share(~flagged, ~labels), share(labels, flagged),
        share(~labels, ~flagged),
        2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None,
    )  # fmt: skip
