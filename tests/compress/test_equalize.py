"""Equalized channels: the same logits, ranges alike."""

import copy

import numpy as np
import pytest
import torch
from house import FILMS
from numpy.typing import NDArray
from torch import nn

from cxredge.bundle import Bundle
from cxredge.compress.equalize import CLIP, equalize
from cxredge.compress.quantize_aware import fold_batch_norms
from cxredge.imaging import Preprocessing, read_film
from cxredge.train.bundled import network_of
from cxredge.train.network import FilmNetwork


@pytest.fixture(scope="module")
def films() -> NDArray[np.uint8]:
    files = sorted((FILMS / "chestxray14" / "images").glob("*.jpg"))[:16]
    return np.stack([read_film(file, Preprocessing(size=224)).image for file in files])


def test_equalized_channels_give_the_same_logits_from_ranges_that_are_alike(
    bundle: Bundle, films: NDArray[np.uint8]
) -> None:
    plain = fold_batch_norms(network_of(bundle, bundle.manifest.names, films))
    equal = copy.deepcopy(plain)
    equalize(equal, films)
    image = torch.from_numpy(films)
    with torch.no_grad():
        off = (equal(image) - plain(image)).abs()
    # What lies beyond a channel's range is clipped, one activation in ten thousand.
    assert off.mean() < 0.02
    assert off.max() < 0.15

    before, after = _reached(plain, image), _reached(equal, image)
    assert len(before) == 35
    for name in before:
        live = before[name] > CLIP / 32
        # Towards ReLU6's bound; what was clipped below it may leave a channel behind a little short.
        assert (after[name][live] >= before[name][live] - 0.05).float().mean() > 0.97, name
        assert after[name].max() <= CLIP
    # A depthwise convolution takes its channels at any scale, so they come to it alike.
    expanded = [name for name in before if name.endswith("conv.0.2")][1:]
    spread = np.mean([float(after[name].std()) for name in expanded])
    assert spread < 0.6 * np.mean([float(before[name].std()) for name in expanded])


@torch.no_grad()
def _reached(network: FilmNetwork, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """The largest activation of every channel behind every ReLU6."""
    reached: dict[str, torch.Tensor] = {}
    hooks = [
        layer.register_forward_hook(lambda _, __, out, name=name: reached.__setitem__(name, out.amax((0, 2, 3))))
        for name, layer in network.features.named_modules()
        if isinstance(layer, nn.ReLU6)
    ]
    network.maps(image)
    for hook in hooks:
        hook.remove()
    return reached
