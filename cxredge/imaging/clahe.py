"""Contrast-limited adaptive histogram equalisation (Zuiderveld, Graphics Gems IV, 1994), as OpenCV computes it."""

import numpy as np
from numpy.typing import NDArray

_LEVELS = 256


def clahe(grey: NDArray[np.uint8], *, tiles: int = 10, clip_limit: float = 3.0) -> NDArray[np.uint8]:
    """Equalise a film's contrast tile by tile. Within one grey level of OpenCV's createCLAHE.

    grey: uint8 [H, W], at least `tiles` pixels on either side; the result has the same shape.
    tiles: tiles along either side. clip_limit: how often a grey level counts at most, as a multiple of the mean count.
    """
    rows, columns = grey.shape
    # OpenCV extends both sides as soon as one does not divide, by a whole tile row where that side would.
    missing = (tiles - rows % tiles, tiles - columns % tiles) if rows % tiles or columns % tiles else (0, 0)
    padded = np.pad(grey, ((0, missing[0]), (0, missing[1])), mode="reflect")
    tables = _tile_tables(padded, tiles, clip_limit)
    above, below, down = _neighbours(rows, padded.shape[0] // tiles, tiles)
    left, right, across = _neighbours(columns, padded.shape[1] // tiles, tiles)

    def look_up(vertical: NDArray[np.intp], horizontal: NDArray[np.intp]) -> NDArray[np.float32]:
        return tables[vertical[:, None], horizontal[None, :], grey]

    down, across = down[:, None], across[None, :]
    upper = look_up(above, left) * (1 - across) + look_up(above, right) * across
    lower = look_up(below, left) * (1 - across) + look_up(below, right) * across
    return np.rint(upper * (1 - down) + lower * down).astype(np.uint8)


def _tile_tables(padded: NDArray[np.uint8], tiles: int, clip_limit: float) -> NDArray[np.float32]:
    """Grey to equalised grey for every tile, float32 [tiles, tiles, 256] holding whole numbers."""
    height, width = padded.shape[0] // tiles, padded.shape[1] // tiles
    area = height * width
    of_tile = padded.reshape(tiles, height, tiles, width).transpose(0, 2, 1, 3).reshape(tiles * tiles, area)
    places = of_tile + _LEVELS * np.arange(tiles * tiles)[:, None]
    counts = np.bincount(places.ravel(), minlength=tiles * tiles * _LEVELS).reshape(-1, _LEVELS)
    limit = max(1, int(clip_limit * area / _LEVELS))
    excess = np.maximum(counts - limit, 0).sum(axis=1)
    counts = np.minimum(counts, limit) + (excess // _LEVELS)[:, None]
    for tile, rest in enumerate(excess % _LEVELS):
        if rest:
            # What does not divide evenly is spread over the grey levels at equal steps.
            counts[tile, : rest * (step := _LEVELS // rest) : step] += 1
    equalised = np.rint(counts.cumsum(axis=1).astype(np.float32) * np.float32((_LEVELS - 1) / area))
    tables: NDArray[np.float32] = np.clip(equalised, 0, _LEVELS - 1).reshape(tiles, tiles, _LEVELS).astype(np.float32)
    return tables


def _neighbours(length: int, tile: int, tiles: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For every pixel along one side: the tiles whose centres lie before and after it, and how far between them."""
    position = np.arange(length, dtype=np.float32) / np.float32(tile) - np.float32(0.5)
    before = np.floor(position).astype(np.intp)
    share = (position - before).astype(np.float32)
    return np.clip(before, 0, tiles - 1), np.clip(before + 1, 0, tiles - 1), share
