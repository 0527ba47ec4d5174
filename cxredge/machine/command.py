"""`cxredge devices` and `cxredge doctor`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cxredge.bundle.bundle import DEFAULT, open_bundle
from cxredge.devices import Profile, power_mode, profile_of, read_profile, shipped_profiles, temperatures, this_machine
from cxredge.devices.profile import FIGURES
from cxredge.errors import DeviceError
from cxredge.machine.doctor import Check, State, examine, is_fit
from cxredge.runtimes import runtime

_STYLE = {State.OK: "green", State.NOTE: "", State.WARN: "yellow", State.UNFIT: "bold red"}


def devices_command(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A profile to explain: its name or the path of your own TOML file; `detect` names this machine's.",
            show_default=False,
        ),
    ] = None,
    root: Annotated[
        Path,
        typer.Option(help="With `detect`: folder with another machine's /proc, /sys and /etc, to look at from here."),
    ] = Path("/"),
) -> None:
    """List the devices that models can be built for, explain one, or find out which one this machine is.

    Every figure of a profile names its source. For a device that is not there, copy the nearest profile, change it, and give
    the path of your file wherever a profile's name is asked for.

    Example: `cxredge devices detect`, `cxredge devices jetson`
    """
    console = Console()
    if root != Path("/") and name != "detect":
        raise typer.BadParameter("is for `cxredge devices detect`", param_hint="--root")
    if not (root / "proc").is_dir() and root != Path("/"):
        raise DeviceError(f"{root}: no folder with another machine's /proc in it, so there is nothing to detect")
    if name == "detect":
        _detect(root, console)
    elif name is None:
        _list(console)
    else:
        try:
            _explain(read_profile(name), console)
        except ValueError as error:
            raise DeviceError(str(error)) from None


def _list(console: Console) -> None:
    table = Table(show_header=True, box=None, padding=(0, 2, 0, 0))
    for heading in ("name", "device", "engines, in the order tried"):
        table.add_column(heading)
    for profile in shipped_profiles():
        engines = "; ".join(f"{engine.name} ({', '.join(engine.precisions)})" for engine in profile.engines)
        table.add_row(", ".join((profile.name, *profile.aliases)), profile.title, engines)
    console.print(table)
    console.print(
        "\n`cxredge devices NAME` explains one; `cxredge devices detect` finds this machine's.", highlight=False
    )


def _explain(profile: Profile, console: Console) -> None:
    console.print(Text(f"{profile.name}: {profile.title}"), style="bold")
    if profile.notes:
        console.print(Text(profile.notes))
    table = Table(show_header=True, box=None, padding=(0, 2, 0, 0))
    for heading in ("figure", "value", "source"):
        table.add_column(heading)
    for figure in FIGURES:
        value = getattr(profile, figure)
        if value is not None and value != ():
            table.add_row(figure, Text(_shown(value)), Text(profile.sources.get(figure, "not given")))
    for engine in profile.engines:
        scheme = f"{', '.join(engine.precisions)}; int8 with {engine.activations} activations, {engine.weight_bits}-bit weights"
        table.add_row(f"engine {engine.name}", Text(scheme), Text(engine.source))
    console.print(table)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)


def _detect(root: Path, console: Console) -> None:
    machine = this_machine(root)
    match = profile_of(machine)
    nearest = "" if match.exact else ", the nearest there is"
    console.print(Text(f"{match.profile.name}{nearest}: {match.why}"), style="bold")
    facts = {key: value for key, value in machine.text.items() if root == Path("/") or key != "system"}
    facts |= {"Jetson Linux": machine.release, "NVIDIA driver": machine.nvidia, "power": power_mode(root)}
    facts["temperatures"] = ", ".join(f"{zone} {degrees:.0f} °C" for zone, degrees in temperatures(root).items())
    if root == Path("/"):
        facts |= {f"engine {name}": _engine(name) for name in match.profile.runtimes}
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for key, value in facts.items():
        if value:
            table.add_row(key, Text(value))
    console.print(table)
    console.print(f"\nBuild a model for it: cxredge build --target {match.profile.name}", highlight=False)


def _engine(name: str) -> str:
    engine = runtime(name)
    if (reason := engine.available()) is not True:
        return reason
    if name == "openvino":
        from cxredge.runtimes.openvino_ import devices

        return f"{engine.version()}, devices: {', '.join(devices())}"
    return engine.version()


def doctor_command(
    model: Annotated[str, typer.Option(help="A shipped model's name, a bundle's folder or its .zip.")] = DEFAULT,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder that results would go to.")] = Path(
        "cxredge-scan"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the page.")] = False,
) -> None:
    """Is this machine fit to read films? One page: decoders, engines, device, disk, clock, memory.

    Everything is tried: a film of every kind is decoded, every engine that is installed runs the self-test, a file is written.

    Exit code 0: fit; 1: not fit, and the page says what to do.

    Example: `cxredge doctor --output /media/usb/results`
    """
    bundle = open_bundle(model)
    checks = examine(bundle, output)
    fit = is_fit(checks)
    if as_json:
        said = {
            "fit": fit,
            "model": bundle.manifest.name,
            "machine": this_machine().text,
            "checks": [asdict(c) for c in checks],
        }
        typer.echo(json.dumps(said, indent=1))
    else:
        _page(checks, fit, bundle.manifest.name, Console())
    raise typer.Exit(0 if fit else 1)


def _page(checks: list[Check], fit: bool, model: str, console: Console) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    decoders = [check for check in checks if check.area == "decoders"]
    good = [check for check in decoders if check.state is State.OK]
    # Seventeen lines that all say "read" would push the rest off the page.
    table.add_row(
        "decoders", "", Text("ok" if len(good) == len(decoders) else "unfit"), f"{len(good)} of {len(decoders)} kinds"
    )
    for check in checks:
        if check not in good:
            state = Text(check.state, style=_STYLE[check.state])
            table.add_row(check.area, check.name, state, Text(check.detail))
    console.print(table)
    verdict = (
        f"Fit to read films with {model}." if fit else "Not fit: see to what is marked unfit, then run this again."
    )
    console.print(f"\n[bold]{verdict}[/bold] Research use; not a medical device.", highlight=False)
