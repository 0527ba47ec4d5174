"""`cxredge doctor` tries everything, and a machine that is not fit does not pass."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from house import Cli
from tamper import rehash

from cxredge.bundle import Bundle
from cxredge.devices import profile_of, read_profile, this_machine
from cxredge.imaging import selfcheck, unlocked
from cxredge.imaging.selfcheck import LOSSLESS, LOSSY, PICTURES, check_decoders
from cxredge.machine import doctor
from cxredge.machine.doctor import Check, State, budgeted, clock, disk, examine, is_fit, memory

MACHINES = Path(__file__).parent / "machines"


def test_this_machine_is_fit_and_the_page_says_why(cli: Cli, bundle: Bundle) -> None:
    run = cli("doctor", "--json")
    assert run.returncode == 0, run.stdout + run.stderr
    said = json.loads(run.stdout)
    assert said["fit"] is True
    checks = {(check["area"], check["name"]): check for check in said["checks"]}
    assert {area for area, _ in checks} == {"decoders", "engines", "device", "disk", "clock", "memory"}
    assert sum(area == "decoders" for area, _ in checks) == len(LOSSLESS) + len(LOSSY) + len(PICTURES)
    assert "self-test passed on 32 films" in checks["engines", "onnxruntime"]["detail"]
    match, told = profile_of(this_machine()), checks["device", "profile"]["detail"]
    may_gain = match.exact and match.profile.name != bundle.manifest.target
    assert (f"cxredge build --target {match.profile.name}" in told) == may_gain
    page = cli("doctor")
    assert page.returncode == 0
    assert f"Fit to read films with {bundle.manifest.name}." in page.stdout
    assert f"{len(LOSSLESS) + len(LOSSY) + len(PICTURES)} of" in page.stdout


def test_a_bundle_that_no_engine_reads_right_makes_the_machine_unfit(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle.folder, tmp_path / "copy"))
    # As if built where the numbers were others.
    with np.load(copy / "reference.npz") as stored:
        arrays = dict(stored)
    np.savez_compressed(copy / "reference.npz", **arrays | {"logits": arrays["logits"] + 1})
    rehash(copy, "reference.npz")
    run = cli("doctor", "--model", copy, "--json")
    assert run.returncode == 1, run.stderr
    unfit = [check for check in json.loads(run.stdout)["checks"] if check["state"] == "unfit"]
    assert [(check["area"], check["name"]) for check in unfit] == [("engines", "any")]
    page = cli("doctor", "--model", copy)
    assert page.returncode == 1
    assert "Not fit" in page.stdout
    assert "failed the self-test" in page.stdout


def test_an_engine_after_the_one_that_reads_need_not_be_installed(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    assert bundle.manifest.runtimes == ("onnxruntime", "openvino")
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "openvino.py").write_text("raise ModuleNotFoundError")
    run = subprocess.run(
        cli.command("doctor", "--json"), capture_output=True, text=True, check=False, cwd=tmp_path,
        env=cli.environment | {"PYTHONPATH": str(tmp_path / "without")},
    )  # fmt: skip
    found = {check["name"]: check for check in json.loads(run.stdout)["checks"] if check["area"] == "engines"}
    assert [found[name]["state"] for name in bundle.manifest.runtimes] == ["ok", "note"]
    assert "pip install" in found["openvino"]["detail"]


def test_a_place_that_cannot_be_written_makes_the_machine_unfit(cli: Cli) -> None:
    run = cli("doctor", "--output", "/proc/results", "--json")
    assert run.returncode == 1
    (check,) = [check for check in json.loads(run.stdout)["checks"] if check["state"] == "unfit"]
    assert (check["area"], check["name"]) == ("disk", "results")
    assert "choose another folder" in check["detail"]


def test_a_link_to_a_stick_that_is_not_there_is_no_place_for_results(tmp_path: Path) -> None:
    (tmp_path / "results").symlink_to(tmp_path / "stick" / "results")
    for output in (tmp_path / "results", tmp_path / "results" / "today"):
        found = disk("results", output, lost=State.UNFIT)
        assert found.state is State.UNFIT
        assert str(tmp_path / "results") in found.detail
    (tmp_path / "stick" / "results").mkdir(parents=True)
    assert disk("results", tmp_path / "results", lost=State.UNFIT).state is not State.UNFIT


def test_every_kind_of_film_is_decoded_and_compared() -> None:
    found = check_decoders()
    assert [decoded.problem for decoded in found] == [""] * len(found)
    assert len({decoded.kind for decoded in found}) == len(found) == 17


def test_a_decoder_that_gives_other_greys_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = selfcheck.pattern()
    monkeypatch.setattr(selfcheck, "pattern", lambda: real + np.uint8(1))
    problems = {decoded.kind: decoded.problem for decoded in check_decoders()}
    assert "off by up to 1 levels" in problems["PNG"]
    assert "off by up to 1 levels" in problems["DICOM RLE Lossless"]
    assert problems["JPEG"] == ""


def test_a_missing_decoder_makes_the_machine_unfit(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle, tmp_path: Path
) -> None:
    from pydicom.pixels.decoders.base import JPEGLosslessSV1Decoder

    monkeypatch.setattr(JPEGLosslessSV1Decoder, "_available", {})
    checks = examine(bundle, tmp_path)
    (unfit,) = [check for check in checks if check.state is State.UNFIT]
    assert "Process 14 [Selection Value 1]" in unfit.name
    assert "pip install python-gdcm" in unfit.detail
    assert not is_fit(checks)


def test_jpeg_ls_is_read_where_pyjpegls_has_no_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Python 3.14: GDCM gives the same greys."""
    from pydicom.pixels.decoders import JPEGLSLosslessDecoder, JPEGLSNearLosslessDecoder

    for decoder in (JPEGLSLosslessDecoder, JPEGLSNearLosslessDecoder):
        monkeypatch.setattr(decoder, "_available", {"gdcm": decoder._available["gdcm"]})
    monkeypatch.setattr(unlocked, "find_spec", lambda _name: None)
    found = [decoded for decoded in check_decoders() if "JPEG-LS" in decoded.kind]
    assert [decoded.problem for decoded in found] == ["", ""]


def test_a_clock_that_cannot_be_right_is_found() -> None:
    installed = 1_790_000_000.0
    assert clock(installed + 86_400, installed).state is State.OK
    # A Raspberry Pi without a battery for its clock starts in the past.
    assert clock(0.0, installed).state is State.UNFIT
    assert clock(5_000_000_000.0, installed).state is State.UNFIT
    assert "set it" in clock(0.0, installed).detail


def test_memory_is_held_against_the_devices_budget() -> None:
    profile = read_profile("generic")
    budget = profile.memory_budget_mb
    assert memory(4000, budget + 1, profile).state is State.OK
    assert memory(4000, budget - 1, profile).state is State.WARN
    assert memory(budget - 1, 10, profile).state is State.UNFIT
    assert memory(None, None, profile).state is State.NOTE
    # macOS says how much there is, and not what is free.
    assert memory(16000, None, profile).detail == f"16000 MB; a scan is allowed {budget} MB"
    assert memory(4000, 2500.0, profile).detail == f"2500 MB free of 4000 MB; a scan is allowed {budget} MB"


def test_a_graphics_cards_driver_makes_no_small_laptop_unfit(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laptop = replace(this_machine(MACHINES / "x86-avx2"), memory_mb=3898, nvidia="470.256.02")
    monkeypatch.setattr(doctor, "this_machine", lambda: laptop)
    checks = {check.area: check for check in examine(bundle, tmp_path)}
    assert checks["memory"].state is not State.UNFIT
    assert f"3898 MB; a scan is allowed {read_profile('generic').memory_budget_mb} MB" in checks["memory"].detail


def test_the_budget_is_the_targets_only_where_its_own_engine_reads(bundle: Bundle) -> None:
    def budget(target: str, *engines: str) -> int:
        built = replace(bundle, manifest=bundle.manifest.model_copy(update={"target": target}))
        return budgeted(built, [Check("engines", name, State.OK, "") for name in engines]).memory_budget_mb

    assert budget("gpu-server", "tensorrt") == read_profile("gpu-server").memory_budget_mb
    for target, engine in (("gpu-server", "onnxruntime"), ("my-own", "onnxruntime")):
        assert budget(target, engine) == budget("generic") == read_profile("generic").memory_budget_mb


def test_a_disk_without_room_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def usage(free_mb: float) -> Check:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 0, int(free_mb * 1e6)))
        return disk("results", tmp_path / "not" / "yet" / "there", lost=State.UNFIT)

    assert usage(5000).state is State.OK
    assert usage(500).state is State.WARN
    assert usage(50).state is State.UNFIT
    assert "too little" in usage(50).detail
    assert list(tmp_path.iterdir()) == []
