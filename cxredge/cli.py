"""The command line: a table of verbs. A verb's stage is imported when that verb runs, so `scan` starts lean."""

import io
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated

import typer

from cxredge import __version__
from cxredge.errors import CxredgeError


@dataclass(frozen=True)
class Verb:
    """module:function that does it, or module:application of verbs; one line of help, its group there, its libraries' extra.

    needs: libraries that it imports only after long work; that they are missing must be said before.
    """

    target: str
    help: str
    panel: str
    extra: str = ""
    needs: tuple[str, ...] = ()


CLINIC, LAB = "In the clinic", "In the lab"
VERBS = {
    "scan": Verb("cxredge.scan.command:scan_command", "Read a folder of films into a worklist and a report.", CLINIC),
    "models": Verb(
        "cxredge.bundle.command:models_verbs", "List the models that come with cxredge, or show one's card.", CLINIC
    ),
    "verify": Verb(
        "cxredge.bundle.command:verify_command", "Check a bundle's files and test it on this machine.", CLINIC
    ),
    "devices": Verb(
        "cxredge.machine.command:devices_command", "List the devices models are built for, or detect this one.", CLINIC
    ),
    "doctor": Verb("cxredge.machine.command:doctor_command", "Is this machine fit to read films?", CLINIC),
    "build": Verb("cxredge.compress.build_command:build_command", "Build a bundle for a named device.", LAB, "build"),
    "keys": Verb("cxredge.bundle.command:keys_command", "Make a pair of keys to sign bundles with.", LAB),
    "data": Verb(
        "cxredge.train.data_command:data_verbs",
        "Check data sets before training on them.",
        LAB,
        "evaluate",
        ("matplotlib",),
    ),
    "train": Verb(
        "cxredge.train.command:train_command", "Train a full-precision network on published data sets.", LAB, "train"
    ),
    "evaluate": Verb(
        "cxredge.train.evaluate_command:evaluate_command",
        "Measure a model on films with known findings: AUROC, curves, subgroups.",
        LAB,
        "evaluate",
        ("matplotlib",),
    ),
    "compress": Verb(
        "cxredge.compress.command:compress_command",
        "Quantize a trained run to INT8 and write its bundle.",
        LAB,
        "compress",
        ("matplotlib", "nncf", "onnxscript"),
    ),
    "benchmark": Verb(
        "cxredge.benchmarks.command:benchmark_command",
        "Accuracy against latency, memory and size on this machine.",
        LAB,
        "benchmark",
        ("matplotlib", "onnx"),
    ),
}
# Libraries of the lab; when one of them is missing, it is the extra that is missing.
LAB_LIBRARIES = {"torch", "torchvision", "safetensors", "onnx", "onnxscript", "matplotlib"}


def main() -> None:
    """Entry point of `cxredge`. Exit code 0: done; 1: done, but some films failed; 2: could not run."""
    # A console of another code page must not end a scan over a film's name.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    asked = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
    try:
        application = build(asked)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            # From here on there is something to put away.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        application()
    except KeyboardInterrupt:
        complain("stopped")
        sys.exit(130)
    except CxredgeError as error:
        complain(str(error))
        sys.exit(2)
    except OSError as error:
        # What nobody foresaw of a disk or a path: the message names the file, the traceback would name our own.
        complain(f"{error.filename or asked}: {error.strerror or error}")
        sys.exit(2)
    except ModuleNotFoundError as error:
        complain(f"`cxredge {asked}` needs {error.name}, which is not installed; {_install(VERBS.get(asked or ''))}")
        sys.exit(2)


def build(asked: str | None) -> typer.Typer:
    """The application with one verb loaded; the others are listed in the help but not imported."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    app.callback()(_cxredge)
    for name, verb in VERBS.items():
        run = _load(name, verb) if name == asked else _listed
        if isinstance(run, typer.Typer):
            app.add_typer(run, name=name, rich_help_panel=verb.panel)
            continue
        app.command(name, help=verb.help if run is _listed else None, rich_help_panel=verb.panel)(run)
    return app


def complain(text: str) -> None:
    """One error on the error stream, in red where there is colour."""
    from rich.console import Console

    Console(stderr=True, soft_wrap=True).print(f"[red]cxredge:[/red] {_escape(text)}", highlight=False)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _load(name: str, verb: Verb) -> Callable[..., None] | typer.Typer:
    """The function of a verb, or the application of one that has verbs of its own."""
    module, function = verb.target.split(":")
    try:
        loaded = getattr(import_module(module), function)
        missing = next((library for library in verb.needs if find_spec(library) is None), None)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in LAB_LIBRARIES:
            raise
        missing = error.name
    if missing is not None:
        raise CxredgeError(
            f"`cxredge {name}` needs {missing}, which a clinic does without; install the lab's side: {_install(verb)}"
        )
    return loaded  # type: ignore[no-any-return]


def _install(verb: Verb | None) -> str:
    return f'pip install "cxredge[{verb.extra}]"' if verb and verb.extra else "pip install cxredge"


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"cxredge {__version__}")
        raise typer.Exit


def _cxredge(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Chest X-ray models on the small computers of clinics, offline. **Research use; not a medical device.**

    Try it: `cxredge scan examples/`
    """


def _listed() -> None:
    """Stands in the help for a verb that this call does not run."""
