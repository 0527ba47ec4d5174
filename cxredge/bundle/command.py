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
    table = Table("name", "findings", "size", "precision", "AUROC (95 %)", "drift", "measured on")
    for name in shipped_names():
        bundle = open_bundle(name)
        accuracy = bundle.manifest.accuracy
        table.add_row(
            f"{name} (default)" if name == DEFAULT else name,
            str(len(bundle.manifest.findings)),
            f"{bundle.model.stat().st_size / 1e6:.1f} MB",
            bundle.manifest.precision,
            f"{accuracy.compressed.value:.3f} ({accuracy.compressed.low:.3f}-{accuracy.compressed.high:.3f})",
            f"{accuracy.drift.value:+.4f}",
            f"{accuracy.films} films, {accuracy.source}",
        )
    Console().print(table)


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
