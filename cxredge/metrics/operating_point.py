"""Thresholds, and what they were measured to do."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxredge.metrics.delong import known
from cxredge.metrics.interval import Floats, Interval
from cxredge.metrics.shares import proportion


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold with what it was measured to do.

    threshold: flag where probability >= threshold. sensitivity, specificity: with 95 % intervals, see `proportion`.
    positives, negatives: films the figures rest on.
    """

    threshold: float
    sensitivity: Interval
    specificity: Interval
    positives: int
    negatives: int


def at_threshold(
    labels: Floats, scores: Floats, threshold: float, patients: NDArray[np.generic] | None = None
) -> OperatingPoint:
    """Sensitivity and specificity of `scores >= threshold`.

    labels [N] in {0, 1, nan}; patients: [N], whose the films are; None where each is of another one. Raises TooFewFilmsError.
    """
    positive, scores = known(labels, scores)
    flagged, whose = scores >= threshold, None if patients is None else patients[~np.isnan(labels)]
    return OperatingPoint(
        threshold,
        proportion(flagged[positive], None if whose is None else whose[positive]),
        proportion(~flagged[~positive], None if whose is None else whose[~positive]),
        int(positive.sum()),
        int((~positive).sum()),
    )


def sensitivity_point(
    labels: Floats, scores: Floats, sensitivity: float = 0.90, patients: NDArray[np.generic] | None = None
) -> OperatingPoint:
    """The highest threshold that flags at least this share of the positive films. Raises TooFewFilmsError."""
    positive, told = known(labels, scores)
    ordered = np.sort(told[positive])[::-1]
    chosen = _just_below(told, ordered[int(np.ceil(sensitivity * len(ordered))) - 1])
    return at_threshold(labels, scores, chosen, patients)


def specificity_point(
    labels: Floats, scores: Floats, specificity: float = 0.95, patients: NDArray[np.generic] | None = None
) -> OperatingPoint:
    """The lowest threshold that leaves at least this share of the negative films unflagged. Raises TooFewFilmsError."""
    positive, told = known(labels, scores)
    ordered = np.sort(told[~positive])
    unflagged = ordered[int(np.ceil(specificity * len(ordered))) - 1]
    above = told[told > unflagged]
    chosen = _just_below(told, above.min()) if len(above) else (unflagged + 1) / 2
    return at_threshold(labels, scores, chosen, patients)


def _just_below(scores: Floats, score: float) -> float:
    """Halfway to the next lower score, so that rounding in another runtime does not move a film across."""
    below = scores[scores < score]
    return float((score + below.max()) / 2) if len(below) else float(score)


def youden_point(labels: Floats, scores: Floats, patients: NDArray[np.generic] | None = None) -> OperatingPoint:
    """The threshold of greatest sensitivity + specificity - 1 (Youden 1950). Raises TooFewFilmsError."""
    positive, told = known(labels, scores)
    thresholds = np.unique(told)
    m, n = np.sort(told[positive]), np.sort(told[~positive])
    sensitivity = 1 - np.searchsorted(m, thresholds, side="left") / len(m)
    specificity = np.searchsorted(n, thresholds, side="left") / len(n)
    return at_threshold(labels, scores, _just_below(told, thresholds[np.argmax(sensitivity + specificity)]), patients)
