"""`cxredge models`, `cxredge verify` and `cxredge keys`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cxredge.bundle.bundle import DEFAULT, inspect_bundle, open_bundle, shipped, shipped_names
from cxredge.bundle.signature import SIGNATURE, new_keys, public_fingerprint
from cxredge.cli import complain

models_verbs = typer.Typer(invoke_without_command=True, rich_markup_mode="markdown")


@models_verbs.callback()
def models_command(context: typer.Context) -> None:
    """List the models that come with cxredge, with what was measured of each.

    AUROC is the mean over a model's findings on its test films; drift is what compression cost, full precision to this model.

    Example: `cxredge models show paediatric-pneumonia`
    """
    if context.invoked_subcommand is not None:
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    # A long path must stay whole to be opened.
    table.add_column(overflow="fold")
    for name in shipped_names():
        bundle = open_bundle(shipped(name))
        manifest, accuracy = bundle.manifest, bundle.manifest.accuracy
        small, drift = accuracy.compressed, accuracy.drift
        table.add_row(
            f"[bold]{name}[/bold]",
            f"{manifest.title}{' (default)' if name == DEFAULT else ''}, version {manifest.version}",
        )
        table.add_row("", f"{manifest.architecture}, {manifest.precision}, {bundle.model.stat().st_size / 1e6:.1f} MB")
        table.add_row("", f"mean AUROC {small.value:.3f} ({small.low:.3f}-{small.high:.3f}), drift {drift.value:+.4f}")
        table.add_row(
            "",
            escape(
                f"measured on {accuracy.films} films, {accuracy.source}; the card: {bundle.folder / 'MODEL_CARD.md'}"
            ),
        )
    Console().print(table, highlight=False)


@models_verbs.command("show")
def show_command(
    bundle: Annotated[str, typer.Argument(help="A bundle's folder or .zip, or a shipped model's name.")] = DEFAULT,
) -> None:
    """Print a model's card: what it is for, accuracy, subgroups, calibration, known failures, limits.

    The figures are in the bundle's `manifest.json` too, under `findings`, `subgroups`, `calibration` and `failures`; the pictures
    that the card names lie beside it.

    Example: `cxredge models show chestxray14`
    """
    opened = open_bundle(bundle)
    typer.echo((opened.folder / "MODEL_CARD.md").read_text(encoding="utf-8"), nl=False)
    for name in opened.manifest.pictures:
        typer.echo(f"{name}: {opened.folder / name}", err=True)


def verify_command(
    bundle: Annotated[str, typer.Argument(help="A bundle's folder or .zip, or a shipped model's name.")] = DEFAULT,
    trust: Annotated[
        Path | None,
        typer.Option(
            help="Public key (.pub) that must have signed the bundle; see `cxredge keys`.", show_default=False
        ),
    ] = None,
) -> None:
    """Check every file of a bundle against its hash, then run its self-test on this machine's engine.

    Exit code 2, with every reason, when a file is missing, unknown or changed, when the signature asked for by --trust is not
    there, or when this machine's engine gives other numbers.

    Example: `cxredge verify /media/usb/chestxray14-jetson.zip --trust lab.pub`
    """
    from cxredge.bundle.selftest import self_test
    from cxredge.scan.engine import open_engine

    opened, found = inspect_bundle(bundle, trust=trust)
    if found:
        for error in found:
            complain(str(error))
        raise typer.Exit(2)
    engine = open_engine(opened, say=complain)
    # Anew, whatever an earlier run remembers.
    result = self_test(opened, engine.session, graph=opened.manifest.graph_for(engine.name))
    engine.session.close()
    Console().print(
        f"{opened.manifest.name} {opened.manifest.version}: {len(opened.manifest.files)} files as built; self-test passed on"
        f" {engine.text}: {result.films} films, logits within {result.largest:.4f} of those at build"
        f" (mean {result.mean:.4f}, {result.against_full:.4f} from full precision)\n{_signed(opened.folder, trust)}",
        markup=False,
        highlight=False,
    )


def _signed(folder: Path, trust: Path | None) -> str:
    if trust is not None:
        return f"Signed by {trust}, {public_fingerprint(trust)}."
    if (folder / SIGNATURE).is_file():
        return "A signature is there and was not checked: give the signer's public key with --trust."
    return "Not signed: the hashes show a broken copy, not a forger."


def keys_command(
    private: Annotated[
        Path,
        typer.Argument(help="File for the private key; the public one goes beside it, as .pub.", show_default=False),
    ],
) -> None:
    """Make a pair of keys (Ed25519) to sign bundles with.

    The private key stays in the lab and signs: `cxredge build --sign lab.key`. The public one goes to the clinics, not on the
    stick that the bundles travel on, and is what `scan` and `verify` check with: `--trust lab.pub`. Nothing is overwritten.

    Example: `cxredge keys lab.key`
    """
    public = new_keys(private)
    Console().print(
        f"{private}: private; keep it in the lab. Whoever has it can sign in your name.\n"
        f"{public}: public, fingerprint {public_fingerprint(public)}; give it to the clinics.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
