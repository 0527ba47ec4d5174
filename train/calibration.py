"""Expected calibration error with its interval, and what it would be by chance or at another prevalence."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxredge.errors import TooFewFilmsError
from cxredge.metrics import Floats, Interval, patient_draws
from cxredge.train.curves import calibration_error

BINS = 10
CHANCE_SAMPLES = 500
_CELLS = 4_000_000


@dataclass(frozen=True)
class CalibrationError:
    """An expected calibration error with its 95 % interval. by_chance: what exactly right probabilities would show on average."""

    error: Interval
    by_chance: float


def calibration_errors(
    labels: Floats,
    probabilities: Floats,
    patients: NDArray[np.generic],
    *,
    bins: int = BINS,
    samples: int = 2000,
    seed: int = 0,
) -> tuple[list[CalibrationError], CalibrationError]:
    """Expected calibration error per finding and its mean over them, each with a 95 % interval by bootstrap over patients.

    labels: [N, L] in {0, 1, nan}; probabilities: [N, L]; patients: [N], films of one patient are drawn together.
    The error is that of `curves.calibration_error` (Naeini et al., AAAI 2015; bins of equal numbers of films, as in Nixon et al.,
    CVPRW 2019); the bins are those of the whole sample in every draw. Noise only ever adds to this error, in the sample and once
    more in every draw, so plain percentiles lie too high: the interval reaches as far below the estimate as the 97.5th percentile
    of the draws lies above it, and down to 0 where the estimate is below the 95th percentile of what exactly right probabilities
    show (Broecker & Smith 2007). Raises TooFewFilmsError when a finding is known of no film.
    """
    weights, rng = patient_draws(patients, samples, seed), np.random.default_rng(seed)
    values, draws, chances = [], [], []
    for column in range(labels.shape[1]):
        mask = ~np.isnan(labels[:, column])
        if not mask.any():
            raise TooFewFilmsError("calibration of a finding that no film is labelled for")
        truth, told = labels[mask, column] > 0.5, np.asarray(probabilities[mask, column], np.float64)
        values.append(calibration_error(truth, told, bins=bins))
        draws.append(_errors_of_draws(truth, told, weights[:, mask], bins))
        right = [calibration_error(rng.random(len(told)) < told, told, bins=bins) for _ in range(CHANCE_SAMPLES)]
        chances.append(np.array(right))
    told_of = np.array(draws)
    # A draw that holds no film of any finding says nothing.
    together = np.nanmean(told_of[:, ~np.isnan(told_of).all(axis=0)], axis=0)
    return [_error(*one) for one in zip(values, draws, chances, strict=True)], _error(
        float(np.mean(values)), together, np.mean(chances, axis=0)
    )


def _error(value: float, drawn: Floats, by_chance: Floats) -> CalibrationError:
    high = max(value, float(np.nanpercentile(drawn, 97.5)))
    by_luck = value <= np.percentile(by_chance, 95)
    return CalibrationError(
        Interval(value, 0.0 if by_luck else max(0.0, 2 * value - high), min(1.0, high)), float(by_chance.mean())
    )


def at_share(probabilities: Floats, known: float, share: float) -> Floats:
    """Probabilities [N] moved from one prevalence to another, all else equal (Saerens et al. 2002). known, share: in (0, 1)."""
    told = np.clip(np.asarray(probabilities, np.float64), 1e-12, 1 - 1e-12)
    odds = told / (1 - told) * (share / (1 - share)) / (known / (1 - known))
    return odds / (1 + odds)


def _errors_of_draws(truth: NDArray[np.bool_], told: Floats, weights: NDArray[np.uint16], bins: int) -> Floats:
    """The error of weighted films, one per row of weights; nan where a draw holds no film. weights: [samples, N]."""
    cells = np.array_split(np.argsort(told, kind="stable"), min(bins, len(told)))
    order, starts = np.concatenate(cells), np.cumsum([0, *map(len, cells[:-1])])
    off = (told - truth)[order]
    found = []
    # A few million cells at a time, so that the largest published test set fits a small machine.
    for rows in np.array_split(weights, max(1, weights.size // _CELLS)):
        weighted = rows[:, order].astype(np.float64)
        with np.errstate(invalid="ignore"):
            found.append(np.abs(np.add.reduceat(weighted * off, starts, axis=1)).sum(1) / weighted.sum(1))
    return np.concatenate(found)
