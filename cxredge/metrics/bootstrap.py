"""Means over findings, bootstrapped by patient."""

import numpy as np
from numpy.typing import NDArray

from cxredge.errors import TooFewFilmsError
from cxredge.metrics.delong import auroc, auroc_drift, auroc_interval, by_source, fewest_patients, known
from cxredge.metrics.interval import Floats, Interval

# Draws that differ by rounding only say the same.
_NOTHING = 1e-9


def mean_auroc_interval(
    labels: Floats,
    scores: Floats,
    patients: NDArray[np.generic],
    *,
    baseline: Floats | None = None,
    sources: NDArray[np.str_] | None = None,
    samples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean AUROC over findings with a 95 % percentile interval, bootstrapped by patient.

    labels, scores: [N, L]; patients: [N], films of one patient are drawn together. With `baseline` (scores [N, L] of
    another model on the same films) the paired difference, scores minus baseline, instead. sources: [N], where the films are
    from; of a finding that several label the mean within each, see `by_source`.
    Draws in which a finding has no positive or no negative film average over the others. Where every draw says the same (one
    patient, scores all alike, or findings told apart without a mistake) the ends are the means of the findings' own intervals': so
    few films exclude nothing. No draw says how another patient than a finding's only one would have fared: the own interval of such
    a finding widens the mean's. The interval always holds the estimate. Raises TooFewFilmsError.
    """
    areas, draws = [], []
    weights = patient_draws(patients, samples, seed)
    for column in range(labels.shape[1]):
        within, drawn = [], []
        for part in by_source(labels[:, column], sources):
            area, areas_drawn = auroc(part, scores[:, column]), _areas_of_draws(part, scores[:, column], weights)
            if baseline is not None:
                area -= auroc(part, baseline[:, column])
                areas_drawn -= _areas_of_draws(part, baseline[:, column], weights)
            within.append(area)
            drawn.append(areas_drawn)
        if not within:
            raise TooFewFilmsError("a finding that each source has with it only, or without it only: AUROC needs both")
        areas.append(np.mean(within))
        draws.append(_mean_of_known(np.array(drawn)))
    # A draw in which no finding at all has both kinds of film says nothing.
    low, high = np.nanpercentile(_mean_of_known(np.array(draws)), (2.5, 97.5))
    own = [
        auroc_interval(labels[:, column], scores[:, column], patients, sources)
        if baseline is None
        else auroc_drift(labels[:, column], baseline[:, column], scores[:, column], patients, sources)
        for column in range(labels.shape[1])
    ]
    value = float(np.mean(areas))
    if high - low < _NOTHING:
        low, high = np.mean([each.low for each in own]), np.mean([each.high for each in own])
    elif alone := [
        each for column, each in enumerate(own) if fewest_patients(labels[:, column], patients, sources) == 1
    ]:
        # Independent of what the draws tell, so their squares add up.
        down, up = (np.linalg.norm(np.array(ends)) / len(own) for ends in _reaches(alone))
        least = 0.0 if baseline is None else -1.0
        low, high = max(least, value - np.hypot(value - low, down)), min(1.0, value + np.hypot(high - value, up))
    return Interval(value, min(value, float(low)), max(value, float(high)))


def _reaches(intervals: list[Interval]) -> tuple[list[float], list[float]]:
    """How far down and how far up each reaches from its estimate."""
    return [each.value - each.low for each in intervals], [each.high - each.value for each in intervals]


def _mean_of_known(draws: Floats) -> Floats:
    """Mean over those that are a number, nan where none is. [K, samples] -> [samples]."""
    told = ~np.isnan(draws)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(told, draws, 0).sum(0) / told.sum(0))


def patient_draws(patients: NDArray[np.generic], samples: int, seed: int) -> NDArray[np.uint16]:
    """How often each film is drawn when patients are drawn with replacement. patients: [N] -> [samples, N]."""
    _, owner = np.unique(patients, return_inverse=True)
    n = int(owner.max()) + 1
    rng = np.random.default_rng(seed)
    # Small from the first: of 100,000 patients the draws as NumPy counts them would fill 1.6 GB.
    drawn = np.empty((samples, n), np.uint16)
    for row in drawn:
        row[:] = np.bincount(rng.integers(n, size=n), minlength=n)
    return drawn if np.array_equal(owner, np.arange(n)) else drawn[:, owner]


def _areas_of_draws(labels: Floats, scores: Floats, weights: NDArray[np.uint16]) -> Floats:
    """AUROC of weighted films, one per row of weights; nan where a draw holds no positive or no negative film.

    labels: [N] in {0, 1, nan}; scores: [N]; weights: [samples, N] -> [samples].
    """
    positive, scores = known(labels, scores)
    weights = weights[:, ~np.isnan(labels)]
    order = np.argsort(scores, kind="stable")
    ordered, truth = scores[order], positive[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    found = []
    # A few million cells at a time, so that the largest published test set fits a small machine.
    for rows in np.array_split(weights, max(1, weights.size // 4_000_000)):
        weighted = rows[:, order].astype(np.float64)
        of_positives = np.add.reduceat(weighted * truth, first, axis=1)
        of_negatives = np.add.reduceat(weighted * ~truth, first, axis=1)
        in_order = (of_positives * (of_negatives.cumsum(1) - of_negatives / 2)).sum(1)
        with np.errstate(invalid="ignore"):
            found.append(in_order / (of_positives.sum(1) * of_negatives.sum(1)))
    return np.concatenate(found)
