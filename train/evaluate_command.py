"""`cxredge evaluate`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table
from rich.text import Text

from cxredge.errors import OutputError
from cxredge.runtimes import MODULES, MOST_THREADS
from cxredge.train.evaluate import Evaluation, evaluate
from cxredge.train.judge import Judged
from cxredge.train.page import change, interval, write_evaluation
from cxredge.train.subject import RUN_RUNTIME, check_like, open_subject
from cxredge.train.tables import SPLITS


def evaluate_command(
    model: Annotated[
        str,
        typer.Argument(
            help="A bundle's folder or a shipped model's name, a run's folder, or an ONNX file.", show_default=False
        ),
    ],
    data: Annotated[
        list[Path],
        typer.Option(
            help="A data set in its published layout, or a labels table (.csv); repeat for several.", show_default=False
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")] = Path("evaluation"),
    split: Annotated[str, typer.Option(help=f"Which films: {', '.join(SPLITS)}.")] = "test",
    runtime: Annotated[
        str | None,
        typer.Option(help=f"Engine: {', '.join(MODULES)}; a run is always evaluated in PyTorch.", show_default=False),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            help="For a lone ONNX file: the bundle whose findings and preprocessing it shares.", show_default=False
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Another model, given as the first: say how far the two are apart on the same films.",
            show_default=False,
        ),
    ] = None,
    splits_of: Annotated[
        Path | None,
        typer.Option(
            help="A run or a bundle: its validation films stand for --split validation; the model's own unless told.",
            show_default=False,
        ),
    ] = None,
    metadata: Annotated[
        bool,
        typer.Option(
            "--metadata",
            help="Give the model age, sex and view from the tables; for one trained with `metadata = true`.",
        ),
    ] = False,
    prevalence: Annotated[
        list[str] | None,
        typer.Option(
            help="How common a finding is where the model will be used, such as 0.02, or Effusion=0.1 for one; repeat for"
            " several. Says what a flag would mean there: PPV and NPV, by Bayes.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, max=MOST_THREADS, help="Threads of the engine.")] = 1,
    examples: Annotated[int, typer.Option(min=0, help="Films to show per finding and kind.")] = 1,
) -> None:
    """Measure a model on films with known findings: AUROC with intervals, curves, calibration, subgroups, heat maps.

    Reads the official test films unless told otherwise, and refuses test films that the model was trained on. Writes
    OUTPUT/evaluation.html, one file to open in any browser, and OUTPUT/evaluation.json with every number. Labels tables hold a
    column `file`, one column of 0, 1 or empty per finding, and may hold `patient`, `split`, `age`, `sex`, `view`. A finding that
    several data sets label is ranked within each: together, a model may tell the hospital and not the disease.

    Example: `cxredge evaluate chestxray14 --data data/chestxray14 -o evaluation`

    What would a flag mean where 2 of 100 have it? `cxredge evaluate chestxray14 --data data/chestxray14 --prevalence 0.02`

    Is it better than what I have? `cxredge evaluate runs/mine --against chestxray14 --data data/chestxray14 --split validation`
    """
    if split not in SPLITS:
        raise typer.BadParameter(f"{split!r} is not one of {', '.join(SPLITS)}", param_hint="--split")
    check_like(like, [model, *([against] if against is not None else [])])
    subject = open_subject(model, like=like)
    other = open_subject(against, like=like) if against is not None else None
    engine = runtime or (RUN_RUNTIME if subject.kind == "run" else "onnxruntime")
    screen = Console(stderr=True)
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("Reading films", total=None)
        found, films = evaluate(
            subject, data, split=split, runtime=engine, threads=threads, metadata=metadata, against=other,
            splits_of=splits_of, prevalence=prevalence or (), examples=examples,
            tick=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / "evaluation.json").write_text(json.dumps(asdict(found), indent=1) + "\n", encoding="utf-8")
        write_evaluation(found, films, output / "evaluation.html")
    except OSError as error:
        raise OutputError(f"{output}: the report cannot be written ({error.strerror or error})") from None
    show(found, output)


def show(found: Evaluation, output: Path) -> None:
    """The figures by finding, in tables that a terminal of 80 columns has room for: cut off, a number is another one."""
    # Without markup: a name with brackets is a name.
    other, console = found.against, Console(markup=False)
    table = _by_finding("finding", "with it", "AUROC", "sensitivity", "specificity")
    for one in found.findings:
        point = one.at_point
        table.add_row(
            one.finding,
            f"{one.positives} of {one.films}",
            interval(one.auroc),
            interval(point.sensitivity if point else None),
            interval(point.specificity if point else None),
        )
    console.print(table)
    if other:
        table = _by_finding("finding", f"AUROC minus {other.model['name']}'s")
        for apart in other.findings:
            table.add_row(apart.finding, change(apart.auroc))
        console.print(table)
    if stated := [(one.finding, one.at_prevalence) for one in found.findings if one.at_prevalence]:
        table = _by_finding("finding", "how common", "PPV there", "NPV there")
        for finding, there in stated:
            table.add_row(finding, f"{there.prevalence:g}", interval(there.ppv), interval(there.npv))
        console.print(table)
    if found.mean_pooled:
        console.print(_by_source(found.findings))
    for said in found.cautions:
        console.print(said, style="yellow", highlight=False, soft_wrap=True)
    if found.unread:
        console.print(f"{len(found.unread)} films could not be read, {found.unread[0]}", soft_wrap=True)
    console.print(f"Mean AUROC {interval(found.mean_auroc)}, {found.data['films']} films, {found.runtime}")
    if found.mean_pooled:
        console.print(f"Ranked together {interval(found.mean_pooled)}")
    if other:
        console.print(
            f"Mean AUROC minus that of {other.model['name']}: {change(other.mean_auroc)}, over {len(other.findings)} findings,"
            f" {other.films} films, paired",
            soft_wrap=True,
        )  # fmt: skip
    console.print("Open", Text(str(output / "evaluation.html"), "bold"), soft_wrap=True)


def _by_finding(*columns: str) -> Table:
    return Table(*(Column(name, overflow="fold") for name in columns))


def _by_source(findings: list[Judged]) -> Table:
    """Findings that several data sets label, within each and ranked together."""
    table = _by_finding("finding", "data set", "with it", "AUROC")
    for one in findings:
        for own in one.within:
            table.add_row(one.finding, own.source, f"{own.positives} of {own.films}", interval(own.auroc))
        if one.within:
            table.add_row(one.finding, "ranked together", f"{one.positives} of {one.films}", interval(one.pooled))
            table.add_section()
    return table
