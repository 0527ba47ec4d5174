"""What machine this is, as far as it can be read without asking for rights."""

import os
import platform
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
_INTERESTING = ("avx2", "avx_vnni", "avx512_vnni", "asimddp", "i8mm")


@dataclass(frozen=True)
class Machine:
    """The machine a number was measured on.

    cores: logical ones this process may use. memory_mb (10^6 bytes): None where unreadable. board: what a Jetson or a
    Raspberry Pi calls itself. release: of a Jetson's software ("R36.4.3"). nvidia: version of a card's driver. Empty elsewhere.
    """

    processor: str
    architecture: str
    cores: int
    memory_mb: int | None
    system: str
    extensions: tuple[str, ...]
    board: str = ""
    release: str = ""
    nvidia: str = ""

    @property
    def multiplies_bytes(self) -> bool:
        """Whether the processor has instructions for sums of 8-bit products, without which INT8 need not be faster than floats."""
        return bool({"avx_vnni", "avx512_vnni", "asimddp"} & set(self.extensions))

    @property
    def text(self) -> dict[str, str]:
        """For a report."""
        memory = f"{self.memory_mb / 1000:.1f} GB" if self.memory_mb else "unknown"
        return {
            "processor": self.processor,
            "architecture": self.architecture,
            "cores": str(self.cores),
            "memory": memory,
            "system": self.system,
            "extensions": " ".join(self.extensions) or "none of interest",
        }


def this_machine(root: Path = ROOT) -> Machine:
    """Read /proc and /etc where there are any, the platform module elsewhere. root: of another machine's files."""
    facts = _cpuinfo(root)
    flags = set(facts.get("flags", facts.get("Features", "")).split())
    board = _line(root / "proc/device-tree/model") or facts.get("Model", "")
    return Machine(
        processor=board
        or facts.get("model name")
        or (_here(root) and platform.processor())
        or _architecture(root, facts),
        architecture=_architecture(root, facts),
        cores=_cores(root, facts),
        memory_mb=_memory_mb(root),
        system=f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        extensions=tuple(flag for flag in _INTERESTING if flag in flags),
        board=board,
        release=_tegra_release(root),
        nvidia=_nvidia(root),
    )


def temperatures(root: Path = ROOT) -> dict[str, float]:
    """Thermal zone -> degrees Celsius; zones that give no plausible number are left out."""
    found = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        with suppress(ValueError):
            degrees = int(_line(zone / "temp")) / 1000
            if -40 < degrees < 130:
                found[_line(zone / "type") or zone.name] = degrees
    return found


def power_mode(root: Path = ROOT) -> str:
    """A Jetson's power mode, else the frequency governor; and whether the machine runs from its battery. May be empty."""
    said = []
    if mode := re.search(r"pmode:0*(\d+)", _text(root / "var/lib/nvpmodel/status")):
        name = re.search(rf"POWER_MODEL\s+ID={mode[1]}\s+NAME=(\S+)", _text(root / "etc/nvpmodel.conf"))
        said.append(f"power mode {mode[1]}{f' ({name[1]})' if name else ''}")
    elif governor := _line(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"):
        said.append(f"governor {governor}")
    supplies = (root / "sys/class/power_supply").glob("*")
    if any(_line(supply / "type") == "Battery" and _line(supply / "status") == "Discharging" for supply in supplies):
        said.append("on battery")
    return ", ".join(said)


def peak_rss_mb() -> float | None:
    """Peak resident memory of this process in MB (10^6 bytes); None on a system that does not tell (Windows)."""
    # getrusage also counts what the process that started this one held at that moment; this line does not.
    if said := re.search(r"VmHWM:\s+(\d+) kB", _text(ROOT / "proc/self/status")):
        return int(said[1]) * 1024 / 1e6
    peak = None
    if sys.platform != "win32":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    return peak


def _here(root: Path) -> bool:
    return root == ROOT


def _text(file: Path) -> str:
    """Content of a small file of the kernel's; empty where it cannot be read, which is as good as not there."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _line(file: Path) -> str:
    return _text(file).replace("\x00", "").strip()


def _cpuinfo(root: Path) -> dict[str, str]:
    """The first processor's lines, and how many processors there are, as "processors"."""
    facts: dict[str, str] = {}
    text = _text(root / "proc/cpuinfo")
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            facts.setdefault(key.strip(), value.strip())
    facts["processors"] = str(len(re.findall(r"^processor\s*:", text, flags=re.MULTILINE)))
    return facts


def _architecture(root: Path, facts: dict[str, str]) -> str:
    if not _here(root):
        return "aarch64" if "CPU implementer" in facts else "x86_64"
    return _ARCHITECTURES.get(platform.machine().lower(), platform.machine())


def _cores(root: Path, facts: dict[str, str]) -> int:
    if not _here(root):
        return int(facts["processors"])
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_mb(root: Path) -> int | None:
    if not _here(root):
        total = re.search(r"MemTotal:\s+(\d+) kB", _text(root / "proc/meminfo"))
        return int(total[1]) * 1024 // 1_000_000 if total else None
    if sys.platform != "win32" and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1_000_000
    return None


def _tegra_release(root: Path) -> str:
    """ "# R36 (release), REVISION: 4.3, ..." -> "R36.4.3"."""
    said = re.search(r"# (R\d+) ?\(release\), REVISION: ([\d.]+)", _text(root / "etc/nv_tegra_release"))
    return f"{said[1]}.{said[2]}" if said else ""


def _nvidia(root: Path) -> str:
    """Version of the driver of a plugged-in NVIDIA card."""
    said = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)\s", _text(root / "proc/driver/nvidia/version"))
    return said[1] if said else ""
