"""Which channels of a network hang together, how important each is, and a copy without some of them.

What hangs together is torch-pruning's to find (Fang et al., DepGraph, CVPR 2023): the layer that makes channels, those that
take them, and everything that is added to them or normalises them on the way.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from numpy.typing import NDArray

from cxredge.train.network import FilmNetwork

Importance = Literal["taylor", "group-norm"]


@dataclass(frozen=True)
class Group:
    """Channels that can only leave together. name: the last of the layers that make them.

    order: the channels, int64 [C], the least important first. weights: their importance in that order, float [C], with mean 1 in
    every group, so that channels of different groups compare.
    """

    name: str
    order: NDArray[Any]
    weights: NDArray[Any]

    def __len__(self) -> int:
        return len(self.order)


def channel_groups(network: FilmNetwork, size: int, importance: Importance) -> list[Group]:
    """Every group but the head's, in the order of execution. "taylor" reads the gradients that the parameters carry."""
    import torch_pruning

    weigh = (
        torch_pruning.importance.GroupTaylorImportance()
        if importance == "taylor"
        else torch_pruning.importance.GroupMagnitudeImportance(p=2)
    )
    names = {layer: name for name, layer in network.named_modules()}
    found = []
    for group in _graph(network, size).get_all_groups(ignored_layers=[network.head]):
        weights, order = weigh(group).detach().cpu().sort()
        found.append(Group(names[group[0].dep.target.module], order.numpy(), weights.numpy()))
    # The graph lists them from the end.
    return found[::-1]


def without(network: FilmNetwork, size: int, groups: Sequence[Group], leaving: Mapping[str, int]) -> FilmNetwork:
    """A copy in evaluation mode without the least important channels of each group. leaving: how many, by the group's name."""
    kept = copy.deepcopy(network)
    kept.zero_grad(set_to_none=True)
    graph = _graph(kept, size)
    for group in groups:
        if number := leaving.get(group.name, 0):
            layer = kept.get_submodule(group.name)
            prune_out = graph.get_pruner_of_module(layer).prune_out_channels
            graph.get_pruning_group(layer, prune_out, sorted(group.order[:number].tolist())).prune()
    return kept.eval()


def _graph(network: FilmNetwork, size: int) -> Any:
    import torch_pruning

    example = torch.zeros(1, 1, size, size, dtype=torch.uint8)
    return torch_pruning.DependencyGraph().build_dependency(network, example_inputs=example)
