"""Is a chest film upright, not inverted and whole? Told from its coarse picture, without the network.

A chest looks much the same in 24 x 24 pixels, whoever it is of: eigenpictures of training films (Turk & Pentland, 1991) say how
far a picture lies from that, and whether it would come nearer were it turned or its greys swapped. A second, linear model on the
same pictures and on products of their leading components tells whole chests from cut ones. What both were fitted on, and the
limits, are in framing.npz; `python -m cxredge.compress.framing` makes it again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Of the leading components, those whose products the second model sees.
PAIRED = 30
# Added to a picture's deviation, so that an empty one is not blown up.
_QUIET = 4.0
AS_GIVEN, INVERTED = "as given", "inverted"
CHANGED: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    AS_GIVEN: lambda film: film,
    INVERTED: lambda film: ~film if film.dtype == np.uint8 else -film,
    "upside down": lambda film: film[..., ::-1, ::-1],
    "mirrored top to bottom": lambda film: film[..., ::-1, :],
    "turned to the right": lambda film: np.rot90(film, 1, (-2, -1)),
    "turned to the left": lambda film: np.rot90(film, 3, (-2, -1)),
}


@dataclass(frozen=True)
class Framing:
    """distance: of the film as given from training films, about 1.4 for a usual one. nearest: the change (a key of `CHANGED`)
    that brings it nearest to them, `AS_GIVEN` when none does. cut: above 0 the chest does not look whole. odd: whether the
    distance is one that one training film in a hundred exceeds.
    """

    distance: float
    nearest: str
    cut: float
    odd: bool


@dataclass(frozen=True)
class Eigenfilms:
    """mean: float32 [576]. components: float32 [576, k], orthonormal. scales: float32 [k], deviation along each.
    residual: mean squared length across them. weights: float32 [576 + PAIRED * (PAIRED + 1) / 2], bias: of the second model.
    cut_limit, odd_limit: what of validation films one in a thousand, of training films one in a hundred exceeds.
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    scales: NDArray[np.float32]
    residual: float
    weights: NDArray[np.float32]
    bias: float
    cut_limit: float
    odd_limit: float


def framing(coarse: NDArray[np.uint8]) -> Framing:
    """Judge a film by its coarse picture, uint8 [24, 24] (`Film.coarse`)."""
    films = eigenfilms()
    square = standardised(coarse[None]).reshape(1, *coarse.shape)
    changed = np.concatenate([change(square) for change in CHANGED.values()]).reshape(len(CHANGED), -1)
    far = distances(changed, films)
    cut = float(second_look(changed[:1], films)[0] @ films.weights + films.bias) - films.cut_limit
    return Framing(float(far[0]), list(CHANGED)[int(far.argmin())], cut, bool(far[0] > films.odd_limit))


def standardised(coarse: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pictures of mean 0 and deviation 1, whatever the exposure. coarse: uint8 [N, 24, 24] -> float32 [N, 576]."""
    flat = coarse.reshape(len(coarse), -1).astype(np.float32)
    spread = flat.std(1, keepdims=True) + _QUIET
    return np.asarray((flat - flat.mean(1, keepdims=True)) / spread, np.float32)


def distances(pictures: NDArray[np.float32], films: Eigenfilms) -> NDArray[np.float32]:
    """Mahalanobis distance along the components plus what lies across them, float32 [N]. pictures: [N, 576]."""
    off = pictures - films.mean
    along = off @ films.components
    across = ((off**2).sum(1) - (along**2).sum(1)) / films.residual
    return np.asarray(np.sqrt(((along / films.scales) ** 2).mean(1) + np.maximum(across, 0)), np.float32)


def second_look(pictures: NDArray[np.float32], films: Eigenfilms) -> NDArray[np.float32]:
    """What the second model sees: the picture and the products of its leading components. float32 [N, 576 + pairs]."""
    leading = ((pictures - films.mean) @ films.components[:, :PAIRED]) / films.scales[:PAIRED]
    one, other = np.triu_indices(PAIRED)
    return np.concatenate([pictures, 0.3 * leading[:, one] * leading[:, other]], axis=1).astype(np.float32)


@cache
def eigenfilms() -> Eigenfilms:
    """What comes with cxredge."""
    with (
        resources.as_file(resources.files("cxredge.scan") / "framing.npz") as file,
        np.load(file, allow_pickle=False) as said,
    ):
        mean, components, scales, weights = (
            said[name].astype(np.float32) for name in ("mean", "components", "scales", "weights")
        )
        residual, bias, cut_limit, odd_limit = (
            float(said[name]) for name in ("residual", "bias", "cut_limit", "odd_limit")
        )
        return Eigenfilms(mean, components, scales, residual, weights, bias, cut_limit, odd_limit)
