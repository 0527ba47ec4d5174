"""AUROC, its interval and paired drift (DeLong, by patient)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxredge.errors import NotFiniteError, TooFewFilmsError
from cxredge.metrics.interval import Z95, Floats, Interval


def known(labels: Floats, scores: Floats) -> tuple[NDArray[np.bool_], Floats]:
    """Labels as booleans and their scores, films with an unknown label (nan) left out.

    Raises TooFewFilmsError when no positive or no negative film remains, NotFiniteError for scores that are no numbers: sorted
    with the others they would make an area as good as any.
    """
    mask = ~np.isnan(labels)
    positive, scores = labels[mask] > 0.5, np.asarray(scores, np.float64)[mask]
    if wrong := int((~np.isfinite(scores)).sum()):
        raise NotFiniteError(
            f"{wrong} of {len(scores)} scores are no numbers: the network is broken, or was never told of this finding"
        )
    if positive.all() or not positive.any():
        raise TooFewFilmsError(f"{positive.sum()} positive and {(~positive).sum()} negative films: AUROC needs both")
    return positive, scores


def midranks(x: Floats) -> Floats:
    """Ranks from 1, ties sharing the mean of theirs. x: [N]."""
    order = np.argsort(x, kind="stable")
    ordered = x[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ends = np.r_[first[1:], len(x)]
    ranks = np.empty(len(x))
    ranks[order] = np.repeat((first + ends + 1) / 2, ends - first)
    return ranks


def auroc(labels: Floats, scores: Floats) -> float:
    """Area under the ROC curve (Mann-Whitney). labels [N] in {0, 1, nan}, scores [N]. Raises TooFewFilmsError."""
    positive, scores = known(labels, scores)
    m, n = int(positive.sum()), int((~positive).sum())
    return float((midranks(scores)[positive].sum() - m * (m + 1) / 2) / (m * n))


def _components(positive: NDArray[np.bool_], scores: Floats) -> tuple[float, Floats, Floats]:
    """AUROC and its structural components over positives [m] and negatives [n] (Sun & Xu 2014, fast DeLong)."""
    m, n = int(positive.sum()), int((~positive).sum())
    together = midranks(scores)
    of_positives = (together[positive] - midranks(scores[positive])) / n
    of_negatives = 1 - (together[~positive] - midranks(scores[~positive])) / m
    return float(of_positives.mean()), of_positives, of_negatives


@dataclass(frozen=True)
class _Owners:
    """Whose the positive films [m] and the negative films [n] are, as numbers below `patients`."""

    of_positives: NDArray[np.intp]
    of_negatives: NDArray[np.intp]
    patients: int


def _owners(labels: Floats, patients: NDArray[np.generic] | None) -> _Owners:
    mask = ~np.isnan(labels)
    positive = labels[mask] > 0.5
    who = np.arange(len(positive)) if patients is None else np.unique(patients[mask], return_inverse=True)[1]
    return _Owners(who[positive], who[~positive], int(who.max()) + 1)


def _variance(of_positives: Floats, of_negatives: Floats, owners: _Owners) -> float:
    """Of an AUROC, or of a difference of two, from its components: sums by patient (Obuchowski 1997), DeLong's where each has
    one film. A kind of film that comes from one patient only has no spread to measure: the widest there can be is taken."""

    def centred(components: Floats, whose: NDArray[np.intp]) -> tuple[Floats, int]:
        summed = np.bincount(whose, components - components.mean(), minlength=owners.patients)
        return summed / len(components), len(np.unique(whose))

    (a, with_positives), (b, with_negatives) = (
        centred(of_positives, owners.of_positives),
        centred(of_negatives, owners.of_negatives),
    )
    found = 0.0
    for sums, count in ((a, with_positives), (b, with_negatives)):
        found += float(sums @ sums) * count / (count - 1) if count > 1 else 0.25
    if owners.patients > 1:
        found += 2 * float(a @ b) * owners.patients / (owners.patients - 1)
    return max(found, 0.0)


def auroc_interval(labels: Floats, scores: Floats, patients: NDArray[np.generic] | None = None) -> Interval:
    """AUROC with its 95 % interval, on the logit scale so that it stays in [0, 1].

    labels [N] in {0, 1, nan}, scores [N]. patients: [N], whose the films are; None where each film is of another one. DeLong,
    DeLong & Clarke-Pearson 1988, with films of one patient counted together (Obuchowski, Biometrics 53, 1997): the sixtieth film
    of a patient tells less than the first. Raises TooFewFilmsError.
    """
    area, of_positives, of_negatives = _components(*known(labels, scores))
    owners = _owners(labels, patients)
    if area in (0.0, 1.0):
        # The variance vanishes there; the rule of three bounds what so few patients can exclude.
        width = min(1.0, 3 / min(len(np.unique(owners.of_positives)), len(np.unique(owners.of_negatives))))
        return Interval(area, max(0.0, area - width), min(1.0, area + width))
    spread = Z95 * np.sqrt(_variance(of_positives, of_negatives, owners)) / (area * (1 - area))
    logit = np.log(area / (1 - area))
    return Interval(area, float(1 / (1 + np.exp(spread - logit))), float(1 / (1 + np.exp(-spread - logit))))


def auroc_drift(
    labels: Floats, full: Floats, compressed: Floats, patients: NDArray[np.generic] | None = None
) -> Interval:
    """Paired AUROC difference, compressed minus full precision, with its 95 % interval (DeLong 1988, by patient as above).

    labels [N] in {0, 1, nan}; full, compressed: scores [N] of the same films in the same order; patients: [N], whose they are,
    None where each is of another one. Raises TooFewFilmsError.
    """
    a, a_pos, a_neg = _components(*known(labels, full))
    b, b_pos, b_neg = _components(*known(labels, compressed))
    same = np.array_equal(a_pos, b_pos) and np.array_equal(a_neg, b_neg)
    half = 0.0 if same else Z95 * float(np.sqrt(_variance(b_pos - a_pos, b_neg - a_neg, _owners(labels, patients))))
    return Interval(b - a, max(-1.0, b - a - half), min(1.0, b - a + half))
