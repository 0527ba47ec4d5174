"""Which levers mattered? Paired differences between models that differ in one of them, on validation and on test films.

    python -m cxredge.benchmarks.study benchmarks/study.toml --data data/chestxray14 --output benchmarks/results/study.json

Nothing is chosen by what this prints about test films; it is the paper trail of what was chosen on validation films, with what
did not help. Beside it the price of two mistakes: probabilities as the training loss leaves them, not calibrated, and thresholds
chosen on the very films they are judged on.
"""

import json
import tomllib
from dataclasses import asdict
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cxredge import __version__
from cxredge.bundle.bundle import shipped_names
from cxredge.devices import this_machine
from cxredge.errors import DataError, RecipeError
from cxredge.metrics import Interval
from cxredge.train.evaluate import Evaluation, evaluate
from cxredge.train.judge import Judged
from cxredge.train.page import change
from cxredge.train.plots import forest
from cxredge.train.subject import RUN_RUNTIME, Subject, open_subject

SPLITS = ("validation", "test")


class Row(BaseModel):
    """lever: what differs, in words. model, against: a run, a bundle or an ONNX file in one; `NAME/FILE` for shipped ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lever: str
    model: str
    against: str


def main(
    plan: Annotated[Path, typer.Argument(help="A TOML of rows: lever, model, against.", show_default=False)],
    data: Annotated[list[Path], typer.Option(help="A data set in its published layout.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON; a plot is drawn beside it.")] = Path(
        "study.json"
    ),
) -> None:
    """Hold models against those they differ from in one thing, and say what that thing brought."""
    rows, splits_of = _plan(plan)
    found, absent = [], []
    screen = Console(stderr=True)
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("Rows", total=len(rows) * len(SPLITS))
        for row in rows:
            try:
                model, against = _open(row.model), _open(row.against)
            except DataError as error:
                absent.append(f"{row.lever}: {error}")
                bar.advance(task, len(SPLITS))
                continue
            told = {}
            for split in SPLITS:
                told[split] = _difference(model, against, data, split, splits_of)
                bar.advance(task)
            found.append({**row.model_dump(), **told})
    if not found:
        raise DataError(f"{plan}: none of its models is here: {absent[0] if absent else 'it names none'}")
    study = {
        "command": f"python -m cxredge.benchmarks.study {plan.name} --data {' --data '.join(path.name for path in data)}",
        "date": date.today().isoformat(), "cxredge": __version__, "machine": this_machine().text,
        "rows": found, "left_out": absent,
    }  # fmt: skip
    output.write_text(json.dumps(study, indent=1) + "\n", encoding="utf-8")
    output.with_suffix(".svg").write_text(_plot(found), encoding="utf-8")
    _show(found, absent, output)


def _plan(plan: Path) -> tuple[list[Row], Path]:
    """The rows, and the run or bundle whose validation films are meant."""
    try:
        said = tomllib.loads(plan.read_text(encoding="utf-8"))
        return [Row(**row) for row in said["rows"]], Path(said["splits_of"])
    except (OSError, KeyError, TypeError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise RecipeError(
            f"{plan}: not a TOML of `splits_of` and rows with lever, model and against: {error}"
        ) from None


def _open(where: str) -> Subject:
    name, _, file = where.partition("/")
    if file and name in shipped_names():
        return open_subject(Path(str(resources.files("cxredge.models"))) / name / file)
    return open_subject(where)


def _difference(model: Subject, against: Subject, data: list[Path], split: str, splits_of: Path) -> dict[str, Any]:
    """What the lever brought on one split, and how well each of the two is calibrated there."""
    ours = _evaluated(model, data, split, splits_of, against)
    theirs = _evaluated(against, data, split, splits_of, None)
    assert ours.against is not None  # noqa: S101 - for the type checker: a model to compare with was given
    return {
        "films": ours.against.films,
        "auroc": ours.mean_auroc.value,
        "auroc_of_the_other": theirs.mean_auroc.value,
        "difference": asdict(ours.against.mean_auroc),
        "findings": {one.finding: asdict(one.auroc) for one in ours.against.findings},
        "calibration_error": _mean_error(ours.findings),
        "calibration_error_of_the_other": _mean_error(theirs.findings),
        "youden": _youden(ours.findings),
    }


def _evaluated(subject: Subject, data: list[Path], split: str, splits_of: Path, against: Subject | None) -> Evaluation:
    runtime = RUN_RUNTIME if subject.kind == "run" else "onnxruntime"
    return evaluate(subject, data, split=split, runtime=runtime, against=against, splits_of=splits_of, examples=0)[0]


def _mean_error(findings: list[Judged]) -> float:
    return float(np.mean([one.calibration_error for one in findings if one.calibration_error is not None]))


def _youden(findings: list[Judged]) -> dict[str, float]:
    """Mean of sensitivity + specificity - 1, at the thresholds chosen on validation films and at those best on these films."""
    chosen, best = [], []
    for one in findings:
        if one.at_point is not None and one.at_point.sensitivity and one.at_point.specificity and one.roc:
            chosen.append(one.at_point.sensitivity.value + one.at_point.specificity.value - 1)
            best.append(max(true - false for false, true in one.roc))
    return {"as_chosen": float(np.mean(chosen)), "best_on_these_films": float(np.mean(best))} if chosen else {}


def _plot(rows: list[dict[str, Any]]) -> str:
    drawn = [(f"{row['lever']} ({split})", Interval(**row[split]["difference"])) for row in rows for split in SPLITS]
    return forest(drawn, "difference of mean AUROC, 95 % interval (by patient)", zero=True)


def _show(rows: list[dict[str, Any]], absent: list[str], output: Path) -> None:
    table = Table("lever", "validation", "test")
    for row in rows:
        table.add_row(row["lever"], *(change(Interval(**row[split]["difference"])) for split in SPLITS))
    console = Console()
    console.print(table)
    for line in absent:
        console.print(f"left out: {line}", markup=False, soft_wrap=True)
    console.print(f"{output}, {output.with_suffix('.svg')}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
