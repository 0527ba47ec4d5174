"""Which films were being read when a scan died, so that one whose decoder ends the whole process ends one scan, not every one.

Decoders are native code: what they do at a damaged film cannot be caught. A line is written before a film is read and after; what
has only the first was in hand when the scan died, by a power cut or by that film. The next scan tries such films in a process
of their own before it reads them itself.
"""

import os
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from cxredge.scan.discover import key

_BEGUN, _DONE = "+", "-"
# A film takes a second at most; one that takes so long never ends.
_PATIENCE_S = 120
TRIAL = """
import sys
from contextlib import suppress
from pathlib import Path
from cxredge.imaging import Preprocessing, read_film
# The scan tells what is wrong with a film; here it only matters that the process lives on.
with suppress(Exception):
    read_film(Path(sys.argv[1]), Preprocessing(size=224), reduced=len(sys.argv) > 2)
"""


class InHand:
    """left: films, by `key`, that an earlier scan died over. Used from several threads at once; the folder must be writable."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.left = _unfinished(file)
        self._log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def begin(self, path: Path) -> None:
        """Before a film is read. It reaches the disk's cache at once, which outlives this process."""
        self._write(_BEGUN, path)

    def done(self, path: Path) -> None:
        """When it has been read."""
        self._write(_DONE, path)

    def _write(self, what: str, path: Path) -> None:
        # On a full disk the journal is the one to complain.
        with suppress(OSError):
            os.write(self._log, f"{what}{key(path)}\n".encode())

    def close(self, deadly: Iterable[Path]) -> None:
        """Forget everything but the films that must be tried again before they are read."""
        os.close(self._log)
        lines = "".join(f"{_BEGUN}{key(path)}\n" for path in deadly)
        with suppress(OSError):
            if lines:
                self._file.write_text(lines, encoding="utf-8")
            else:
                self._file.unlink()


def survives(path: Path, *, reduced: bool) -> bool:
    """Whether a process lives on after decoding this film."""
    command = [sys.executable, "-P", "-c", TRIAL, str(path), *["reduced"] * reduced]
    try:
        run = subprocess.run(command, capture_output=True, check=False, timeout=_PATIENCE_S)  # noqa: S603 - our own program
    except subprocess.TimeoutExpired:
        return False
    return run.returncode == 0


def _unfinished(file: Path) -> set[str]:
    try:
        # Not splitlines(): names may hold separators that are none to us.
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return set()
    counts: dict[str, int] = {}
    for line in lines:
        counts[line[1:]] = counts.get(line[1:], 0) + {_BEGUN: 1, _DONE: -1}.get(line[:1], 0)
    return {film for film, count in counts.items() if count > 0}
