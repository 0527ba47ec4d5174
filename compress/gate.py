"""Does a film look like the films the network learned from? A distance in the space of its pooled features halfway.

Mahalanobis distance along the principal components of the training films' features plus what lies across them (Lee et
al., NeurIPS 2018; Ndiour et al., 2020), small enough to run inside the graph on every film. It is fitted on training films
as they are and augmented, so that another exposure or a letterbox is nothing strange.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Gate:
    """A distance: features, brought to mean 0 and deviation 1, along and across the components.

    mean, spread: float32 [C]; components: float32 [C, k], orthonormal columns; scales: float32 [k], deviation along each;
    residual: mean squared length across them.
    """

    mean: NDArray[np.float32]
    spread: NDArray[np.float32]
    components: NDArray[np.float32]
    scales: NDArray[np.float32]
    residual: float


def fit_gate(features: NDArray[np.float32], components: int) -> Gate:
    """Fit on pooled features of training films, float32 [N, C], N larger than the number of components."""
    mean, spread = features.mean(0), features.std(0) + 1e-6
    off = ((features - mean) / spread).astype(np.float64)
    values, vectors = np.linalg.eigh(off.T @ off / len(off))
    kept = vectors[:, ::-1][:, :components]
    scales = np.sqrt(values[::-1][:components])
    residual = float((off**2).sum(1).mean() - (scales**2).sum())
    return Gate(mean, spread, kept.astype(np.float32), scales.astype(np.float32), residual)
