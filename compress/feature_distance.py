"""Does a film look like the films the network learned from? A distance in the space of its pooled features halfway.

Mahalanobis distance along the principal components of the training films' features plus what lies across them (Lee et
al., NeurIPS 2018; Ndiour et al., 2020), small enough to run inside the graph on every film. It is fitted on training films
as they are and augmented, so that another exposure or a letterbox is nothing strange.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cxredge.errors import DataError
from cxredge.train.films import augment
from cxredge.train.network import FilmNetwork

# Of the features' variance, what lies across the components at least: less would drown in the rounding of 32-bit floats.
ACROSS = 1e-4
# Of the channels' mean deviation, below which one is dead.
DEAD = 0.01


@dataclass(frozen=True)
class FeatureDistance:
    """A distance: features, brought to mean 0 and deviation 1, along and across the components.

    mean, spread: float32 [C]; components: float32 [C, k], orthonormal columns; scales: float32 [k], deviation along each;
    residual: mean squared length across them.
    """

    mean: NDArray[np.float32]
    spread: NDArray[np.float32]
    components: NDArray[np.float32]
    scales: NDArray[np.float32]
    residual: float


def fit_feature_distance(features: NDArray[np.float32], components: int) -> FeatureDistance:
    """Fit on pooled features of training films, float32 [N, C], N larger than the number of components.

    components: so many at most; fewer where the features, of a pruned network for instance, would leave too little across them.
    Raises DataError where all films have the same features.
    """
    mean, deviation = features.mean(0), features.std(0)
    if not deviation.any():
        raise DataError("halfway through the network all training films look the same: it has learned nothing")
    # A channel that is dead on these films would make a distance of its rounding alone: it counts as any other does.
    alive = deviation > DEAD * deviation.mean()
    spread = np.where(alive, deviation, deviation.mean()) + np.float32(1e-6)
    off = ((features - mean) / spread).astype(np.float64)
    values, vectors = np.linalg.eigh(off.T @ off / len(off))
    values, vectors = values[::-1], vectors[:, ::-1]
    whole = float((off**2).sum(1).mean())
    k = max(1, min(components, int((whole - values.cumsum() >= ACROSS * whole).sum())))
    scales = np.sqrt(values[:k])
    residual = max(whole - float((scales**2).sum()), ACROSS * whole)
    return FeatureDistance(mean, spread, vectors[:, :k].astype(np.float32), scales.astype(np.float32), residual)


@torch.no_grad()
def features(network: FilmNetwork, planes: NDArray[np.uint8], batch: int = 32) -> NDArray[np.float32]:
    """Pooled features halfway of films as they are and augmented, float32 [2 N, C]. planes: uint8 [N, 1, H, W]."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for films in torch.from_numpy(planes).split(batch):
        parts += [network.stages(view)[0].numpy() for view in (films, augment(films, generator))]
    return np.concatenate(parts)
