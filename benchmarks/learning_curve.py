"""What would more films bring? Networks on nested parts of the training patients, each with half the films of the next.

    python -m cxredge.benchmarks.learning_curve data/chestxray14 --output benchmarks/results/learning-curve.json

Each network gets what a lab with so many films would have: validation films carved out of them by patient, by which the best epoch
is kept. All take the same number of steps and are told on the same test films, so the gain from one size to the next is paired.
Its interval counts the luck of the test films alone; seeds, which draw other patients and other first weights, show the rest.
Networks that are done are found again in the folder of runs.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from cxredge import __version__
from cxredge.devices import this_machine
from cxredge.metrics import Interval
from cxredge.train.evaluate import evaluate
from cxredge.train.fit import fit
from cxredge.train.page import change
from cxredge.train.plots import SERIES, drawing, svg
from cxredge.train.recipe import Recipe, read_recipe
from cxredge.train.sources import Films, carve_validation, read_source
from cxredge.train.subject import RUN_RUNTIME, Subject, open_subject


@dataclass(frozen=True)
class Point:
    """One network. films: training and validation films together, of so many patients. mean_auroc: on the test films, 95 % interval
    by bootstrap over patients. gain: over the network of half the films, paired; None for the smallest."""

    seed: int
    films: int
    patients: int
    mean_auroc: Interval
    gain: Interval | None


def main(
    data: Annotated[Path, typer.Argument(help="A data set in its published layout.", show_default=False)],
    recipe: Annotated[str, typer.Option(help="A shipped recipe's name or a .toml file.")] = "joint",
    weights: Annotated[str | None, typer.Option(help="Where training starts, instead of the recipe's.", show_default=False)] = None,
    size: Annotated[int, typer.Option(min=32, help="Side of a film in pixels.")] = 128,
    epochs: Annotated[int, typer.Option(min=1, help="Of training, each as long as one over all the films.")] = 10,
    halvings: Annotated[int, typer.Option(min=1, help="How often the films are halved.")] = 2,
    seeds: Annotated[int, typer.Option(min=1, help="Curves, each with its own patients and first weights.")] = 2,
    runs: Annotated[Path, typer.Option(help="Folder of the runs; finished ones are kept.")] = Path("runs/learning-curve"),
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON; a plot is drawn beside it.")] = Path("learning-curve.json"),
) -> None:  # fmt: skip
    """Train on a quarter, a half and all of the films, and say what each doubling brought."""
    films = read_source(data)
    settings = read_recipe(recipe, weights=weights, size=size, epochs=epochs, patience=epochs)
    points = [point for seed in range(seeds) for point in _curve(films, settings, seed, halvings, runs)]
    found = {
        "command": f"python -m cxredge.benchmarks.learning_curve {data.name} --recipe {Path(recipe).name} --size {size}"
        f" --epochs {epochs} --halvings {halvings} --seeds {seeds}"
        + (f" --weights {Path(weights).name}" if weights else ""),
        "date": date.today().isoformat(), "cxredge": __version__, "machine": this_machine().text,
        "test_films": int((films.splits == "test").sum()), "points": [asdict(point) for point in points],
    }  # fmt: skip
    output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    output.with_suffix(".svg").write_text(draw(points), encoding="utf-8")
    table = Table("seed", "films", "patients", "mean AUROC", "gain by doubling")
    for point in points:
        area = point.mean_auroc
        table.add_row(
            str(point.seed), f"{point.films:,}", f"{point.patients:,}", f"{area.value:.3f} ({area.low:.3f}-{area.high:.3f})",
            change(point.gain) if point.gain else "",
        )  # fmt: skip
    console = Console()
    console.print(table)
    console.print(f"{output}, {output.with_suffix('.svg')}", highlight=False, soft_wrap=True)


def _curve(films: Films, settings: Recipe, seed: int, halvings: int, runs: Path) -> Iterator[Point]:
    """The networks of one seed, from the smallest part to all the films."""
    given = films.take(films.splits != "test")
    order = np.random.default_rng(seed).permutation(np.unique(given.patients))
    whole = carve_validation(given, share=settings.validation_share, seed=seed)
    drawn = int((whole.splits == "train").sum())
    smaller: Subject | None = None
    for parts in (2**halved for halved in reversed(range(halvings + 1))):
        chosen = order[: len(order) // parts]
        rows = np.isin(films.patients, chosen) & (films.splits != "test")
        run = runs / f"seed-{seed}-of-{parts}"
        table = run.with_suffix(".csv")
        _write(films, rows, table)
        # Drawn again where there are fewer, so that all take the same steps.
        own = {"seed": seed, "split_seed": seed, "films_per_epoch": {table.stem: drawn}}
        fit(settings.model_copy(update=own), [table], run, cache=runs / "cache")
        network = open_subject(run)
        told = evaluate(network, [table], runtime=RUN_RUNTIME, against=smaller, examples=0)[0]
        gain = told.against.mean_auroc if told.against else None
        yield Point(seed, int(rows.sum()), len(chosen), told.mean_auroc, gain)
        smaller = network


def _write(films: Films, rows: NDArray[np.bool_], table: Path) -> None:
    """A labels table of those training films and of all test films."""
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", newline="", encoding="utf-8") as lines:
        written = csv.writer(lines)
        written.writerow(["file", "patient", "split", *films.findings])
        for i in np.flatnonzero(rows | (films.splits == "test")):
            labels = ["" if np.isnan(label) else int(label) for label in films.labels[i]]
            written.writerow([films.files[i].resolve(), films.patients[i], films.splits[i], *labels])


def draw(points: list[Point]) -> str:
    """Mean AUROC on the test films against the films in hand (logarithmic), a line per seed."""
    with drawing(6.4, 3.4) as (figure, axes):
        ax = axes[0, 0]
        for seed in sorted({point.seed for point in points}):
            own, (colour, marker) = [point for point in points if point.seed == seed], SERIES[seed % len(SERIES)]
            films, areas = [point.films for point in own], [point.mean_auroc for point in own]
            ax.plot(films, [area.value for area in areas], color=colour, marker=marker, label=f"seed {seed}")
            ax.vlines(films, [area.low for area in areas], [area.high for area in areas], color=colour, lw=1, alpha=0.6)
        ax.set_xscale("log", base=2)
        counts = [point.films for point in points if point.seed == points[0].seed]
        ax.set_xticks(counts, [f"{count:,}" for count in counts])
        ax.set(xlabel="films for training and validation", ylabel="mean AUROC, test films, 95 % interval")
        if len({point.seed for point in points}) > 1:
            ax.legend(loc="lower right")
        return svg(figure)


if __name__ == "__main__":
    typer.run(main)
