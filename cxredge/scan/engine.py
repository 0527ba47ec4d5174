"""Which engine reads the films: the first of the bundle's order that is here, opens the graph and passes the self-test."""

from collections.abc import Callable
from dataclasses import dataclass

from cxredge.bundle import Bundle
from cxredge.bundle.built import Settings
from cxredge.bundle.selftest import SelfTest, self_test, self_test_once
from cxredge.devices import Profile, read_profile, this_machine
from cxredge.errors import BundleError, RuntimeMissingError, SelfTestError
from cxredge.folders import cache_folder
from cxredge.runtimes import MODULES, Artifact, Session, Tuning, runtime

Say = Callable[[str], None]
# Engines that compute on a graphics card without being told to.
_ON_A_CARD = ("tensorrt", "tensorrt_rtx")


@dataclass(frozen=True)
class Engine:
    """An engine that may read films.

    name: as manifests say it. text: name, device and version. threads: per film. notices: why engines that come before it in
    the bundle's order are not used, a line each.
    """

    name: str
    text: str
    threads: int
    session: Session
    self_test: SelfTest
    notices: tuple[str, ...]


def open_engine(
    bundle: Bundle, *, asked: str | None = None, threads: int | None = None, say: Say = lambda _line: None
) -> Engine:
    """The first engine of the bundle's order that can be trusted here, or the one asked for.

    asked: "NAME" or "NAME:DEVICE" ("openvino:GPU"); then no other is tried. threads: per film; as the profile that the bundle
    was built for unless told. say: is told in a line of an engine that is passed over, or being built.
    Raises RuntimeMissingError where none is installed or opens the graph, SelfTestError where one gives wrong numbers and no
    other is left: then nothing may be read here.
    """
    settings = _settings(bundle)
    notices: list[str] = []
    distrusted = False
    for wanted in (asked,) if asked else bundle.manifest.runtimes:
        name, _, device = wanted.partition(":")
        try:
            session, text = _load(bundle, name, device, threads or settings.threads, settings, say)
        except RuntimeMissingError as missing:
            notices.append(str(missing))
        else:
            try:
                passed = _tested(bundle, name, device, session, text)
                return Engine(name, text, threads or settings.threads, session, passed, _told(notices, text, say))
            except SelfTestError as wrong:
                session.close()
                distrusted = True
                notices.append(f"{text} failed the self-test on this machine: {wrong}")
            except BaseException:
                session.close()
                raise
    error = SelfTestError if distrusted else RuntimeMissingError
    raise error(f"nothing may be read with {bundle.manifest.name} here: {'; '.join(notices)}")


def _told(notices: list[str], text: str, say: Say) -> tuple[str, ...]:
    for line in notices:
        say(f"{line}. Reading with {text} instead.")
    return tuple(notices)


def _settings(bundle: Bundle) -> Settings | Profile:
    """What the bundle was measured with; a profile of somebody's own does not travel with it, these do."""
    if bundle.manifest.build is not None and bundle.manifest.build.settings is not None:
        return bundle.manifest.build.settings
    try:
        return read_profile(bundle.manifest.target)
    except ValueError:
        return read_profile("generic")


def _load(
    bundle: Bundle, name: str, device: str, threads: int, settings: Settings | Profile, say: Say
) -> tuple[Session, str]:
    """A session, and what it runs on. Raises RuntimeMissingError that says in one line why there is none."""
    if name not in MODULES:
        raise RuntimeMissingError(f"{name!r} is no engine of this cxredge; it knows {', '.join(MODULES)}")
    engine = runtime(name)
    if (reason := engine.available()) is not True:
        raise RuntimeMissingError(reason)
    tuning = Tuning(
        device=device,
        spinning=settings.spinning,
        arena=settings.arena,
        cache=cache_folder("engines"),
        say=say,
    )
    text = f"{name}{':' if device else ''}{device} {engine.version()}"
    try:
        return engine.load(Artifact(name, bundle.graph(name)), threads, tuning), text
    except Exception as error:
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise RuntimeMissingError(f"{text} cannot open {bundle.graph(name).name}: {first[0]}") from error


def _tested(bundle: Bundle, name: str, device: str, session: Session, text: str) -> SelfTest:
    """The self-test; on the processor a pass is remembered. An accelerator's driver, and the engine that was built for it and
    cached, may change without a word: always anew.

    Raises SelfTestError, also for an engine that breaks down over it.
    """
    graph = bundle.manifest.graph_for(name)
    try:
        if name in _ON_A_CARD or device not in ("", "CPU"):
            return self_test(bundle, session, graph=graph)
        return self_test_once(bundle, session, graph=graph, runtime=text, processor=this_machine().processor)
    except (SelfTestError, BundleError):
        raise
    except Exception as error:
        raise SelfTestError(f"it broke down ({type(error).__name__}: {error})") from error
