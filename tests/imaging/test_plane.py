"""Greys judged by how often each occurs."""

import numpy as np
import pytest

from cxredge.imaging.plane import look_up, quantiles


@pytest.mark.parametrize("count", [1, 2, 99, 1000, 20_001])
def test_quantiles_are_numpys_to_the_last_bit(count: int) -> None:
    chance = np.random.default_rng(count)
    values, drawn = np.sort(chance.normal(0, 100, 4096)), chance.integers(0, 4096, count)
    shares = (0.0, 0.005, 0.5, 0.995, 1.0)
    found = quantiles(values, np.bincount(drawn, minlength=4096), shares)
    assert found == np.quantile(values[drawn], shares).tolist()


@pytest.mark.parametrize("shape", [(1, 70_000), (300, 500), (3, 1)])
@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2"])
def test_every_pixel_is_looked_up(shape: tuple[int, int], dtype: str) -> None:
    chance = np.random.default_rng(0)
    table = chance.integers(0, 256, 1 << 8 * np.dtype(dtype).itemsize).astype(np.uint8)
    indices = chance.integers(0, len(table), shape).astype(dtype)
    wanted = table[indices]
    np.testing.assert_array_equal(look_up(table, indices), wanted)
    over = look_up(table, indices, over=True)
    np.testing.assert_array_equal(over, wanted)
    assert np.shares_memory(over, indices)
