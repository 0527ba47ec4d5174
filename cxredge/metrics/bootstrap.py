"""Means over findings, bootstrapped by patient."""

import numpy as np
from numpy.typing import NDArray

from cxredge.metrics.delong import auroc, auroc_interval, known
from cxredge.metrics.interval import Floats, Interval


def mean_auroc_interval(
    labels: Floats,
    scores: Floats,
    patients: NDArray[np.generic],
    *,
    baseline: Floats | None = None,
    samples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean AUROC over findings with a 95 % percentile interval, bootstrapped by patient.

    labels, scores: [N, L]; patients: [N], films of one patient are drawn together. With `baseline` (scores [N, L] of
    another model on the same films) the paired difference, scores minus baseline, instead.
    Draws in which a finding has no positive or no negative film average over the others. Where every draw says the same (one
    patient, or findings told apart without a mistake) an AUROC's interval is the mean of its findings' own: so few films exclude
    nothing. Raises TooFewFilmsError.
    """

    areas, draws = [], []
    weights = patient_draws(patients, samples, seed)
    for column in range(labels.shape[1]):
        positive, kept = known(labels[:, column], scores[:, column])
        mask = ~np.isnan(labels[:, column])
        area, drawn = auroc(labels[:, column], scores[:, column]), _areas_of_draws(positive, kept, weights[:, mask])
        if baseline is not None:
            area -= auroc(labels[:, column], baseline[:, column])
            drawn -= _areas_of_draws(positive, baseline[mask, column].astype(np.float64), weights[:, mask])
        areas.append(area)
        draws.append(drawn)
    # A draw in which no finding at all has both kinds of film says nothing.
    told = np.array(draws)[:, ~np.isnan(draws).all(axis=0)]
    low, high = np.percentile(np.nanmean(told, axis=0), (2.5, 97.5))
    if low == high and baseline is None:
        own = [auroc_interval(labels[:, column], scores[:, column], patients) for column in range(labels.shape[1])]
        low, high = np.mean([each.low for each in own]), np.mean([each.high for each in own])
    return Interval(float(np.mean(areas)), float(low), float(high))


def patient_draws(patients: NDArray[np.generic], samples: int, seed: int) -> NDArray[np.uint16]:
    """How often each film is drawn when patients are drawn with replacement. patients: [N] -> [samples, N]."""
    _, owner = np.unique(patients, return_inverse=True)
    n = int(owner.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = np.stack([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(samples)])
    return drawn.astype(np.uint16)[:, owner]


def _areas_of_draws(positive: NDArray[np.bool_], scores: Floats, weights: NDArray[np.uint16]) -> Floats:
    """AUROC of weighted films, one per row of weights; nan where a draw holds no positive or no negative film.

    positive, scores: [N]; weights: [samples, N] -> [samples].
    """
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
