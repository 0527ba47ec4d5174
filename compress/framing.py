"""Fit what `cxredge.scan.framing` knows of the look of a whole, upright chest.

    python -m cxredge.compress.framing --data data/chestxray14 --data data/chest_xray

Fitted on training films and on windows cut out of them; limits from training and validation films; the test films are only
looked at, once, at the end. It belongs to no model: it is about chest films of adults and children as such.
"""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from cxredge.errors import FilmRefusedError
from cxredge.imaging import Preprocessing
from cxredge.imaging.plane import Plane
from cxredge.imaging.preprocess import decode, prepare
from cxredge.scan.framing import CHANGED, Eigenfilms, distances, second_look, standardised
from cxredge.train.sources import carve_validation, join, read_source

COMPONENTS, PER_SOURCE, WINDOWS = 40, 1800, 3
ODD, CUT = 0.99, 0.999
# A published copy may have lost a tenth of either side and still show the whole chest; a window that lost a quarter has not.
WHOLE, PART = 0.9, 0.72


def main(
    data: Annotated[list[Path], typer.Option(help="A data set in its published layout; once for each.")],
    output: Annotated[Path, typer.Option("--output", "-o")] = Path(__file__).parents[1] / "cxredge/scan/framing.npz",
) -> None:
    """Write framing.npz and say how many test films it would turn away."""
    films = carve_validation(join([read_source(folder) for folder in data]), share=0.15, seed=0)
    rng = np.random.default_rng(0)
    coarse = standardised(
        np.stack([_coarse(_plane(file)) for file in track(films.files, "Reading films", transient=True)])
    )
    sources = sorted(set(films.sources))
    taught = np.concatenate(
        [_some(rng, np.flatnonzero((films.splits == "train") & (films.sources == source))) for source in sources]
    )
    mean, components, scales, residual = _components(coarse[taught])
    planes = [_plane(films.files[i]) for i in taught]
    whole = [_window(rng, plane, WHOLE, 1.0) for plane in planes]
    parts = [_window(rng, plane, 0.4, PART) for plane in planes for _ in range(WINDOWS)]
    fitted = Eigenfilms(mean, components, scales, residual, np.zeros(0, np.float32), 0.0, 0.0, 0.0)
    seen = second_look(np.concatenate([coarse[taught], standardised(np.stack(whole + parts))]), fitted)
    cut = np.arange(len(seen)) >= 2 * len(taught)
    weights, bias = _logistic(seen, cut)
    scores = second_look(coarse, fitted) @ weights + bias

    def per_source(split: str, source: str) -> NDArray[np.bool_]:
        return np.asarray((films.splits == split) & (films.sources == source))

    far = distances(coarse, fitted)
    # The stricter source decides, so that neither population is turned away more than the other.
    cut_limit = max(float(np.quantile(scores[per_source("validation", source)], CUT)) for source in sources)
    odd_limit = max(float(np.quantile(far[per_source("train", source)], ODD)) for source in sources)
    np.savez_compressed(
        output, mean=mean.astype(np.float16), components=components.astype(np.float16), scales=scales, residual=residual,
        weights=weights.astype(np.float16), bias=bias, cut_limit=cut_limit, odd_limit=odd_limit,
    )  # fmt: skip
    for source in sources:
        test = per_source("test", source)
        changed = np.stack([distances(_changed(coarse[test], change), fitted) for change in CHANGED])
        Console().print(
            f"{source}: of {test.sum()} test films {np.mean(scores[test] > cut_limit):.2%} would pass for cut,"
            f" {np.mean(changed.argmin(0) > 0):.2%} for turned or inverted, {np.mean(far[test] > odd_limit):.2%} look odd"
        )


def _plane(file: Path) -> NDArray[np.uint8]:
    return decode(file, at_least=448).pixels


def _coarse(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # Declared four times as large: a window of a reduced copy is no small film.
    rows, columns = pixels.shape
    return prepare(Plane(np.ascontiguousarray(pixels), 4 * rows, 4 * columns), Preprocessing()).coarse


def _window(rng: np.random.Generator, pixels: NDArray[np.uint8], least: float, most: float) -> NDArray[np.uint8]:
    """The coarse picture of a random window, one of its sides between `least` and `most` of the film's."""
    rows, columns = pixels.shape
    while True:
        sides = [rng.uniform(least, most), rng.uniform(least, 1.0)]
        rng.shuffle(sides)
        high, wide = int(rows * sides[0]), int(columns * sides[1])
        top, left = rng.integers(0, rows - high + 1), rng.integers(0, columns - wide + 1)
        # A window may hold nothing but the black beside the patient.
        with suppress(FilmRefusedError):
            return _coarse(pixels[top : top + high, left : left + wide])


def _components(
    pictures: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], float]:
    mean = pictures.mean(0)
    off = (pictures - mean).astype(np.float64)
    values, vectors = np.linalg.eigh(off.T @ off / len(off))
    values, vectors = values[::-1], vectors[:, ::-1]
    scales = np.sqrt(values[:COMPONENTS]).astype(np.float32)
    return mean, vectors[:, :COMPONENTS].astype(np.float32), scales, float(values[COMPONENTS:].sum())


def _logistic(
    seen: NDArray[np.float32], cut: NDArray[np.bool_], ridge: float = 0.015
) -> tuple[NDArray[np.float32], float]:
    """Ridge logistic regression by L-BFGS."""
    inputs, truth = torch.from_numpy(seen), torch.from_numpy(cut.astype(np.float32))
    weights = torch.zeros(seen.shape[1] + 1, requires_grad=True)
    search = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        search.zero_grad()
        said = inputs @ weights[:-1] + weights[-1]
        value = torch.nn.functional.binary_cross_entropy_with_logits(said, truth) + ridge * (weights[:-1] ** 2).sum()
        value.backward()
        return value

    search.step(loss)
    found = weights.detach().numpy()
    return found[:-1], float(found[-1])


def _changed(pictures: NDArray[np.float32], change: str) -> NDArray[np.float32]:
    side = int(pictures.shape[1] ** 0.5)
    turned = CHANGED[change](pictures.reshape(-1, side, side))
    return np.ascontiguousarray(turned).reshape(len(pictures), -1)


def _some(rng: np.random.Generator, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    return np.sort(rng.choice(rows, min(PER_SOURCE, len(rows)), replace=False))


if __name__ == "__main__":
    typer.run(main)
