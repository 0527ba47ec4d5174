"""What a run starts from: ImageNet, a file of weights, a run or a bundle."""

from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxredge.bundle import open_bundle
from cxredge.errors import RecipeError
from cxredge.train.branch import MetadataBranch
from cxredge.train.network import FilmNetwork, load_weights
from cxredge.train.recipe import Recipe
from cxredge.train.sources import Films
from cxredge.train.subject import read_run
from cxredge.train.teacher import is_bundle, is_run, open_bundled, open_run


def check_start(recipe: Recipe) -> None:
    """Raise RecipeError, before any film is decoded, for what the recipe asks for and cannot get.

    That is an architecture or CLAHE that what it trains on from does not have, or films too small for the network.
    """
    architecture: str = recipe.architecture
    where = recipe.weights
    if is_bundle(where):
        architecture = open_bundle(where).manifest.architecture
    elif is_run(where):
        facts = read_run(Path(where))
        architecture = facts["architecture"]
        if (sees := facts["preprocessing"]["clahe"]) != recipe.clahe:
            raise RecipeError(
                f"{where} was trained on films {'with' if sees else 'without'} clahe; give the recipe the same"
            )
    # A default that nobody chose asks for nothing.
    if "architecture" in recipe.model_fields_set and architecture != recipe.architecture:
        raise RecipeError(
            f"the recipe asks for {recipe.architecture}, and {where} is {architecture}; give --arch {architecture} or other weights"
        )
    with torch.device("meta"):
        network, film = FilmNetwork(architecture, 1).eval(), torch.empty(1, 1, recipe.size, recipe.size)
    try:
        network.maps(film)
    except RuntimeError:
        raise RecipeError(
            f"films of {recipe.size} pixels are too small for {architecture}; give a larger size"
        ) from None


def network_to_start(recipe: Recipe, films: Films, planes: NDArray[np.uint8]) -> FilmNetwork:
    """The network that a recipe's `weights` name, for these films, with a branch for metadata where the recipe has one.

    planes: the films, uint8 [N, 1, H, W]. Raises DataError where network and films do not fit.
    """
    network = _from_weights(recipe, films, planes)
    # Made last, so that its weights take nothing from the others' draws.
    branch = network.metadata or MetadataBranch(len(films.findings)) if recipe.metadata else None
    network.metadata = branch
    return network


def _from_weights(recipe: Recipe, films: Films, planes: NDArray[np.uint8]) -> FilmNetwork:
    if is_bundle(recipe.weights) or is_run(recipe.weights):
        if is_bundle(recipe.weights):
            carved_by = (recipe.validation_share, recipe.split_seed)
            network = open_bundled(recipe.weights, films, planes, recipe.preprocessing, carved_by)
        else:
            network = open_run(Path(recipe.weights), films)
        network.dropout.p = recipe.dropout
        # Findings that a bundle does not carry come as nan, from it and from what was pruned of it; one would undo every weight.
        network.head.bias.data.nan_to_num_()  # type: ignore[union-attr]
        return network
    network = FilmNetwork(recipe.architecture, len(films.findings), dropout=recipe.dropout)
    load_weights(network, recipe.weights)
    _start_at_prevalence(network, films.labels[films.splits == "train"])
    return network


def _start_at_prevalence(network: FilmNetwork, labels: NDArray[np.float32]) -> None:
    """Bias of the head at the training prevalence, so that the first epochs do not go into learning it."""
    # A finding that no training film tells of starts undecided.
    share, told = np.full(labels.shape[1], 0.5, np.float32), ~np.isnan(labels).all(0)
    share[told] = np.nanmean(labels[:, told], axis=0)
    share = np.clip(share, 1e-3, 1 - 1e-3)
    cast(Tensor, network.head.bias).data = torch.from_numpy(np.log(share / (1 - share))).float()
