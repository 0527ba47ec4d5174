"""A percentile that a short run may claim: the early-stopping estimate of MLPerf Inference.

The rule, as published with MLPerf Inference's load generator (mlcommons/inference, loadgen/early_stopping.cc and
results.cc): of n queries the t slowest are set aside, t as large as still lets one say with 99 % confidence that no more
than a share 1 - p of all queries would be slower than the slowest one kept, i.e. the probability of t or fewer slow ones
among n, were the true share 1 - p, stays at or below 1 %. The estimate is the t-th slowest latency. It is never below the
plain percentile by luck of a short run.
"""

from collections.abc import Sequence
from math import exp, lgamma, log

CONFIDENCE = 0.99


def discarded(queries: int, percentile: float) -> int | None:
    """How many of the slowest queries the rule sets aside; None when there are too few queries for any claim.

    LoadGen prints this number less one ("Would discard N highest latency queries").
    """
    tail, largest = 0.0, 0
    for t in range(queries + 1):
        tail += exp(_log_binomial(queries, t, 1 - percentile))
        if tail > 1 - CONFIDENCE:
            break
        largest = t
    return largest or None


def estimate(latencies: Sequence[float], percentile: float) -> float | None:
    """The early-stopping estimate of a percentile, in the unit of the latencies; None when there are too few."""
    aside = discarded(len(latencies), percentile)
    return None if aside is None else sorted(latencies)[len(latencies) - aside]


def _log_binomial(n: int, k: int, p: float) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) + k * log(p) + (n - k) * log(1 - p)
