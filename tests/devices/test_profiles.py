"""Profiles: every figure has its source, a mistake is named, and a user's own file does as well as a shipped one."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from house import ROOT, Cli

from cxredge.devices import Profile, profile_names, read_profile, shipped_profiles
from cxredge.devices.profile import FIGURES
from cxredge.runtimes import MODULES

PROFILES = ROOT / "devices" / "profiles"


def test_every_named_device_has_its_profile() -> None:
    assert set(profile_names()) == {
        *("jetson", "jetson-orin-nano", "jetson-nano", "raspberry-pi-5", "raspberry-pi-4"),
        *("x86-vnni", "x86-avx2", "generic", "gpu-server"),
    }
    assert read_profile("jetson") == read_profile("jetson-orin-nano")
    assert [profile.name for profile in shipped_profiles()] == sorted(path.stem for path in PROFILES.glob("*.toml"))


@pytest.mark.parametrize("profile", shipped_profiles(), ids=lambda profile: profile.name)
def test_every_figure_of_a_shipped_profile_names_its_source(profile: Profile) -> None:
    for figure in FIGURES:
        given = getattr(profile, figure) not in (None, ())
        assert given == (figure in profile.sources), figure
    assert all(len(source) > 20 for source in profile.sources.values())
    for source in (*profile.sources.values(), *(engine.source for engine in profile.engines)):
        for word in source.split():
            if word.strip(".,;:()").endswith(".json"):
                assert (ROOT / word.strip(".,;:()")).is_file(), word


@pytest.mark.parametrize("profile", shipped_profiles(), ids=lambda profile: profile.name)
def test_schemes_are_what_the_engines_take(profile: Profile) -> None:
    for engine in profile.engines:
        assert engine.name in MODULES
        if engine.name.startswith("tensorrt"):
            assert (engine.activations, engine.bias) == ("signed-symmetric", "float")
        else:
            assert "fp16" not in engine.precisions
        # Eight bits overflow on x86 without VNNI.
        if profile.architecture in ("x86_64", "any") and not any("vnni" in flag for flag in profile.extensions):
            assert engine.weight_bits == 7 or engine.name.startswith("tensorrt")
    assert ("tensorrt" in profile.runtimes) <= bool(profile.compute_capabilities)
    assert not profile.spinning or profile.name == "gpu-server"


def test_a_profile_of_ones_own_is_a_file(tmp_path: Path, cli: Cli) -> None:
    own = Path(shutil.copy(PROFILES / "raspberry-pi-5.toml", tmp_path / "own.toml"))
    own.write_text(
        own.read_text().replace('name = "raspberry-pi-5"', 'name = "clinic-box"').replace("cores = 4", "cores = 8")
    )
    profile = read_profile(str(own))
    assert (profile.name, profile.cores) == ("clinic-box", 8)
    shown = cli("devices", own)
    assert shown.returncode == 0, shown.stderr
    assert "clinic-box" in shown.stdout


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text + "\n[surprise]\na = 1\n", "surprise: Unexpected keyword argument"),
        (lambda text: text.replace("threads = 1", "threads = 0"), "threads: Input should be greater than"),
        (lambda text: text.replace("threads = 1\n", ""), "threads: Field required"),
        (lambda text: text.replace('"int8"', '"int4"', 1), "engines.0.precisions.0"),
        (lambda text: text.replace("weight_bits = 8", "weight_bits = 6", 1), "engines.0.weight_bits"),
        (lambda text: text.replace("[sources]", '[sources]\ncolour = "white"'), "colour is no figure of a profile"),
        (lambda text: text.replace('name = "openvino"', 'name = "onnxruntime"'), "one of them stands there twice"),
        (lambda text: text.replace("[sources]", "[sources"), "not TOML"),
    ],
)
def test_a_mistake_in_a_profile_is_named_with_its_file(tmp_path: Path, change: Callable[[str], str], says: str) -> None:
    text = (PROFILES / "raspberry-pi-5.toml").read_text()
    own = tmp_path / "own.toml"
    own.write_text(change(text))
    assert own.read_text() != text
    with pytest.raises(ValueError, match=r"own\.toml") as raised:
        read_profile(str(own))
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_command_line_lists_explains_and_refuses(cli: Cli, tmp_path: Path) -> None:
    listed = cli("devices")
    assert listed.returncode == 0, listed.stderr
    for name in profile_names():
        assert name in listed.stdout
    explained = cli("devices", "jetson")
    for piece in ("compute_capabilities", "8.7", "TensorRT support matrix", "signed-symmetric", "nvidia-jetpack"):
        assert piece in explained.stdout
    for name in ("toaster", str(tmp_path / "absent.toml")):
        refused = cli("devices", name)
        assert refused.returncode == 2
        assert len(refused.stderr.strip().splitlines()) == 1
        assert name in refused.stderr
