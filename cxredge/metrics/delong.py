"""AUROC, its interval and paired drift (DeLong, by patient)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxredge.errors import NotFiniteError, TooFewFilmsError
from cxredge.metrics.interval import Z95, Floats, Interval

# Of sums of numbers below 1, with room: two models of which 100,000 films tell differ by a hundred times as much.
_ROUNDING = 1e-12


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


def by_source(labels: Floats, sources: NDArray[np.str_] | None) -> list[Floats]:
    """A finding's labels in the parts that are ranked by themselves, each [N], nan where a film is not in it.

    labels: [N] in {0, 1, nan}; sources: [N]. One part, as they are, where one source alone labels the finding, or no sources are
    told; else a part for each source that has films with it and films without it. Between sources a network can tell the hospital
    and nothing of the disease. No part at all where every source has films of one kind.
    """
    if sources is None or len(labelled := np.unique(sources[~np.isnan(labels)])) < 2:
        return [labels]
    parts = [np.where(sources == source, labels, np.nan) for source in labelled]
    return [part for part in parts if (part == 1).any() and (part == 0).any()]


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

    @property
    def fewest(self) -> int:
        """Patients with positive films, or with negative ones, whichever are fewer."""
        return min(len(np.unique(self.of_positives)), len(np.unique(self.of_negatives)))


def _owners(labels: Floats, patients: NDArray[np.generic] | None) -> _Owners:
    mask = ~np.isnan(labels)
    positive = labels[mask] > 0.5
    who = np.arange(len(positive)) if patients is None else np.unique(patients[mask], return_inverse=True)[1]
    return _Owners(who[positive], who[~positive], int(who.max()) + 1)


def fewest_patients(labels: Floats, patients: NDArray[np.generic], sources: NDArray[np.str_] | None = None) -> int:
    """Patients who have films with the finding, or films without it, whichever are fewer, where they are ranked together.

    labels: [N] in {0, 1, nan}, both kinds in one source at least; patients, sources: [N], see `auroc_interval`.
    """
    return min(_owners(part, patients).fewest for part in by_source(labels, sources))


def _half_width(of_positives: Floats, of_negatives: Floats, owners: _Owners, widest: float) -> float:
    """Half a 95 % interval of an AUROC, or of a difference of two, from its components: sums by patient (Obuchowski 1997), DeLong's
    where each has one film.

    A kind of film that comes from one patient only has no spread to measure: the widest there can be is taken. So it is where
    components cancel (scores all alike, or few patients with one film of each kind), as if there were no doubt left: then half the
    interval is `widest`.
    """

    def centred(components: Floats, whose: NDArray[np.intp]) -> tuple[Floats, int]:
        summed = np.bincount(whose, components - components.mean(), minlength=owners.patients)
        return summed / len(components), len(np.unique(whose))

    (a, with_positives), (b, with_negatives) = (
        centred(of_positives, owners.of_positives),
        centred(of_negatives, owners.of_negatives),
    )
    alone = 0.0
    for sums, count in ((a, with_positives), (b, with_negatives)):
        alone += float(sums @ sums) * count / (count - 1) if count > 1 else 0.25
    found = alone
    if owners.patients > 1:
        found += 2 * float(a @ b) * owners.patients / (owners.patients - 1)
    return Z95 * float(np.sqrt(found)) if found > max(_ROUNDING * alone, _ROUNDING**2) else widest


def _widest(area: float, owners: _Owners) -> float:
    """Half the widest 95 % interval an AUROC can have, whatever the scores, of as many independent films as there are patients.

    Its variance is at most area (1 - area) / min(m, n) (Birnbaum & Klose, Ann Math Stat 28, 1957). That vanishes at 0 and 1, where
    the rule of three bounds what so few patients can exclude.
    """
    if area in (0.0, 1.0):
        return min(1.0, 3 / owners.fewest)
    return Z95 * float(np.sqrt(area * (1 - area) / owners.fewest))


def _area(labels: Floats, scores: Floats, patients: NDArray[np.generic] | None) -> tuple[float, float]:
    """AUROC of one part and half the width of its 95 % interval."""
    area, of_positives, of_negatives = _components(*known(labels, scores))
    owners = _owners(labels, patients)
    widest = _widest(area, owners)
    return area, widest if area in (0.0, 1.0) else _half_width(of_positives, of_negatives, owners, widest)


def auroc_interval(
    labels: Floats,
    scores: Floats,
    patients: NDArray[np.generic] | None = None,
    sources: NDArray[np.str_] | None = None,
) -> Interval:
    """AUROC with its 95 % interval, on the logit scale so that it stays in [0, 1].

    labels [N] in {0, 1, nan}, scores [N]. patients: [N], whose the films are; None where each is of another one. DeLong,
    DeLong & Clarke-Pearson 1988, with films of one patient counted together (Obuchowski, Biometrics 53, 1997): the sixtieth film
    of a patient tells less than the first. sources: [N], where the films are from; of a finding that several label the mean within
    each, see `by_source`. No patient may be of two. Raises TooFewFilmsError.
    """
    area, half = _mean([_area(part, scores, patients) for part in by_source(labels, sources)])
    if area in (0.0, 1.0):
        return Interval(area, max(0.0, area - half), min(1.0, area + half))
    spread, logit = half / (area * (1 - area)), np.log(area / (1 - area))
    return Interval(area, float(1 / (1 + np.exp(spread - logit))), float(1 / (1 + np.exp(-spread - logit))))


def auroc_drift(
    labels: Floats,
    full: Floats,
    compressed: Floats,
    patients: NDArray[np.generic] | None = None,
    sources: NDArray[np.str_] | None = None,
) -> Interval:
    """Paired AUROC difference, compressed minus full precision, with its 95 % interval (DeLong 1988, by patient as above).

    labels [N] in {0, 1, nan}; full, compressed: scores [N] of the same films in the same order; patients: [N], whose they are,
    None where each is of another one; sources: as above. Where no film passes one of the other kind the difference is 0, and as
    sure as there are films. Raises TooFewFilmsError.
    """
    value, half = _mean([_drift(part, full, compressed, patients) for part in by_source(labels, sources)])
    return Interval(value, max(-1.0, value - half), min(1.0, value + half))


def _drift(
    labels: Floats, full: Floats, compressed: Floats, patients: NDArray[np.generic] | None
) -> tuple[float, float]:
    """Difference within one part and half the width of its 95 % interval."""
    a, a_pos, a_neg = _components(*known(labels, full))
    b, b_pos, b_neg = _components(*known(labels, compressed))
    owners = _owners(labels, patients)
    if np.array_equal(a_pos, b_pos) and np.array_equal(a_neg, b_neg):
        return 0.0, _unseen(full[~np.isnan(labels)], compressed[~np.isnan(labels)], owners)
    # No difference varies more than its two areas do when they move against each other.
    widest = _widest(a, owners) + _widest(b, owners)
    return b - a, _half_width(b_pos - a_pos, b_neg - a_neg, owners, widest)


def _unseen(full: Floats, compressed: Floats, owners: _Owners) -> float:
    """Half the width of a drift of which these films show nothing: none passes one of the other kind, though ranks may differ.

    Up to three in so many patients may hold one that does (the rule of three), and passes as many as the film that moved furthest
    here did. 0 where each film has the same score from both.
    """
    if np.array_equal(full, compressed):
        return 0.0
    furthest = float(np.abs(midranks(full) - midranks(compressed)).max())
    return min(1.0, 3 / owners.fewest) * min(1.0, (furthest + 1) / len(full))


def _mean(parts: list[tuple[float, float]]) -> tuple[float, float]:
    """Mean of independent figures and half the width of its interval, from theirs."""
    if not parts:
        raise TooFewFilmsError(
            "each source has films with the finding only, or without it only: AUROC needs both in one"
        )
    values, halves = zip(*parts, strict=True)
    return float(np.mean(values)), float(np.sqrt(np.square(halves).sum())) / len(parts)
