"""Where things lie, and the command line as a user types it."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
# The published layouts with a few dozen shrunken films.
FILMS = ROOT / "tests" / "films"


@dataclass(frozen=True)
class Cli:
    """`cxredge WORDS...` in a process of its own, in an empty folder, with a cache of its own."""

    folder: Path

    def command(self, *words: str | Path, python: tuple[str, ...] = ()) -> list[str]:
        return [sys.executable, *python, "-m", "cxredge", *map(str, words)]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "XDG_CACHE_HOME": str(self.folder / "cache"), "COLUMNS": "200"}

    def __call__(self, *words: str | Path, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words, python=python),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            cwd=self.folder,
            env=self.environment,
        )
