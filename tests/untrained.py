"""Networks that no training has seen and whose logits tell films apart all the same."""

import numpy as np
import torch
from numpy.typing import NDArray

from cxredge.train.network import FilmNetwork


def patches(films: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Pictures, uint8 [N, 1, 64, 64], of large patches: noise of single pixels looks all the same to a network."""
    coarse = np.random.default_rng(seed).integers(0, 256, (films, 1, 4, 4), dtype=np.uint8)
    return coarse.repeat(16, 2).repeat(16, 3)


def untrained(findings: int) -> FilmNetwork:
    """A MobileNetV2 in evaluation mode.

    Its batch norms have seen films and nothing else: running means that still remember the variance of 1 they began with let the
    signal die out on its way through fifty layers, and every film gets the same logits.
    """
    torch.manual_seed(0)
    network = FilmNetwork("mobilenet_v2", findings)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        for seed in range(4):
            network(torch.from_numpy(patches(16, seed=1000 + seed)))
    return network.eval()
