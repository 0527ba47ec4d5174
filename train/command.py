"""`cxredge train`."""

import math
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cxredge.train.fit import fit
from cxredge.train.recipe import read_recipe
from cxredge.train.tune import tune


def train_command(
    data: Annotated[
        list[Path],
        typer.Option(
            help="A data set in its published layout (ChestX-ray14, Kermany or CheXpert), or a labels table (.csv) whose column"
            " `split` says train or test; repeat for several.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")] = Path("runs/run"),
    recipe: Annotated[str, typer.Option(help="A shipped recipe's name or the path of a .toml file.")] = "joint",
    arch: Annotated[
        str | None,
        typer.Option(
            help="mobilenet_v2, densenet121, resnet50, efficientnet_b3, vgg19, inception_v3 or alexnet, instead of the recipe's.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="imagenet (downloaded by torchvision), none, a .safetensors file, or a finished run or bundle to train on from.",
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
    unlabelled: Annotated[
        list[Path] | None,
        typer.Option(
            help="Films without labels that the teachers tell of: a folder, or a table (.csv) with a column `file`; repeat for"
            " several.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.", show_default=False)] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Instead of the recipe's; the validation films stay those of `split_seed`.", show_default=False
        ),
    ] = None,
    search: Annotated[
        int | None,
        typer.Option(
            "--tune",
            min=1,
            metavar="N",
            show_default=False,
            help="Search learning rate, weight decay, dropout, EMA decay and loss in N trials, and write `best.toml`.",
        ),
    ] = None,
    cache: Annotated[Path, typer.Option(help="Folder for decoded films.")] = Path("runs/cache"),
) -> None:
    """Train a full-precision network on one or more published data sets, on a GPU where there is one.

    Official test films are left alone; validation films are carved from the training ones by patient. A killed run goes on where
    it stood, to the step, when the same command is given again; so does a search (`--tune`). Several processes or GPUs share the
    work under `torchrun --nproc-per-node N -m cxredge train ...`. All the rest is said by the recipe: losses, sampling, mixup,
    early stopping, CheXpert's uncertain labels.

    Example: `cxredge train --data data/chestxray14 --data data/chest_xray -o runs/joint`
    """
    settings = read_recipe(recipe, architecture=arch, weights=weights, epochs=epochs, seed=seed)
    if search is not None:
        found = tune(
            settings, data, output, trials=search, cache=cache, teachers=teacher or [], unlabelled=unlabelled or []
        )
        whole, pruned = found.counts
        Console().print(
            f"{whole} trials, {pruned} more given up; best mean validation AUROC {found.score:.4f}, in {found.trial}\n"
            f"{found.recipe}: next, [bold]cxredge train --recipe {found.recipe} --data ... -o RUN[/bold]"
        )
        return
    fitted = fit(settings, data, output, cache=cache, teachers=teacher or [], unlabelled=unlabelled or [])
    if not fitted.first:
        return
    table = Table("finding", "validation AUROC")
    for finding, value in fitted.validation.items():
        table.add_row(finding, "needs films with and without it" if math.isnan(value) else f"{value:.3f}")
    Console().print(table)
    Console().print(f"{fitted.run}: next, [bold]cxredge compress {fitted.run} --data ... -o BUNDLE[/bold]")
