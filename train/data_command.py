"""`cxredge data check`."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cxredge.errors import CxredgeError, OutputError
from cxredge.train.data_check import DataCheck, SourceCheck, check_data

SHOWN = 10
data_verbs = typer.Typer(
    no_args_is_help=True, rich_markup_mode="markdown", help="Check data sets before training on them."
)


@data_verbs.callback()
def _data() -> None:
    """Check data sets before training on them. Nothing is changed.

    Example: `cxredge data check data/chestxray14`
    """


@data_verbs.command("check")
def check_command(
    data: Annotated[
        list[Path],
        typer.Argument(
            help="Data sets in their published layout (ChestX-ray14, Kermany, CheXpert), or labels tables (.csv).",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for data-check.html and data-check.json.", show_default=False),
    ] = None,
) -> None:
    """Are these films fit to train on and to be judged by? Decodes every film once and changes nothing.

    Counts per split, missing and unreadable films, exact and near copies within and across splits, patients in two splits, share
    of films with each finding, mix of sex, age and view, patients' numbers that several tables share. Data sets given together are
    compared together. OUTPUT holds one page
    to open in any browser and every name and number as JSON; the screen shows the first ten names of each kind.

    Exit code 0: fit; 1: a film is missing or cannot be read, or a patient or a copy stands in two splits; 2: could not run.

    Example: `cxredge data check data/chestxray14 data/chest_xray -o checked`
    """
    if len({path.resolve() for path in data}) < len(data):
        raise typer.BadParameter("the same folder twice: every film would be a copy of itself", param_hint="DATA")
    if output is not None and find_spec("matplotlib") is None:
        raise CxredgeError(
            'the page\'s figures need matplotlib: pip install "cxredge[evaluate]"; or leave --output out'
        )
    screen = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("Decoding films", total=None)
        found = check_data(
            data, tick=lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
        )
    console = Console()
    for source in found.sources:
        _show_source(console, source)
    _show_copies(console, found)
    shared = (one.text for one in found.shared)
    _list(console, "Patients' numbers that several tables share; are they the same people?", shared)
    if output is not None:
        _write(found, output)
        console.print(f"Open [bold]{output / 'data-check.html'}[/bold]", soft_wrap=True)
    if found.faults:
        console.print(f"[red]Not fit:[/red] {'; '.join(found.faults)}.", soft_wrap=True, highlight=False)
        raise typer.Exit(1)
    console.print("[green]No fault found.[/green]")


def _show_source(console: Console, source: SourceCheck) -> None:
    console.print(f"\n[bold]{escape(source.name)}[/bold]")
    table = Table("", *source.splits)
    table.add_row("films", *(str(source.films[split]) for split in source.splits))
    table.add_row("patients", *(str(source.patients[split]) for split in source.splits))
    for axis, groups in source.mix.items():
        table.add_section()
        for group, counts in groups.items():
            table.add_row(f"{axis}: {group}", *(_of(counts[split], source.films[split]) for split in source.splits))
    if source.age:
        table.add_section()
        spans = [source.age.get(split) for split in source.splits]
        texts = (f"{s[1]:.0f} ({s[0]:.0f}\N{EN DASH}{s[2]:.0f})" if s else "\N{EN DASH}" for s in spans)
        table.add_row("age: median (5th\N{EN DASH}95th percentile)", *texts)
    console.print(table)
    shares = {(one.finding, one.split): one for one in source.prevalence}
    table = Table("films with it, of those labelled", *source.splits)
    for finding in dict.fromkeys(one.finding for one in source.prevalence):
        cells = [shares[finding, split] for split in source.splits]
        table.add_row(finding, *(_of(one.positive, one.positive + one.negative) for one in cells))
    console.print(table)
    for what, count in source.left_out.items():
        console.print(f"{source.name}: {count} {what}, left out")
    _list(console, f"{source.name}: missing", source.missing)
    _list(console, f"{source.name}: unreadable", (f"{one.file} ({one.reason})" for one in source.unreadable))
    _list(console, f"{source.name}: named twice", source.contradictions)
    told = (f"{one.patient} ({', '.join(f'{n} in {s}' for s, n in one.splits.items())})" for one in source.leaks)
    _list(console, f"{source.name}: patients in two splits", told)


def _show_copies(console: Console, found: DataCheck) -> None:
    for kind, sets in (("exact", found.exact), ("near", found.near)):
        across = sum(one.leaks for one in sets)
        patients = sum(one.patients > 1 for one in sets)
        console.print(
            f"{kind.capitalize()} copies: {len(sets)} sets, {len(sets) - across} within a split, {across} across splits;"
            f" said to be of more than one patient: {patients}",
            soft_wrap=True,
        )
        several = len(found.sources) > 1
        told = (
            " = ".join(f"{f'{film.source}/' if several else ''}{film.file} ({film.split})" for film in one.films)
            for one in sorted(sets, key=lambda one: not one.leaks)
        )
        _list(console, "", told)


def _of(count: int, whole: int) -> str:
    return f"{count} ({100 * count / whole:.1f} %)" if whole else "\N{EN DASH}"


def _list(console: Console, title: str, entries: Iterable[str]) -> None:
    """Each on its own line, the first ten."""
    lines = list(entries)
    if lines and title:
        console.print(f"{title}: {len(lines)}", style="yellow", markup=False, highlight=False)
    for line in lines[:SHOWN]:
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    if len(lines) > SHOWN:
        console.print(f"  and {len(lines) - SHOWN} more; --output writes all of them")


def _write(found: DataCheck, output: Path) -> None:
    from cxredge.train.data_page import write_data_check

    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / "data-check.json").write_text(json.dumps(asdict(found), indent=1) + "\n", encoding="utf-8")
        write_data_check(found, output / "data-check.html")
    except OSError as error:
        raise OutputError(f"{output}: the report cannot be written ({error.strerror or error})") from None
