"""How much a network multiplies for one film: its size as work, counted before it is exported."""

from typing import cast

import torch
from torch import Tensor, nn

from cxredge.train.network import FilmNetwork


@torch.inference_mode()
def macs_of(network: FilmNetwork, size: int) -> int:
    """Multiply-accumulates of convolutions and matrix products for one film of `size` pixels.

    network: in evaluation mode. It counts as its exported graph does, see `cxredge.benchmarks.macs`.
    """
    macs = 0

    def add(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal macs
        # Each element of the output costs one kernel.
        macs += output.numel() * cast(Tensor, layer.weight)[0].numel()

    hooks = [
        layer.register_forward_hook(add) for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    # As the exported graph has it: the head on every place of the maps.
    network.head(network.maps(torch.zeros(1, 1, size, size, dtype=torch.uint8)))
    for hook in hooks:
        hook.remove()
    return macs
