"""Platt scaling, to be folded into the last layer."""

import numpy as np
from numpy.typing import NDArray

# Pull of scale and bias towards (1, 0), in films: a finding with a handful of positives keeps about what it had.
PRIOR = 10.0


def platt(labels: NDArray[np.float64], logits: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and bias per finding, both [L], that make `sigmoid(scale * logit + bias)` match the label frequencies.

    labels [N, L] in {0, 1, nan}, logits [N, L]. Maximum likelihood with a weak prior (Platt 1999), by Newton's method; the
    scale stays positive so that no ranking turns around.
    """
    scales, biases = np.ones(labels.shape[1]), np.zeros(labels.shape[1])
    for column in range(labels.shape[1]):
        told = ~np.isnan(labels[:, column])
        x = np.stack([logits[told, column], np.ones(told.sum())], axis=1)
        y, theta = labels[told, column], np.array([1.0, 0.0])
        pull = np.array([PRIOR, PRIOR / 10])
        for _ in range(50):
            p = 1 / (1 + np.exp(-x @ theta))
            gradient = x.T @ (p - y) + pull * (theta - [1, 0])
            curvature = (x * (p * (1 - p))[:, None]).T @ x + np.diag(pull)
            step = np.linalg.solve(curvature, gradient)
            theta = theta - step
            if np.abs(step).max() < 1e-9:
                break
        scales[column], biases[column] = max(theta[0], 0.05), theta[1]
    return scales, biases
