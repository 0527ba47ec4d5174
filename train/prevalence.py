"""What a flag, and no flag, would mean where a finding is as common as somebody says, by Bayes' theorem."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cxredge.errors import DataError
from cxredge.metrics import Interval
from cxredge.train.curves import Confusion


@dataclass(frozen=True)
class AtPrevalence:
    """prevalence: the share stated. ppv: of the flagged, the share that has the finding; npv: of the others, that has it not.

    None where no film was flagged, or every one.
    """

    prevalence: float
    ppv: Interval | None
    npv: Interval | None


def at_prevalence(point: Confusion, prevalence: float) -> AtPrevalence | None:
    """PPV and NPV from sensitivity and specificity; None where either was measured on no film.

    95 % intervals by recovering variances from those of sensitivity and specificity (MOVER; Donner & Zou, Stat Methods Med Res 21,
    2012), on the scale of log likelihood ratios; so they count a patient's films together as those do. The share itself is taken
    as known.
    """
    if point.sensitivity is None or point.specificity is None:
        return None
    odds = prevalence / (1 - prevalence)
    flagged = _predictive(point.sensitivity, _other(point.specificity), odds)
    not_flagged = _predictive(point.specificity, _other(point.sensitivity), 1 / odds)
    return AtPrevalence(prevalence, flagged, not_flagged)


def _predictive(right: Interval, wrong: Interval, odds: float) -> Interval | None:
    """Of the films that get an answer, the share for which it is right. right, wrong: how often it is given rightly, wrongly."""
    if not right.value and not wrong.value:
        return None
    return Interval(*(_share(ratio, odds) for ratio in _ratio(right, wrong)))


def _ratio(above: Interval, below: Interval) -> tuple[float, float, float]:
    """above / below with its interval."""
    value, low, high = above.value / below.value if below.value else math.inf, 0.0, math.inf
    if above.value > 0 and below.value > 0:
        down = math.hypot(math.log(above.value / max(above.low, 1e-300)), math.log(below.high / below.value))
        up = math.hypot(math.log(above.high / above.value), math.log(below.value / max(below.low, 1e-300)))
        return value, value * math.exp(-down), value * math.exp(up)
    # No film of one kind erred, or every one did: as far as the ends of both intervals reach.
    low = above.low / below.high
    high = above.high / below.low if below.low else math.inf
    return value, low, high


def _share(ratio: float, odds: float) -> float:
    return 1.0 if math.isinf(ratio) else ratio * odds / (1 + ratio * odds)


def _other(share: Interval) -> Interval:
    return Interval(1 - share.value, 1 - share.high, 1 - share.low)


def read_prevalences(stated: Sequence[str], findings: Sequence[str]) -> dict[str, float]:
    """Share by finding, from `0.02`, which is for all of them, and `Effusion=0.1`, which goes before it.

    Raises DataError for what is no share between 0 and 1, and for a finding that is not one of these.
    """
    for_all, own = dict[str, float](), dict[str, float]()
    for words in stated:
        finding, _, said = words.rpartition("=")
        try:
            share = float(said)
        except ValueError:
            share = math.nan
        if not 0 < share < 1:
            raise DataError(f"--prevalence {words}: give a share between 0 and 1, such as 0.02 or Effusion=0.1")
        if finding and finding not in findings:
            raise DataError(f"--prevalence {words}: {finding} is none of {', '.join(findings)}")
        if finding:
            own[finding] = share
        else:
            for_all = dict.fromkeys(findings, share)
    return for_all | own
