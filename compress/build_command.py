"""`cxredge build`."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cxredge.bundle import Bundle, open_bundle
from cxredge.bundle.archive import check_archive, write_archive
from cxredge.bundle.built import Build
from cxredge.bundle.bundle import DEFAULT
from cxredge.bundle.signature import sign as sign_with
from cxredge.cli import complain
from cxredge.compress.build import OutsideGateError, Say, build
from cxredge.compress.build_card import HEADINGS, cells, notes
from cxredge.compress.candidate_graphs import distrust
from cxredge.compress.candidates import KEPT
from cxredge.compress.output import bundle_folder
from cxredge.compress.verdict import BuildGate
from cxredge.devices import Profile, read_profile
from cxredge.errors import CxredgeError
from cxredge.folders import cache_folder
from cxredge.runtimes import MODULES

# 90th percentile over the 10th: above it, something else ran.
BUSY = 2


def build_command(
    target: Annotated[
        str,
        typer.Option(
            help="Device to build for (see `cxredge devices`), or the path of your own profile.", show_default=False
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="A shipped model's name, a bundle's folder or .zip, or the folder of a finished run, which is compressed first."
        ),
    ] = DEFAULT,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Labelled films: a data set in its published layout, or a labels table with a `split` column; repeat for each. Its"
            " training films calibrate, its test films judge by AUROC. Without: the bundle's reference films, which show agreement"
            " only. For a run: the data sets that it was trained on.",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="For a run: the recipe to compress it by, a shipped one's name or a .toml file.  [default: chestxray14]",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write; MODEL-TARGET unless told.", show_default=False),
    ] = None,
    archive: Annotated[bool, typer.Option("--archive", help="Write OUTPUT.zip too, one file to carry.")] = False,
    max_drift: Annotated[
        float | None,
        typer.Option(min=0, help="Mean AUROC that may be lost; needs --data.  [default: 0.005]", show_default=False),
    ] = None,
    max_disagreement: Annotated[
        float, typer.Option(min=0, help="Mean difference of probabilities to full precision that is allowed.")
    ] = 0.02,
    max_flipped: Annotated[
        float, typer.Option(min=0, max=1, help="Share of flags that may differ from full precision's, 0 to 1.")
    ] = 0.06,
    sign: Annotated[
        Path | None, typer.Option(help="Private key to sign with; `cxredge keys` makes one.", show_default=False)
    ] = None,
    afresh: Annotated[
        bool,
        typer.Option(
            "--afresh", help="Make and measure again what was made and measured here of the very same files before."
        ),
    ] = False,
) -> None:
    """Build a bundle for a device: make what its engines need, measure what runs here, keep the fastest that loses little.

    What cannot run here is checked as far as possible and marked `not measured on target`. The bundle opens on any machine, through
    ONNX Runtime where there is nothing else, and tests itself where it is first used. The same command gives the same bytes.

    Exit code 0: written; 1: every candidate loses more than allowed, nothing was written; 2: could not run.

    Example: `cxredge build --target jetson --archive --sign lab.key`
    """
    console = Console()
    cache = cache_folder("build")

    def say(text: str) -> None:
        console.print(text, style="dim", markup=False, soft_wrap=True)

    if max_drift is not None and not data:
        raise typer.BadParameter(
            "without labelled films there is no AUROC to lose: give --data", param_hint="--max-drift"
        )
    profile = _profile(target)
    if output is not None and output.suffix == ".zip":
        output, archive = output.with_suffix(""), True
    if output is not None:
        # Before a run is compressed, which takes long.
        output = bundle_folder(output)
        if archive:
            check_archive(output.with_name(f"{output.name}.zip"))
    if sign is not None:
        # Likewise: a key that cannot sign.
        sign_with(b"", sign)
    source = _source(model, data or [], recipe, cache, say)
    out = output or bundle_folder(Path(f"{source.manifest.name}-{profile.name}"))
    if archive:
        check_archive(out.with_name(f"{out.name}.zip"))
    gate = BuildGate(
        max_drift=BuildGate.max_drift if max_drift is None else max_drift,
        max_disagreement=max_disagreement,
        max_flipped=max_flipped,
    )
    if afresh:
        distrust(cache)
    bar = Progress(TextColumn("Measuring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                   console=console, transient=True)  # fmt: skip
    try:
        with bar if console.is_terminal else nullcontext():
            task = bar.add_task("steps", total=None)
            made = build(
                source, profile, out, data=data or [], gate=gate, key=sign, cache=cache, afresh=afresh, say=say,
                tick=lambda done, total: bar.update(task, completed=done, total=total),
            )  # fmt: skip
    except OutsideGateError as error:
        _show(error.build, console)
        complain(str(error))
        raise typer.Exit(1) from None
    assert made.manifest.build is not None  # noqa: S101 - for the type checker: it was just built
    _show(made.manifest.build, console)
    _over_budget(made.manifest.build, profile, console)
    written = [
        str(made.folder),
        *([str(write_archive(made.folder, out.with_name(f"{out.name}.zip")))] if archive else []),
    ]
    console.print(
        f"{' and '.join(written)}: for {profile.title}, engines in the order {', '.join(made.manifest.runtimes)}."
        f" Try it: cxredge verify {written[-1]}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _profile(target: str) -> Profile:
    try:
        profile = read_profile(target)
    except ValueError as error:
        raise CxredgeError(str(error)) from None
    if unknown := [name for name in profile.runtimes if name not in MODULES]:
        raise CxredgeError(f"{target}: {unknown[0]!r} is no engine of this cxredge; it knows {', '.join(MODULES)}")
    return profile


def _source(model: str, data: list[Path], recipe: str | None, cache: Path, say: Say) -> Bundle:
    """The bundle to build from; a run's is made beside where we are, as `cxredge compress` would, and stays for the next device."""
    run = Path(model)
    if not (run / "run.json").is_file():
        if recipe is not None:
            raise typer.BadParameter(
                f"{model} is no training run, and only a run is compressed here; leave the recipe out, or quantize a bundle anew"
                " with `cxredge compress` first",
                param_hint="--recipe",
            )
        return open_bundle(model)
    if not data:
        raise CxredgeError(
            f"{model} is a training run; to compress it, give the data sets it was trained on: --data DATA"
        )
    try:
        from cxredge.compress.recipe import read_recipe
        from cxredge.compress.run import compress
    except ModuleNotFoundError as error:
        raise CxredgeError(
            f'{model} is a training run, and compressing one needs {error.name}: pip install "cxredge[compress]"'
        ) from None
    out = bundle_folder(Path(f"{run.resolve().name}-bundle"))
    report = out.with_name(f"{out.name}-report")
    made = compress(run, data, read_recipe(recipe or "chestxray14"), out, report=report, cache=cache / "films", say=say)
    say(f"Compressed to {made.folder}; for the next device: --model {made.folder}")
    return made


def _show(found: Build, console: Console) -> None:
    table = Table(*HEADINGS, title=Text(found.title))
    for row in found.candidates:
        table.add_row(*map(Text, cells(row)), style="bold" if row.verdict == KEPT else "")
    console.print(table)
    for line in [*notes(found), f"Gate: {found.gate}.", f"Re-quantized graphs were calibrated on {found.calibration}."]:
        console.print(line, style="dim", highlight=False, soft_wrap=True, markup=False)
    if any(row.latency for row in found.candidates):
        console.print(f"Measured on {found.machine['processor']}, candidates in turn.", style="dim", highlight=False)


def _over_budget(found: Build, profile: Profile, console: Console) -> None:
    kept = next(row for row in found.candidates if row.verdict == KEPT)
    if any(row.latency and row.latency.p90_ms > BUSY * row.latency.p10_ms for row in found.candidates):
        console.print(
            "The machine was busy while it was measured; on a quiet one, measure again with --afresh.", style="yellow"
        )
    if kept.latency and kept.latency.median_ms > profile.latency_budget_ms:
        console.print(
            f"Slower than the {profile.latency_budget_ms:g} ms that {profile.name} is meant to take.", style="yellow"
        )
    if kept.peak_memory_mb and kept.peak_memory_mb > profile.memory_budget_mb:
        console.print(
            f"Takes more than the {profile.memory_budget_mb} MB that {profile.name} has to spare.", style="yellow"
        )
