"""Which films an epoch draws, in which batches."""

import numpy as np
from numpy.typing import NDArray

from cxredge.errors import DataError, RecipeError
from cxredge.train.recipe import Recipe
from cxredge.train.sources import Films

Rows = NDArray[np.intp]


def epoch_batches(films: Films, recipe: Recipe, epoch: int, *, pieces: int) -> list[Rows]:
    """Rows of the training films, one array per optimiser step, each sorted so that a mapped cache is read forwards.

    pieces: into how many parts a batch is split (processes times `accumulate`); a last batch that is too small for two films
    a piece, which batch norms need, is left out. Raises DataError when no film is drawn, RecipeError when a whole batch is too
    small.
    """
    if recipe.batch_size < 2 * pieces:
        raise RecipeError(f"batch_size {recipe.batch_size} is too small for {pieces} pieces of two films or more each")
    rows = draw(films, recipe, epoch)
    batches = np.split(rows, range(recipe.batch_size, len(rows), recipe.batch_size))
    batches = [np.sort(batch) for batch in batches if len(batch) >= 2 * pieces]
    if not batches:
        raise DataError(f"{len(rows)} training films are too few for one batch in {pieces} pieces")
    return batches


def draw(films: Films, recipe: Recipe, epoch: int) -> Rows:
    """Rows of the training films of an epoch, shuffled; per source as many as the recipe asks.

    `plain`: none twice before all were drawn once. `balanced`: with replacement, by `balanced_shares`.
    """
    rng = np.random.default_rng((recipe.seed, epoch))
    rows = []
    for source in sorted(set(films.sources)):
        own = np.flatnonzero((films.sources == source) & (films.splits == "train"))
        wanted = recipe.films_per_epoch.get(source, len(own))
        if recipe.sampling == "balanced":
            rows.append(rng.choice(own, wanted, p=balanced_shares(films.labels[own], films.patients[own])))
            continue
        rounds = [rng.permutation(own) for _ in range(-(-wanted // len(own)))]
        rows.append(np.concatenate(rounds)[:wanted])
    return rng.permutation(np.concatenate(rows))


def balanced_shares(labels: NDArray[np.float32], patients: NDArray[np.str_]) -> NDArray[np.float64]:
    """How probable each film is to be drawn, float64 [N], sum 1: patients with rarer findings more often.

    labels: float32 [N, L] in {0, 1, nan}; patients: [N]. A finding counts 1/sqrt(share of patients that have it), as in square-root
    sampling (Mahajan et al., ECCV 2018): fully balanced, a handful of patients would be all that an epoch sees. "None of them" is
    a finding too. A film counts as its rarest finding, a patient as the rarest of his films, however many he has; his films share
    that by their own.
    """
    _, owner = np.unique(patients, return_inverse=True)
    positive = labels == 1
    held = np.column_stack([positive, ~positive.any(1)])
    having = np.array([len(np.unique(owner[held[:, column]])) for column in range(held.shape[1])])
    rarity = np.sqrt((owner.max() + 1) / np.maximum(having, 1))
    film = np.where(held, rarity, 0).max(1)
    patient = np.zeros(owner.max() + 1)
    np.maximum.at(patient, owner, film)
    within = np.bincount(owner, weights=film)
    drawn: NDArray[np.float64] = patient[owner] * film / within[owner]
    drawn /= drawn.sum()
    return drawn
