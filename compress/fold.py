"""Batch norms that follow a convolution become part of it: what runtimes do anyway, done before quantizing."""

import copy
import itertools

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cxredge.train.network import FilmNetwork


def fold_batch_norms(network: FilmNetwork) -> FilmNetwork:
    """A copy in evaluation mode in which every batch norm that follows a convolution has become part of it."""
    folded = copy.deepcopy(network).eval()
    _fold(folded)
    return folded


def _fold(parent: nn.Module) -> None:
    children = list(parent.named_children())
    for (name, layer), (next_name, following) in itertools.pairwise(children):
        if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
            setattr(parent, name, fuse_conv_bn_eval(layer, following))
            setattr(parent, next_name, nn.Identity())
    for _, child in children:
        _fold(child)
