"""What machine this is, as far as it can be read without asking for rights."""

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """The machine a number was measured on. cores: logical ones this process may use; memory_mb: None where unreadable."""

    processor: str
    architecture: str
    cores: int
    memory_mb: int | None
    system: str
    extensions: tuple[str, ...]

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


def this_machine() -> Machine:
    """Read /proc where there is one, the platform module elsewhere."""
    facts = _cpuinfo()
    flags = set(facts.get("flags", facts.get("Features", "")).split())
    interesting = ("avx2", "avx_vnni", "avx512_vnni", "asimddp", "i8mm")
    return Machine(
        processor=_board() or facts.get("model name") or platform.processor() or platform.machine(),
        architecture=platform.machine(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_mb=_memory_mb(),
        system=f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        extensions=tuple(flag for flag in interesting if flag in flags),
    )


def peak_rss_mb() -> float | None:
    """Peak resident memory of this process in MB (10^6 bytes); None on a system that does not tell (Windows)."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _cpuinfo() -> dict[str, str]:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return {}
    facts: dict[str, str] = {}
    for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            facts.setdefault(key.strip(), value.strip())
    return facts


def _board() -> str:
    """A Jetson or a Raspberry Pi says its name here."""
    model = Path("/proc/device-tree/model")
    return model.read_text(encoding="utf-8", errors="replace").rstrip("\x00") if model.is_file() else ""


def _memory_mb() -> int | None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1_000_000
