"""An estimate and how far it may be off."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Z95 = NormalDist().inv_cdf(0.975)
# The end of an interval that is 0 or 1 is so but for rounding.
_SAME = 1e-9


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


def in_words(share: Interval, *, whole: int = 1, least: int = 0, space: str = " ") -> str:
    """A share with its interval, of 1 or of 100: `84 (78-89)`. As many decimals, `least` at least, as keep one short of all, or of
    none, from reading so: `99.96 (99.90-99.98)`.
    """
    value, low, high = (whole * end for end in (share.value, share.low, share.high))
    digits = least
    while any(_reads_as(figure, end, digits) for figure, end in ((value, 0), (value, whole), (low, whole), (high, 0))):
        digits += 1
    return f"{value:.{digits}f}{space}({low:.{digits}f}\N{EN DASH}{high:.{digits}f})"


def _reads_as(figure: float, end: float, digits: int) -> bool:
    return round(figure, digits) == end and abs(figure - end) > _SAME
