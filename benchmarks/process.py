"""A command run to its end, with what it took."""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Child:
    """One process with all its children: wall and processor time in seconds, peak RSS of the largest in MB (10^6 bytes)."""

    seconds: float
    processor_seconds: float
    peak_rss_mb: float


def run(command: list[str]) -> Child:
    """Run a command to its end, its output thrown away. Raises RuntimeError with its errors when it fails."""
    with tempfile.TemporaryFile() as errors:
        begin = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)  # noqa: S603 - our own commands
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            errors.seek(0)
            said = errors.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{' '.join(command)}: exit {child.returncode}\n{said}")
    # Bytes on a Mac, kilobytes elsewhere.
    unit = 1 if sys.platform == "darwin" else 1024
    return Child(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 1e6)
