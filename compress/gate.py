"""Does a film look like the films the network learned from? A distance in the space of its pooled features.

Mahalanobis distance along the principal components of the training films' features plus what lies outside them (Lee et
al., NeurIPS 2018; Ndiour et al., 2020), small enough to run inside the graph on every film.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Gate:
    """mean: float32 [C]; components: float32 [C, k], orthonormal columns; scales: float32 [k], deviation along each;
    residual: mean squared length outside the components."""

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    scales: NDArray[np.float32]
    residual: float


def fit_gate(features: NDArray[np.float32], components: int) -> Gate:
    """Fit on the pooled features of training films, float32 [N, C]."""
    mean = features.mean(0)
    off = (features - mean).astype(np.float64)
    values, vectors = np.linalg.eigh(off.T @ off / len(off))
    kept = vectors[:, ::-1][:, :components]
    scales = np.sqrt(values[::-1][:components])
    residual = float((off**2).sum(1).mean() - (scales**2).sum())
    return Gate(mean.astype(np.float32), kept.astype(np.float32), scales.astype(np.float32), residual)
