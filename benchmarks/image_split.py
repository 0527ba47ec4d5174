"""What it costs to split by film instead of by patient: how much a validation that shares patients with training flatters.

    python -m cxredge.benchmarks.image_split data/chest_xray --output benchmarks/results/image-split.json

The data set's training films are taken apart: every fifth patient is held out. Of the others validation is carved film by film, as
if each film were a patient's only one; one network is trained, and told twice how good it is: by those validation films, whose
patients it knows, and by the patients held out. The films come from one hospital and one time; patients known are all that differs.
"""

import csv
import json
import tempfile
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from cxredge import __version__
from cxredge.devices import this_machine
from cxredge.errors import DataError
from cxredge.metrics import Interval
from cxredge.train.evaluate import Evaluation, evaluate
from cxredge.train.fit import fit
from cxredge.train.recipe import Recipe
from cxredge.train.sources import Films, read_source
from cxredge.train.subject import RUN_RUNTIME, open_subject

HELD_OUT = 0.2


def main(
    data: Annotated[Path, typer.Argument(help="A data set in its published layout.", show_default=False)],
    epochs: Annotated[int, typer.Option(help="Of training.")] = 8,
    size: Annotated[int, typer.Option(help="Side of a film in pixels.")] = 128,
    seed: Annotated[int, typer.Option(help="Of the patients held out, the split and the training.")] = 0,
    weights: Annotated[str, typer.Option(help="Where training starts: imagenet, none or a file.")] = "none",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to keep the figures as JSON.")] = None,
) -> None:
    """Train on a split by film and hold its validation against patients that were held out."""
    films = read_source(data)
    films = films.take(films.splits != "test")
    patients = np.unique(films.patients)
    if len(patients) == len(films.files):
        raise DataError(f"{data}: every patient has one film only, so a split by film is one by patient")
    away = np.random.default_rng(seed).permutation(patients)[: round(HELD_OUT * len(patients))]
    held_out = np.isin(films.patients, away)
    with tempfile.TemporaryDirectory() as scratch:
        table, run = Path(scratch) / "by-film.csv", Path(scratch) / "run"
        _write(films, held_out, table)
        recipe = Recipe(weights=weights, size=size, epochs=epochs, seed=seed)
        fit(recipe, [table], run, cache=Path(scratch) / "cache")
        told = {
            name: evaluate(open_subject(run), [table], split=split, runtime=RUN_RUNTIME, examples=0)[0]
            for name, split in (("films_of_known_patients", "validation"), ("patients_held_out", "test"))
        }
        shared = _patients_known(films, run)
    found: dict[str, Any] = {
        "command": f"python -m cxredge.benchmarks.image_split {data.name} --epochs {epochs} --size {size} --seed {seed}"
        f" --weights {Path(weights).name}",
        "date": date.today().isoformat(), "cxredge": __version__, "machine": this_machine().text,
        "patients": len(patients), "films": len(films.files), "validation_films_of_patients_trained_on": shared,
        **{name: _figures(each) for name, each in told.items()},
    }  # fmt: skip
    areas = [found[name]["mean_auroc"] for name in ("films_of_known_patients", "patients_held_out")]
    found["flattered_by"] = asdict(_difference(*(Interval(**area) for area in areas)))
    Console().print_json(json.dumps(found))
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _write(films: Films, held_out: np.ndarray[Any, np.dtype[np.bool_]], table: Path) -> None:
    """A labels table without patients, so that validation is carved film by film; those held out are its test films."""
    with table.open("w", newline="", encoding="utf-8") as lines:
        rows = csv.writer(lines)
        rows.writerow(["file", "split", *films.findings])
        for file, labels, away in zip(films.files, films.labels, held_out, strict=True):
            values = ["" if np.isnan(label) else int(label) for label in labels]
            rows.writerow([file.resolve(), "test" if away else "train", *values])


def _patients_known(films: Films, run: Path) -> float:
    """Share of the validation films whose patient has films among the training ones too."""
    patient = {str(file.resolve()): owner for file, owner in zip(films.files, films.patients, strict=True)}
    with (run / "splits.csv").open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    by_name = {Path(file).name: owner for file, owner in patient.items()}
    own = {
        split: [by_name[Path(row["file"]).name] for row in rows if row["split"] == split]
        for split in ("train", "validation")
    }
    return float(np.isin(own["validation"], own["train"]).mean())


def _figures(told: Evaluation) -> dict[str, Any]:
    return {
        "mean_auroc": asdict(told.mean_auroc),
        "findings": {one.finding: asdict(one.auroc) for one in told.findings if one.auroc is not None},
    }


def _difference(one: Interval, other: Interval) -> Interval:
    """Of two independent estimates; half-widths add in squares."""
    value = one.value - other.value
    low = np.hypot(one.value - one.low, other.high - other.value)
    high = np.hypot(one.high - one.value, other.value - other.low)
    return Interval(value, float(value - low), float(value + high))


if __name__ == "__main__":
    typer.run(main)
