"""`cxredge models` and `cxredge verify`."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cxredge.bundle.bundle import DEFAULT, open_bundle, shipped_names


def models_command() -> None:
    """List the models that come with cxredge, with what was measured of each.

    AUROC is the mean over a model's findings on its test films; drift is what compression cost, full precision to this model.
    """
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    # A long path must stay whole to be opened.
    table.add_column(overflow="fold")
    for name in shipped_names():
        bundle = open_bundle(name)
        manifest, accuracy = bundle.manifest, bundle.manifest.accuracy
        small, drift = accuracy.compressed, accuracy.drift
        table.add_row(
            f"[bold]{name}[/bold]",
            f"{manifest.title}{' (default)' if name == DEFAULT else ''}, version {manifest.version}",
        )
        table.add_row("", f"{manifest.architecture}, {manifest.precision}, {bundle.model.stat().st_size / 1e6:.1f} MB")
        table.add_row("", f"mean AUROC {small.value:.3f} ({small.low:.3f}-{small.high:.3f}), drift {drift.value:+.4f}")
        table.add_row(
            "", f"measured on {accuracy.films} films, {accuracy.source}; the card: {bundle.folder / 'MODEL_CARD.md'}"
        )
    Console().print(table, highlight=False)


def verify_command(
    bundle: Annotated[str, typer.Argument(help="A bundle's folder, or a shipped model's name.")] = DEFAULT,
) -> None:
    """Check every file of a bundle against its hash, then run its self-test on this machine's engine.

    Exit code 2, with the reason, when a file was changed or this machine's engine gives other numbers.
    """
    from cxredge.bundle.selftest import self_test
    from cxredge.runtimes import Artifact, runtime
    from cxredge.scan.scanner import Scanner

    with Scanner(bundle) as scanner:
        opened = scanner.bundle
        session = runtime(scanner.runtime).load(Artifact(scanner.runtime, opened.model), 1)
        result = self_test(opened, session)
    Console().print(
        f"{opened.manifest.name} {opened.manifest.version}: {len(opened.manifest.files)} files as built; self-test passed on"
        f" {scanner.engine}: {result.films} films, logits within {result.largest:.4f} of those at build"
        f" (mean {result.mean:.4f}, {result.against_full:.4f} from full precision)",
        highlight=False,
    )
