"""Which device is this? Asked of other machines' files."""

from pathlib import Path

import pytest
from house import Cli

from cxredge.devices import power_mode, profile_of, temperatures, this_machine

MACHINES = Path(__file__).parent / "machines"


@pytest.mark.parametrize(
    ("name", "profile", "cores", "memory_mb"),
    [
        ("jetson-orin-nano", "jetson-orin-nano", 6, 7989),
        ("jetson-orin-nx", "jetson-orin-nano", 6, 16031),
        ("jetson-nano", "jetson-nano", 4, 4156),
        ("raspberry-pi-5", "raspberry-pi-5", 4, 4241),
        ("raspberry-pi-4", "raspberry-pi-4", 4, 3977),
        ("x86-avx2", "x86-avx2", 4, 4050),
        ("gpu-server", "gpu-server", 2, 134217),
    ],
)
def test_a_machine_is_known_by_its_files(name: str, profile: str, cores: int, memory_mb: int) -> None:
    machine = this_machine(MACHINES / name)
    match = profile_of(machine)
    assert match.profile.name == profile
    assert match.exact == (name == profile)
    assert (machine.cores, machine.memory_mb) == (cores, memory_mb)
    assert match.profile.architecture == machine.architecture
    if match.profile.cores is not None:
        assert machine.cores == match.profile.cores
    for group in match.profile.extensions:
        assert set(group.split("|")) & set(machine.extensions)


def test_vnni_makes_the_other_profile_of_a_pc(tmp_path: Path) -> None:
    info = (MACHINES / "gpu-server" / "proc" / "cpuinfo").read_text()
    (tmp_path / "proc").mkdir()
    for flags, profile in ((info, "x86-vnni"), (info.replace("avx512_vnni", ""), "x86-avx2"), ("", "generic")):
        (tmp_path / "proc" / "cpuinfo").write_text(flags)
        assert profile_of(this_machine(tmp_path)).profile.name == profile


def test_a_jetson_says_its_software_and_power_mode() -> None:
    orin, nano = MACHINES / "jetson-orin-nano", MACHINES / "jetson-nano"
    assert this_machine(orin).release == "R36.4.3"
    assert this_machine(nano).release == "R32.7.1"
    assert power_mode(orin) == "power mode 2 (MAXN_SUPER)"
    assert power_mode(nano) == "power mode 1 (5W)"
    # A zone that is switched off says -256 degrees.
    assert set(temperatures(orin)) == {"cpu-thermal", "gpu-thermal", "tj-thermal"}
    assert temperatures(orin)["cpu-thermal"] == pytest.approx(49.125)


def test_a_laptop_says_that_it_runs_from_its_battery() -> None:
    assert power_mode(MACHINES / "x86-avx2") == "governor powersave, on battery"
    assert power_mode(MACHINES / "raspberry-pi-5") == "governor ondemand"
    assert this_machine(MACHINES / "gpu-server").nvidia == "570.124.06"


def test_a_machine_without_any_of_these_files_is_generic(tmp_path: Path) -> None:
    machine = this_machine(tmp_path)
    assert (machine.memory_mb, machine.board, machine.release) == (None, "", "")
    assert profile_of(machine).profile.name == "generic"
    assert (temperatures(tmp_path), power_mode(tmp_path)) == ({}, "")


def test_detect_on_the_command_line(cli: Cli) -> None:
    other = cli("devices", "detect", "--root", MACHINES / "jetson-orin-nano")
    assert other.returncode == 0, other.stderr
    for piece in ("jetson-orin-nano:", "R36.4.3", "MAXN_SUPER", "49 °C", "cxredge build --target jetson-orin-nano"):
        assert piece in other.stdout
    here = cli("devices", "detect")
    assert here.returncode == 0, here.stderr
    assert profile_of(this_machine()).profile.name in here.stdout
    assert "engine onnxruntime" in here.stdout
