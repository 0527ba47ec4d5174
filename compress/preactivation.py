"""DenseNet121 without its pre-activation batch norms: what is left of each is a bound, which 8-bit integers keep exactly.

A norm that reads a concatenation cannot be folded into the many convolutions before it, and stays in float. But with scale s > 0
and shift b, relu(s x + b) = s max(x, -b / s) + b: the scale and the shift fold into the 1x1 convolution behind (no padding, so the
shift becomes its bias), and `max` commutes with rounding. Where s < 0 it is a `min`. So that all layers can read one grid of
integers, every channel is brought to mean 0 and deviation 1 where it is made, after the norms' own statistics; no film is needed.
(Folding: Jacob et al., CVPR 2018, section 3.2. Channels rescaled between layers: Nagel et al., ICCV 2019. Here for maxima.)
"""

import copy
import re
from collections import OrderedDict
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from cxredge.compress.feature_distance import FeatureDistance
from cxredge.compress.fold import fold_batch_norms
from cxredge.compress.integer_concat import HIGHEST, LOWEST, RANGE, STEP
from cxredge.train.network import FilmNetwork

BLOCKS = 4
# Where NNCF's quantizers of what is concatenated hang: at the outputs of the second convolutions, of the pools and of the stem.
_JOINED = re.compile(r"post_hooks\..*/(conv2/conv2d|pool/avg_pool2d|relu0/relu_?)/\d+__\d+\.\d+$")


class Bounds(nn.Module):
    """Per channel no less than `least` and no more than `most`, float [1, C, 1, 1]; infinite where there is no bound."""

    def __init__(self, least: Tensor, most: Tensor) -> None:
        super().__init__()
        self.register_buffer("least", least.view(1, -1, 1, 1))
        self.register_buffer("most", most.view(1, -1, 1, 1))
        # Norms learn negative scales rarely; where none did, the second comparison is left out.
        self.both = bool(torch.isfinite(most).any())

    def forward(self, x: Tensor) -> Tensor:
        x = torch.max(x, cast(Tensor, self.least))
        return torch.min(x, cast(Tensor, self.most)) if self.both else x


def is_preactivated(network: FilmNetwork) -> bool:
    """Whether a network's norms stand before its convolutions."""
    return network.architecture == "densenet121"


@torch.no_grad()
def absorb_norms(network: FilmNetwork) -> FilmNetwork:
    """A copy in evaluation mode whose norms have become bounds and weights, but for the last one; the logits stay.

    Features halfway come out standardized, see `standardized`. Channels are clipped at `RANGE` deviations once they are rounded,
    not before. network: a DenseNet121, pruned or not.
    """
    absorbed = fold_batch_norms(network)
    for block in range(1, BLOCKS + 1):
        _standardize(absorbed, block)
    for block in range(1, BLOCKS + 1):
        for layer in _layers(absorbed, block):
            _absorb(layer, "norm1", "relu1", "conv1")
        if block < BLOCKS:
            _absorb(absorbed.features.get_submodule(f"transition{block}"), "norm", "relu", "conv")
    # They commute, and ONNX Runtime would else pool in 8 bits, which takes it ten times as long as in float.
    order = list(absorbed.features.named_children())
    pool, relu = (next(i for i, (name, _) in enumerate(order) if name == wanted) for wanted in ("pool0", "relu0"))
    order[pool], order[relu] = order[relu], order[pool]
    absorbed.features = nn.Sequential(OrderedDict(order))
    return absorbed.eval()


def standardized(network: FilmNetwork, gate: FeatureDistance) -> FeatureDistance:
    """The gate for the features of `absorb_norms(network)`: the same distance, from channels that were standardized."""
    if not is_preactivated(network):
        return gate
    mean, deviation = (values.numpy()[: len(gate.mean)] for values in _statistics(network, BLOCKS))
    return replace(
        gate,
        mean=((gate.mean - mean) / deviation).astype("float32"),
        spread=(gate.spread / deviation).astype("float32"),
    )


def _layers(network: FilmNetwork, block: int) -> list[nn.Module]:
    return list(network.features.get_submodule(f"denseblock{block}").children())


def _last_norm(network: FilmNetwork, block: int) -> nn.BatchNorm2d:
    """The norm that reads all channels of a block."""
    name = f"transition{block}.norm" if block < BLOCKS else "norm5"
    return cast(nn.BatchNorm2d, network.features.get_submodule(name))


def _statistics(network: FilmNetwork, block: int) -> tuple[Tensor, Tensor]:
    """What is taken from each channel of a block and what it is divided by, float [C] each."""
    norm = _last_norm(network, block)
    mean, deviation = cast(Tensor, norm.running_mean).clone(), (cast(Tensor, norm.running_var) + norm.eps).sqrt()
    if block == 1:
        # The stem's channels come out of a ReLU, behind which nothing can be taken away: their range is brought to 0..RANGE.
        stem = cast(nn.Conv2d, network.features.get_submodule("conv0")).out_channels
        deviation[:stem] += mean[:stem] / RANGE
        mean[:stem] = 0
    return mean, deviation


def _standardize(network: FilmNetwork, block: int) -> None:
    """Move and scale a block's channels where they are made, and the norms that read them the other way."""
    mean, deviation = _statistics(network, block)
    entry = "conv0" if block == 1 else f"transition{block - 1}.conv"
    layers = _layers(network, block)
    makers = [network.features.get_submodule(entry), *(layer.get_submodule("conv2") for layer in layers)]
    begin = 0
    for maker in cast(list[nn.Conv2d], makers):
        own = slice(begin, begin + maker.out_channels)
        bias = maker.bias if maker.bias is not None else torch.zeros(maker.out_channels)
        maker.weight.div_(deviation[own].view(-1, 1, 1, 1))
        maker.bias = nn.Parameter((bias - mean[own]) / deviation[own])
        begin = own.stop
    for norm in [*(layer.get_submodule("norm1") for layer in layers), _last_norm(network, block)]:
        norm = cast(nn.BatchNorm2d, norm)
        own = slice(0, norm.num_features)
        norm.running_mean = (cast(Tensor, norm.running_mean) - mean[own]) / deviation[own]
        norm.running_var = (cast(Tensor, norm.running_var) + norm.eps) / deviation[own] ** 2 - norm.eps


def _absorb(parent: nn.Module, norm_name: str, relu_name: str, conv_name: str) -> None:
    """Replace norm, ReLU and 1x1 convolution by bounds on the grid and a convolution with bias."""
    norm = cast(nn.BatchNorm2d, parent.get_submodule(norm_name))
    convolution = cast(nn.Conv2d, parent.get_submodule(conv_name))
    scale = norm.weight / (cast(Tensor, norm.running_var) + norm.eps).sqrt()
    shift = norm.bias - cast(Tensor, norm.running_mean) * scale
    # Where the ReLU begins to pass; at infinity for a channel that is always on or always off.
    never = torch.where(shift > 0, -torch.inf, torch.inf)
    turn = torch.where(scale == 0, never, -shift / scale)
    infinite = torch.full_like(turn, torch.inf)
    # A turn that no integer reaches: off, the channel must still give 0 at the grid's end, so that is where it turns.
    off = torch.where(scale < 0, turn < LOWEST * STEP, turn > HIGHEST * STEP)
    turn = torch.where(off, turn.clamp(LOWEST * STEP, HIGHEST * STEP), turn)
    shift = torch.where(off, -scale * turn, shift)
    least, most = torch.where(scale < 0, -infinite, turn), torch.where(scale < 0, turn, infinite)
    plain = convolution.weight[:, :, 0, 0]
    bias = plain @ shift + (0 if convolution.bias is None else convolution.bias)
    absorbed = copy.deepcopy(convolution)
    absorbed.weight = nn.Parameter(convolution.weight * scale.view(1, -1, 1, 1))
    absorbed.bias = nn.Parameter(bias)
    setattr(parent, norm_name, Bounds(least, most))
    setattr(parent, relu_name, nn.Identity())
    setattr(parent, conv_name, absorbed)


@torch.no_grad()
def hold_grid(trunk: nn.Module) -> None:
    """Let every concatenation of a quantized trunk be rounded to the one grid that the exported graph joins integers on, in place.

    trunk: NNCF's, of a network from `absorb_norms`. NNCF gives the inputs of a concatenation one quantizer in common, whose copies
    it forgets when it strips a model: here each input gets its own, all alike, which training leaves as they are.
    Bounds are rounded to the grid too, so that training meets them as they will be.
    """
    for bounds in (layer for layer in trunk.modules() if isinstance(layer, Bounds)):
        for bound in (cast(Tensor, bounds.least), cast(Tensor, bounds.most)):
            bound.copy_(torch.where(bound.isfinite(), (bound / STEP).round().clamp(LOWEST, HIGHEST) * STEP, bound))
    for name, layer in list(trunk.named_modules(remove_duplicate=False)):
        if not _JOINED.search(name) or type(layer).__name__ != "AsymmetricQuantizer":
            continue
        own = copy.deepcopy(layer)
        for kind, parameter in own.named_parameters():
            if kind.endswith("input_low"):
                parameter.fill_(LOWEST * STEP)
            elif "input_range" in kind:
                parameter.fill_((HIGHEST - LOWEST) * STEP)
            else:
                continue
            parameter.requires_grad_(False)
        parent, _, leaf = name.rpartition(".")
        trunk.get_submodule(parent)._modules[leaf] = own
