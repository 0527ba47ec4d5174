"""Platt scaling, to be folded into the last layer."""

import numpy as np
from numpy.typing import NDArray

# Pull of scale and bias towards (1, 0), in films: a finding with a handful of positives keeps about what it had.
PRIOR = 10.0
# Below it a scale says that the finding is ranked the wrong way round.
LEAST_SCALE = 0.05


def platt(labels: NDArray[np.float64], logits: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and bias per finding, both [L], that make `sigmoid(scale * logit + bias)` match the label frequencies.

    labels [N, L] in {0, 1, nan}, logits [N, L]. Maximum likelihood with a weak prior (Platt 1999), by Newton's method; the
    scale stays positive so that no ranking turns around.
    """
    scales, biases = np.ones(labels.shape[1]), np.zeros(labels.shape[1])
    for column in range(labels.shape[1]):
        told = ~np.isnan(labels[:, column])
        scales[column], biases[column] = _fit(logits[told, column], labels[told, column])
    return scales, biases


def _fit(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    design, pull, target = np.stack([x, np.ones(len(x))], axis=1), np.array([PRIOR, PRIOR / 10]), np.array([1.0, 0.0])

    def cost(theta: NDArray[np.float64]) -> float:
        z = design @ theta
        return float((np.logaddexp(0, z) - y * z).sum() + (pull * (theta - target) ** 2).sum() / 2)

    theta = target.copy()
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(design @ theta, -500, 500)))
        gradient = design.T @ (p - y) + pull * (theta - target)
        curvature = (design * (p * (1 - p))[:, None]).T @ design + np.diag(pull)
        step = np.linalg.solve(curvature, gradient)
        # A full Newton step overshoots where the sigmoid is flat: halve it until the cost falls.
        while cost(theta - step) > cost(theta) and np.abs(step).max() > 1e-9:
            step /= 2
        theta = theta - step
        if np.abs(step).max() < 1e-9:
            break
    if theta[0] >= LEAST_SCALE:
        return float(theta[0]), float(theta[1])
    # A finding ranked the wrong way round keeps its order, and gets the bias that goes with it: its mean probability is its share.
    return LEAST_SCALE, _bias(LEAST_SCALE * x, y)


def _bias(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """The bias that brings the mean probability to the share of positives, both pulled a little towards a half."""
    share, low, high = (y.sum() + 0.5) / (len(y) + 1), -50.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (low, middle) if (1 / (1 + np.exp(-np.clip(x + middle, -500, 500)))).mean() > share else (middle, high)
        )
    return (low + high) / 2
