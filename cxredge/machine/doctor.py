"""Is this machine fit to read films? Everything is tried, not looked up: films decoded, engines run, files written."""

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import cxredge
from cxredge.bundle import Bundle
from cxredge.bundle.selftest import self_test
from cxredge.devices import Machine, Match, Profile, power_mode, profile_of, read_profile, temperatures, this_machine
from cxredge.errors import CxredgeError
from cxredge.folders import cache_folder
from cxredge.imaging.selfcheck import check_decoders
from cxredge.runtimes import MODULES
from cxredge.scan.engine import open_engine

# A thousand films take about 100 MB of journal and report; below twice that nothing should be begun.
MIN_FREE_MB, GOOD_FREE_MB = 200, 1000
HOT = 85.0
LATEST_YEAR = 2100


class State(StrEnum):
    """`note`: worth knowing. `warn`: films can be read, but somebody should see to it. `unfit`: they cannot, or not all."""

    OK = "ok"
    NOTE = "note"
    WARN = "warn"
    UNFIT = "unfit"


@dataclass(frozen=True)
class Check:
    """One thing that was tried. area: decoders, engines, device, disk, clock or memory. detail: what came of it, what to do."""

    area: str
    name: str
    state: State
    detail: str


def examine(bundle: Bundle, output: Path) -> list[Check]:
    """Every check. output: folder that results would be written to."""
    machine = this_machine()
    match = profile_of(machine)
    engines = list(_engines(bundle))
    return [
        *_decoders(),
        *engines,
        *_device(machine, match, bundle.manifest.target),
        *_disk(output),
        clock(time.time(), newest_file()),
        memory(machine.memory_mb, available_mb(), budgeted(bundle, engines)),
    ]


def is_fit(checks: list[Check]) -> bool:
    """Whether films may be read here."""
    return not any(check.state is State.UNFIT for check in checks)


def _decoders() -> Iterator[Check]:
    for decoded in check_decoders():
        yield Check("decoders", decoded.kind, State.UNFIT if decoded.problem else State.OK, decoded.problem or "read")


def _engines(bundle: Bundle) -> Iterator[Check]:
    """Every engine that cxredge knows, the bundle's first; unfit only where none of the bundle's passes."""
    wanted = bundle.manifest.runtimes
    reads = False
    for name in (*wanted, *(n for n in MODULES if n not in wanted)):
        # What comes after the engine that reads need not be installed.
        check = _engine(bundle, name, needed=name in wanted and not reads)
        reads |= name in wanted and check.state is State.OK
        yield check
    if not reads:
        yield Check(
            "engines",
            "any",
            State.UNFIT,
            f"none of {', '.join(wanted)} can be used with {bundle.manifest.name}: see above",
        )


def _engine(bundle: Bundle, name: str, *, needed: bool) -> Check:
    try:
        engine = open_engine(bundle, asked=name)
    except CxredgeError as error:
        _, _, reason = str(error).partition(" here: ")
        return Check("engines", name, State.WARN if needed else State.NOTE, reason or str(error))
    try:
        # Anew, whatever an earlier run remembers.
        result = self_test(bundle, engine.session, graph=bundle.manifest.graph_for(name))
    except CxredgeError as error:
        return Check("engines", name, State.WARN, str(error))
    finally:
        engine.session.close()
    return Check(
        "engines",
        name,
        State.OK,
        f"{engine.text}, self-test passed on {result.films} films: logits within {result.largest:.4f} of those at build",
    )


def _device(machine: Machine, match: Match, target: str) -> Iterator[Check]:
    """target: the profile that the model was built for."""
    profile = match.profile
    # What was measured for one kind of machine need not be the fastest on another.
    faster = (
        f"; the model was built for {target}: `cxredge build --target {profile.name}` keeps what is fastest here"
        if match.exact and target != profile.name
        else ""
    )
    yield Check("device", "profile", State.NOTE, f"{profile.name} ({profile.title}): {match.why}{faster}")
    yield Check(
        "device", "processor", State.NOTE, f"{machine.processor}, {machine.cores} cores, {machine.architecture}"
    )
    if found := temperatures():
        zone = max(found, key=lambda name: found[name])
        state = State.WARN if found[zone] >= HOT else State.NOTE
        advice = "; it slows down when this hot: see to its cooling" if state is State.WARN else ""
        yield Check("device", "temperature", state, f"{found[zone]:.0f} degrees Celsius ({zone}){advice}")
    if mode := power_mode():
        yield Check("device", "power", State.NOTE, mode)


def _disk(output: Path) -> Iterator[Check]:
    places = {
        "results": output,
        "cache": cache_folder(),
        "scratch": Path(tempfile.gettempdir()),
    }
    for name, folder in places.items():
        # Results have to be kept; without the others every scan only takes longer to start.
        yield disk(name, folder, lost=State.UNFIT if name == "results" else State.WARN)


def disk(name: str, folder: Path, *, lost: State) -> Check:
    """Room below `folder`, and whether a file can be written there. lost: what it means when not."""
    # A link that leads nowhere, to a stick that is not plugged in, is there too: no folder can be made in its place.
    there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists() or p.is_symlink())
    try:
        with tempfile.TemporaryFile(dir=there) as probe:
            probe.write(b"x" * 4096)
            probe.flush()
        free = shutil.disk_usage(there).free / 1e6
    except OSError as error:
        return Check(
            "disk", name, lost, f"nothing can be written to {there} ({error.strerror or error}); choose another folder"
        )
    room = f"{free / 1000:.1f} GB free at {there}"
    if free < MIN_FREE_MB:
        return Check("disk", name, lost, f"{room}, too little: delete something or choose another disk")
    return Check("disk", name, State.OK if free >= GOOD_FREE_MB else State.WARN, room)


def newest_file() -> float:
    """When the newest file of cxredge itself was written, in seconds since 1970."""
    return max(file.stat().st_mtime for file in Path(cxredge.__file__).parent.glob("*.py"))


def clock(now: float, newest: float) -> Check:
    """now: what the clock says; newest: when cxredge was installed, which cannot lie ahead. Both in seconds since 1970."""
    said = datetime.fromtimestamp(now, UTC)
    text = f"{said:%Y-%m-%d %H:%M} UTC"
    # A file written a moment ago on another disk may seem to lie ahead.
    if now < newest - 60 or said.year >= LATEST_YEAR:
        return Check(
            "clock", "date", State.UNFIT, f"the clock says {text}, which cannot be: set it, reports carry its date"
        )
    return Check("clock", "date", State.OK, text)


def available_mb() -> float | None:
    """Memory that programs may still take, in MB (10^6 bytes); None where the system does not say."""
    if sys.platform == "linux":
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024 / 1e6
    return None


def budgeted(bundle: Bundle, engines: list[Check]) -> Profile:
    """The profile whose memory budget a scan here has: the bundle's own where its first engine reads, else any computer's.

    Not this machine's: a graphics card's driver does not make a scan on the processor any larger. engines: their checks.
    """
    reading = next((check.name for check in engines if check.state is State.OK), None)
    with suppress(ValueError):  # a profile of somebody's own does not travel with its bundle
        own = read_profile(bundle.manifest.target)
        if reading == own.runtimes[0]:
            return own
    return read_profile("generic")


def memory(total_mb: float | None, free_mb: float | None, profile: Profile) -> Check:
    """Whether the device's budget fits into what there is. None: a figure that the system does not say."""
    known = " of ".join(f"{mb:.0f} MB{word}" for mb, word in ((free_mb, " free"), (total_mb, "")) if mb is not None)
    if not known:
        return Check("memory", "free", State.NOTE, "the system does not say")
    budget = profile.memory_budget_mb
    text = f"{known}; a scan is allowed {budget} MB"
    if total_mb is not None and total_mb < budget:
        return Check("memory", "free", State.UNFIT, f"{text}: this machine is too small")
    if free_mb is not None and free_mb < budget:
        return Check("memory", "free", State.WARN, f"{text}: close other programs")
    return Check("memory", "free", State.OK, text)
