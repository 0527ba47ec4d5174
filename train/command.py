"""`cxredge train`."""

import math
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cxredge.train.fit import fit
from cxredge.train.recipe import read_recipe


def train_command(
    data: Annotated[
        list[Path],
        typer.Option(
            help="A data set in its published layout (ChestX-ray14 or Kermany); repeat for several.", show_default=False
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")] = Path("runs/run"),
    recipe: Annotated[str, typer.Option(help="A shipped recipe's name or the path of a .toml file.")] = "joint",
    arch: Annotated[
        str | None, typer.Option(help="mobilenet_v2 or densenet121, instead of the recipe's.", show_default=False)
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="imagenet (downloaded by torchvision), none, a .safetensors file, or a bundle to train on from.",
            show_default=False,
        ),
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(
            help="A finished run, or a bundle, to learn from besides the labels; repeat for several.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's.", show_default=False)] = None,
    cache: Annotated[Path, typer.Option(help="Folder for decoded films.")] = Path("runs/cache"),
) -> None:
    """Train a full-precision network on one or more published data sets, on a GPU where there is one.

    Official test films are left alone; validation films are carved from the training ones by patient. A killed run goes on at
    its last whole epoch when the same command is given again.

    Example: `cxredge train --data data/chestxray14 --data data/chest_xray -o runs/joint`
    """
    settings = read_recipe(recipe, architecture=arch, weights=weights, epochs=epochs, seed=seed)
    fitted = fit(settings, data, output, cache=cache, teachers=teacher or [])
    table = Table("finding", "validation AUROC")
    for finding, value in fitted.validation.items():
        table.add_row(finding, "needs films with and without it" if math.isnan(value) else f"{value:.3f}")
    Console().print(table)
    Console().print(f"{fitted.run}: next, [bold]cxredge compress {fitted.run} --data ... -o BUNDLE[/bold]")
