"""Platt scaling, to be folded into the last layer."""

import numpy as np
from numpy.typing import NDArray

# Pull of the scale towards 1, in films: a finding with a handful of positives keeps about the spread it had. The bias is left free:
# weighted, focal and asymmetric losses move it far, and a pull back would leave a rare finding's probabilities twice too high. What
# there is only keeps the curvature above 0.
PRIOR, NO_PRIOR = 10.0, 1e-3
# Below it a scale says that the finding is ranked the wrong way round.
LEAST_SCALE = 0.05


def platt(labels: NDArray[np.float64], logits: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and bias per finding, both [L], that make `sigmoid(scale * logit + bias)` match the label frequencies.

    labels [N, L] in {0, 1, nan}, logits [N, L]. Maximum likelihood of Platt's smoothed targets (Platt 1999: with P positive and N
    negative films (P + 1) / (P + 2) and 1 / (N + 2), so that a finding without positives, or told apart without a mistake, has an
    answer), by Newton's method; the mean probability is then the targets' mean, at most one film more than the positives. The scale
    stays positive so that no ranking turns around. A finding that no film is labelled for stays as it is.
    """
    scales, biases = np.ones(labels.shape[1]), np.zeros(labels.shape[1])
    for column in range(labels.shape[1]):
        told = ~np.isnan(labels[:, column])
        if told.any():
            scales[column], biases[column] = _fit(logits[told, column], _targets(labels[told, column]))
    return scales, biases


def _targets(y: NDArray[np.float64]) -> NDArray[np.float64]:
    positives, negatives = y.sum(), (1 - y).sum()
    return np.asarray(np.where(y > 0.5, (positives + 1) / (positives + 2), 1 / (negatives + 2)))


def _fit(x: NDArray[np.float64], targets: NDArray[np.float64]) -> tuple[float, float]:
    design, pull = np.stack([x, np.ones(len(x))], axis=1), np.array([PRIOR, NO_PRIOR])
    theta = prior = np.array([1.0, _bias(x, targets)])

    def cost(theta: NDArray[np.float64]) -> float:
        z = design @ theta
        return float((np.logaddexp(0, z) - targets * z).sum() + (pull * (theta - prior) ** 2).sum() / 2)

    for _ in range(100):
        p = _sigmoid(design @ theta)
        gradient = design.T @ (p - targets) + pull * (theta - prior)
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
    # A finding ranked the wrong way round keeps its order, and gets the bias that goes with it.
    return LEAST_SCALE, _bias(LEAST_SCALE * x, targets)


def _bias(x: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    """The bias that brings the mean probability to the targets' mean."""
    low, high = -50.0 - x.max(), 50.0 - x.min()
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if _sigmoid(x + middle).mean() > targets.mean() else (middle, high)
    return float((low + high) / 2)


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -500, 500))))
