"""Resident memory of this process in MB (10^6 bytes).

The kernel's `ru_maxrss` of a child starts at what its parent held when it was started (it survives exec), so a child of a
large process would look large. `VmHWM` in /proc belongs to the program itself and is what `/usr/bin/time -v` shows when it
starts it from its own few hundred kilobytes.
"""

import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_mb() -> float:
    """Peak resident set so far. Raises OSError on a system that does not tell (Windows)."""
    return _proc("VmHWM:") if _STATUS.exists() else _peak_of_resource()


def resident_mb() -> float:
    """Resident set now; on systems without /proc the peak so far, which is the nearest there is."""
    return _proc("VmRSS:") if _STATUS.exists() else _peak_of_resource()


def _proc(key: str) -> float:
    line = next(
        line for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines() if line.startswith(key)
    )
    return int(line.split()[1]) * 1024 / 1e6


def _peak_of_resource() -> float:
    if sys.platform == "win32":
        raise OSError("this system does not tell a process its peak memory")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
