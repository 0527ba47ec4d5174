"""Shares of films, with intervals that count a patient's films together."""

import numpy as np
from numpy.typing import NDArray

from cxredge.errors import TooFewFilmsError
from cxredge.metrics.interval import Z95, Floats, Interval


def proportion(hits: NDArray[np.bool_] | Floats, patients: NDArray[np.generic] | None = None) -> Interval:
    """The share of films that were hit, with its 95 % Wilson interval for as many films as these are worth.

    hits: [N], bool, or what share of a hit each film is; patients: [N], whose the films are; None where each is of another one.
    Films of one patient are counted for less by the design effect of the ratio estimator (Rao & Scott, Biometrics 48, 1992), never
    for more; where all films say the same, for one film each patient. Raises TooFewFilmsError for no film.
    """
    n = len(hits)
    if n == 0 or patients is None:
        return wilson(float(hits.sum()), n)
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
