"""The distance from the training films, as `compress` fits it."""

import numpy as np
import pytest
from numpy.typing import NDArray

from cxredge.compress.feature_distance import FeatureDistance, fit_feature_distance
from cxredge.errors import DataError


def distance(gate: FeatureDistance, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """In 32-bit floats, as the graph has it."""
    off = (x - gate.mean) / gate.spread
    along = off @ gate.components
    return np.sqrt(
        ((along / gate.scales) ** 2).mean(1) + ((off**2).sum(1) - (along**2).sum(1)) / np.float32(gate.residual)
    )


def test_gate_distance_grows_away_from_the_training_films() -> None:
    rng = np.random.default_rng(0)
    # Forty features that move together in ten ways, and a little each for itself.
    together = rng.normal(size=(500, 10)) @ rng.normal(size=(10, 40))
    features = (together + 0.1 * rng.normal(size=(500, 40))).astype(np.float32)
    gate = fit_feature_distance(features, 10)
    usual = distance(gate, features)
    assert usual.mean() == pytest.approx(np.sqrt(2), rel=0.1)
    # Far in a way training films vary, and a little in a way they never do: both are seen.
    mean = features.mean(0, keepdims=True)
    far_along = mean + 6 * (features[:1] - mean)
    across = mean + np.eye(1, 40, dtype=np.float32) * 3
    assert distance(gate, far_along)[0] > usual.max()
    assert distance(gate, across)[0] > usual.max()


@pytest.mark.parametrize(("channels", "dead"), [(32, 0), (24, 0), (40, 10), (1, 0)])
def test_few_channels_leave_a_distance_that_is_no_rounding(channels: int, dead: int) -> None:
    rng = np.random.default_rng(0)
    gate = fit_feature_distance(_features(rng, 1500, channels, dead), 32)
    others = distance(gate, _features(rng, 200, channels, dead))
    assert np.isfinite(others).all()
    assert others.mean() == pytest.approx(np.sqrt(2 if channels > 1 else 1), rel=0.3)
    # What 8 bits leave of a channel that was dead in floats.
    rounded = _features(rng, 200, channels, dead) + np.float32(0.02)
    assert distance(gate, rounded).mean() == pytest.approx(others.mean(), rel=0.1)


def _features(rng: np.random.Generator, films: int, channels: int, dead: int) -> NDArray[np.float32]:
    features = rng.normal(size=(films, channels)).astype(np.float32)
    features[:, :dead] = 0
    return features


def test_a_network_that_tells_no_films_apart_has_no_distance() -> None:
    with pytest.raises(DataError, match="look the same"):
        fit_feature_distance(np.ones((20, 8), np.float32), 4)
