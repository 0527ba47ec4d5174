"""AUROC, its interval, paired drift and operating points, in NumPy alone so that the clinic can compute them too."""

from cxredge.metrics.bootstrap import mean_auroc_interval, patient_draws
from cxredge.metrics.delong import auroc, auroc_drift, auroc_interval, by_source, known, midranks
from cxredge.metrics.interval import Z95, Floats, Interval, in_words
from cxredge.metrics.operating_point import (
    OperatingPoint,
    at_threshold,
    sensitivity_point,
    specificity_point,
    youden_point,
)
from cxredge.metrics.shares import proportion, wilson

__all__ = [
    "Z95",
    "Floats",
    "Interval",
    "OperatingPoint",
    "at_threshold",
    "auroc",
    "auroc_drift",
    "auroc_interval",
    "by_source",
    "in_words",
    "known",
    "mean_auroc_interval",
    "midranks",
    "patient_draws",
    "proportion",
    "sensitivity_point",
    "specificity_point",
    "wilson",
    "youden_point",
]
