"""Cross-layer equalization: the channels of a layer are brought to like ranges before all of them share one activation scale.

A channel may be scaled up by the convolution that makes it and down by the one that takes it, and the network computes what it
did (Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019, section 4.1). Ranges are
those real films reach, not those of the weights, and no channel is scaled past the 6 at which ReLU6 clips.
"""

import itertools
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cxredge.train.network import FilmNetwork

CLIP = 6.0
# Of a channel's activations, those its range covers.
COVERED = 0.9999
# A channel that is silent on all films would be scaled up without end.
LARGEST_SCALE = 32.0
# A depthwise convolution has its own weight scale per channel and takes any factor; a pointwise one shares a row's scale among
# the channels, so activations and weights meet halfway.
DEPTHWISE, POINTWISE = 1.0, 0.5


@torch.no_grad()
def equalize(network: FilmNetwork, planes: NDArray[np.uint8]) -> None:
    """Rescale the channels of a MobileNetV2, in place; its logits stay, but for the rarest 1 in 10,000 activations of a channel.

    network: batch norms folded (see `fold_batch_norms`). planes: training films, uint8 [N, 1, H, W]; some dozens are enough.
    """
    stem, *blocks, last = network.features.children()
    convolutions = [[m for m in block.modules() if isinstance(m, nn.Conv2d)] for block in blocks]
    stem_convolution, last_convolution = (cast(nn.Conv2d, next(block.children())) for block in (stem, last))
    every = [stem_convolution, *(m for block in convolutions for m in block)]
    projections = {block[-1] for block in convolutions}
    reached = _ranges(network, every, projections, planes)

    clipped = [(stem_convolution, convolutions[0][0])]
    clipped += [pair for block in convolutions for pair in itertools.pairwise(block)]
    for maker, taker in clipped:
        share = DEPTHWISE if taker.groups > 1 else POINTWISE
        scale = (CLIP / reached[maker].clamp(CLIP / LARGEST_SCALE, CLIP)).pow(share)
        _scale(scale, [maker], [taker])

    # Blocks that add to one stream share its scales; the first block that does not add begins the next stream.
    streams: list[list[int]] = []
    for i, block in enumerate(blocks):
        if cast(bool, block.use_res_connect):
            streams[-1].append(i)
        else:
            streams.append([i])
    for stream in streams:
        makers = [convolutions[i][-1] for i in stream]
        after = stream[-1] + 1
        takers = [convolutions[i][0] for i in stream[1:]]
        takers.append(convolutions[after][0] if after < len(blocks) else last_convolution)
        widest = torch.stack([reached[maker] for maker in makers]).amax(0)
        scale = (widest.max() / widest.clamp_min(widest.max() / LARGEST_SCALE)).pow(POINTWISE)
        _scale(scale, makers, takers)


def _scale(scale: Tensor, makers: list[nn.Conv2d], takers: list[nn.Conv2d]) -> None:
    """Channels up by `scale` [C] where they are made, down where they are taken."""
    for maker in makers:
        maker.weight.mul_(scale.view(-1, 1, 1, 1))
        cast(Tensor, maker.bias).mul_(scale)
    for taker in takers:
        taker.weight.div_(scale.view(-1, 1, 1, 1) if taker.groups > 1 else scale.view(1, -1, 1, 1))


def _ranges(
    network: FilmNetwork,
    layers: list[nn.Conv2d],
    linear: set[nn.Conv2d],
    planes: NDArray[np.uint8],
    batch: int = 20,
) -> dict[nn.Module, Tensor]:
    """Per layer what each channel reaches, float [C]: of each batch the quantile, of these the largest.

    linear: the layers that no ReLU6 follows; of the others only the positive part counts.
    """
    reached: dict[nn.Module, list[Tensor]] = {layer: [] for layer in layers}

    def record(layer: nn.Module, _: object, output: Tensor) -> None:
        values = output.transpose(0, 1).flatten(1)
        values = values.abs() if layer in linear else values.clamp_min(0)
        beyond = max(1, round(values.shape[1] * (1 - COVERED)))
        reached[layer].append(values.topk(beyond, dim=1).values[:, -1])

    hooks = [layer.register_forward_hook(record) for layer in layers]
    network.eval()
    for films in np.array_split(planes, max(1, len(planes) // batch)):
        network.maps(torch.from_numpy(np.ascontiguousarray(films)))
    for hook in hooks:
        hook.remove()
    return {layer: torch.stack(values).amax(0) for layer, values in reached.items()}
