"""What the machine says of itself while it works: clock, governor, heat, throttling, power. What cannot be read is None."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
_CPUS = "sys/devices/system/cpu"


@dataclass(frozen=True)
class Sample:
    """A moment. mhz: mean over the cores. celsius: the hottest zone. watts: of the board (Jetson). throttled: events so far."""

    mhz: float | None
    celsius: float | None
    watts: float | None
    throttled: int | None


def sample(root: Path = ROOT) -> Sample:
    """Read all sensors now; takes well under a millisecond."""
    return Sample(_mhz(root), _celsius(root), _watts(root), _throttled(root))


def governor(root: Path = ROOT) -> str | None:
    """The cores' frequency governor (`powersave`, `schedutil`, ...), or None on a machine that does not say."""
    named = {_text(file) for file in (root / _CPUS).glob("cpu[0-9]*/cpufreq/scaling_governor")} - {""}
    return ", ".join(sorted(named)) or None


def energy_joules(root: Path = ROOT) -> float | None:
    """Energy counted so far by the processor packages (Intel and AMD RAPL); None where it is absent or not ours to read.

    Counters wrap; whoever subtracts two readings must drop a negative difference.
    """
    # A laptop's `psys` zone lies beside the packages and counts them once more.
    zones = (root / "sys/class/powercap").glob("intel-rapl:[0-9]")
    readings = [_number(zone / "energy_uj") for zone in zones if _text(zone / "name").startswith("package")]
    known = [reading for reading in readings if reading is not None]
    return sum(known) / 1e6 if known else None


def _mhz(root: Path) -> float | None:
    kilohertz = [_number(file) for file in (root / _CPUS).glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    found = [value / 1000 for value in kilohertz if value is not None]
    if not found:
        lines = _text(root / "proc/cpuinfo").splitlines()
        found = [float(line.split(":")[1]) for line in lines if line.startswith("cpu MHz")]
    return sum(found) / len(found) if found else None


def _celsius(root: Path) -> float | None:
    zones = [_number(file) for file in (root / "sys/class/thermal").glob("thermal_zone*/temp")]
    found = [value / 1000 for value in zones if value is not None]
    return max(found) if found else None


def _watts(root: Path) -> float | None:
    """The first rail of a Jetson's INA3221 monitor, the board's input: millivolts times milliamperes."""
    for folder in sorted((root / "sys/bus/i2c/drivers").glob("ina3221*/*/hwmon/hwmon*")):
        millivolts, milliamperes = _number(folder / "in1_input"), _number(folder / "curr1_input")
        if millivolts is not None and milliamperes is not None:
            return millivolts * milliamperes / 1e6
    return None


def _throttled(root: Path) -> int | None:
    counts = [_number(file) for file in (root / _CPUS).glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    found = [count for count in counts if count is not None]
    return int(sum(found)) if found else None


def _number(file: Path) -> float | None:
    text = _text(file)
    return float(text) if text.lstrip("-").replace(".", "", 1).isdigit() else None


def _text(file: Path) -> str:
    # A sensor may be there and still refuse (no rights, device asleep): then it is simply not known.
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
