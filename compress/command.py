"""`cxredge compress`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cxredge.bundle import Bundle
from cxredge.compress.output import bundle_folder, check_report
from cxredge.compress.recipe import read_recipe
from cxredge.compress.run import compress


def compress_command(
    run: Annotated[
        Path,
        typer.Argument(
            help="Folder of a finished run, as `cxredge train` wrote it; or a bundle, or a shipped model's name, whose"
            " full-precision network is quantized anew.",
            show_default=False,
        ),
    ],
    data: Annotated[
        list[Path], typer.Option(help="The data sets the run was trained on; repeat for each.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the bundle to write.", show_default=False)],
    recipe: Annotated[
        str,
        typer.Option(
            help="A shipped recipe's name (chestxray14, chestxray14-small, chestxray14-small-requantized, paediatric-pneumonia,"
            " or default to try the tools out)"
            " or the path of a .toml file."
        ),
    ] = "chestxray14",
    report: Annotated[
        Path | None,
        typer.Option(
            help="Folder for compression.html and .json; the bundle's name with -report behind it unless told.",
            show_default=False,
        ),
    ] = None,
    cache: Annotated[Path, typer.Option(help="Folder for decoded films.")] = Path("runs/cache"),
) -> None:
    """Compress a trained run, or a bundle's full-precision network, and write the bundle that a clinic scans with.

    Takes the steps of the recipe (distil, prune, finetune; `default` has each of them once), quantizes to INT8, calibrates, chooses
    operating points on validation films, and measures on the test films what each step cost, finding by finding: on screen, in
    the model card, and in compression.html in the report's folder. There, in `graphs`, lies the network in every form: ONNX in
    32-bit floats and in 8 bits, as TensorRT takes it, and OpenVINO's IR. Killed, the same command goes on with the step it died in.

    To see what it does before training for hours: `--recipe default` goes all the way in minutes, on a few hundred films.
    Channels leave whole. No step sets single weights to zero (unstructured sparsity): measured with 70 % zeros, ONNX Runtime and
    OpenVINO compute with them all the same (benchmarks/results/sparsity.json).

    Example: `cxredge compress runs/joint --data data/chestxray14 --data data/chest_xray -o my-model`
    """
    console = Console()
    folder = bundle_folder(output)
    report = report or Path(f"{output if output.name else folder}-report")
    check_report(report, folder)
    bundle = compress(
        run,
        data,
        read_recipe(recipe),
        folder,
        report=report,
        cache=cache,
        say=lambda text: console.print(text, style="dim", markup=False, soft_wrap=True),
    )
    _show(bundle, console)
    console.print(f"What each step cost: {report / 'compression.html'}", markup=False, soft_wrap=True)


def _show(bundle: Bundle, console: Console) -> None:
    table = Table("finding", "test films with it", "AUROC", "drift", "95 %")
    for finding in sorted(bundle.manifest.findings, key=lambda finding: finding.test_positives):
        table.add_row(
            f"{finding.name}{' (experimental)' if finding.experimental else ''}",
            str(finding.test_positives),
            f"{finding.test_auroc.value:.3f}",
            f"{finding.drift.value:+.4f}",
            f"{finding.drift.low:+.4f} to {finding.drift.high:+.4f}",
        )
    accuracy = bundle.manifest.accuracy
    table.add_row(
        "mean",
        f"of {accuracy.films}",
        f"{accuracy.compressed.value:.3f}",
        f"{accuracy.drift.value:+.4f}",
        f"{accuracy.drift.low:+.4f} to {accuracy.drift.high:+.4f}",
        style="bold",
    )
    console.print(table)
    console.print(
        f"{bundle.folder}: {bundle.model.stat().st_size / 1e6:.2f} MB model, full precision AUROC {accuracy.full.value:.3f}",
        markup=False,
        soft_wrap=True,
    )
