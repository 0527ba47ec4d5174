"""Resident memory of this process in MB (10^6 bytes).

The kernel's `ru_maxrss` of a child starts at what its parent held when it was started (it survives exec), so a child of a
large process would look large. `VmHWM` in /proc belongs to the program itself and is what `/usr/bin/time -v` shows when it
starts it from its own few hundred kilobytes.
"""

import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_mb() -> float:
    """Peak resident set so far."""
    if _STATUS.exists():
        return _proc("VmHWM:")
    if sys.platform == "win32":
        import psutil

        peak = psutil.Process().memory_info().peak_wset
    else:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return float(peak) / 1e6


def resident_mb() -> float:
    """Resident set now; on systems that do not tell (macOS) the peak so far, which is the nearest there is."""
    if sys.platform == "win32":
        import psutil

        now = float(psutil.Process().memory_info().rss) / 1e6
    else:
        now = _proc("VmRSS:") if _STATUS.exists() else peak_mb()
    return now


def _proc(key: str) -> float:
    line = next(
        line for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines() if line.startswith(key)
    )
    return int(line.split()[1]) * 1024 / 1e6
