"""From probabilities to flags and a place on the worklist."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxredge.bundle.manifest import Finding, Manifest
from cxredge.scan.reading import Priority


@dataclass(frozen=True)
class Decision:
    """flags: per finding, at its balanced operating point. top_finding: the flagged one furthest above it, or "".

    near: findings with evidence that are not flagged but lie so near to the point that they might as well be.
    """

    priority: Priority
    top_finding: str
    flags: dict[str, bool]
    near: tuple[str, ...] = ()


def decide(probabilities: dict[str, float], manifest: Manifest) -> Decision:
    """Flag each finding at its balanced operating point (Youden's index on validation); then, by findings with evidence:

    urgent: one that may need treatment the same day is flagged and reaches its specific point (95 % of films without it stay
    below), which may lie below the balanced one.
    review: one is flagged, or lies below its point by no more than what compression moves a score (`nearness`).
    routine: none does. An experimental finding is flagged but never drives the priority.
    """
    flags, near, priority, top, furthest = {}, [], Priority.ROUTINE, "", 0.0
    for finding in manifest.findings:
        p = probabilities[finding.name]
        flags[finding.name] = p >= finding.balanced.threshold
        if finding.experimental:
            continue
        if not flags[finding.name]:
            if -margin(p, finding) <= nearness(finding, manifest):
                near.append(finding.name)
            continue
        if finding.urgent_from is not None and p >= finding.urgent_from:
            priority = Priority.URGENT
        elif priority is Priority.ROUTINE:
            priority = Priority.REVIEW
        above = margin(p, finding)
        if not top or above > furthest:
            top, furthest = finding.name, above
    if near and priority is Priority.ROUTINE:
        priority = Priority.REVIEW
    return Decision(priority, top, flags, tuple(near))


def nearness(finding: Finding, manifest: Manifest) -> float:
    """How far below its threshold a finding still counts as near, in log-odds.

    95 of 100 validation films were moved by less when the network was compressed, or, where that was not kept, what two honest
    ways of computing the same graph may differ by on average.
    """
    return finding.rounding or manifest.tolerance.mean


def probabilities_of(logits: NDArray[np.float32], manifest: Manifest) -> dict[str, float]:
    """Calibrated probability per finding. logits: float32 [L], in the manifest's order."""
    values = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return dict(zip(manifest.names, values.tolist(), strict=True))


def margin(p: float, finding: Finding) -> float:
    """How far a probability lies above the finding's balanced threshold, in log-odds: comparable between findings."""
    return _logit(p) - _logit(finding.balanced.threshold)


def _logit(p: float) -> float:
    p = min(max(p, 1e-6), 1 - 1e-6)
    return float(np.log(p / (1 - p)))
