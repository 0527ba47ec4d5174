"""AUROC, its interval, paired drift and operating points, in NumPy alone so that the clinic can compute them too."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from cxredge.errors import NotFiniteError, TooFewFilmsError

Floats = NDArray[np.float64]
Z95 = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


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


def proportion(hits: NDArray[np.bool_], patients: NDArray[np.generic] | None = None) -> Interval:
    """The share of films that were hit, with its 95 % Wilson interval for as many films as these are worth.

    hits: [N]; patients: [N], whose the films are; None where each is of another one. Films of one patient are counted for less by
    the design effect of the ratio estimator (Rao & Scott, Biometrics 48, 1992), never for more; where all films say the same, for
    one film each patient. Raises TooFewFilmsError for no film.
    """
    n = len(hits)
    if n == 0 or patients is None:
        return wilson(int(hits.sum()), n)
    _, owner = np.unique(patients, return_inverse=True)
    films, p = np.bincount(owner), float(hits.mean())
    count = len(films)
    if p in (0.0, 1.0) or count == 1:
        return wilson(p * count, count)
    off = np.bincount(owner, hits, minlength=count) - p * films
    effect = float(off @ off) * count / (count - 1) / n / (p * (1 - p))
    worth = n / max(effect, 1.0)
    return wilson(p * worth, worth)


def wilson(successes: float, n: float) -> Interval:
    """A proportion with its 95 % score interval (Wilson 1927). Raises TooFewFilmsError when n is 0."""
    if n == 0:
        raise TooFewFilmsError("a proportion of no films")
    p, z2 = successes / n, Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * np.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return Interval(p, max(0.0, float(centre - half)), min(1.0, float(centre + half)))


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
