"""Where things lie, and the command line as a user types it."""

import csv
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
# The published layouts with a few dozen shrunken films.
FILMS = ROOT / "tests" / "films"


def rows_of(out: Path) -> list[dict[str, str]]:
    """The rows of a run's results.csv."""
    with (out / "results.csv").open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def without_times(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Rows as two runs over the same films must agree on them."""
    return [{key: value for key, value in row.items() if not key.endswith("_ms")} for row in rows]


@dataclass(frozen=True)
class Cli:
    """`cxredge WORDS...` in a process of its own, in an empty folder, with a cache of its own."""

    folder: Path

    def command(self, *words: str | Path, python: tuple[str, ...] = ()) -> list[str]:
        return [sys.executable, *python, "-m", "cxredge", *map(str, words)]

    @property
    def environment(self) -> dict[str, str]:
        # What NNCF compiles at first use may be shared: compiling it anew in every test costs a minute each.
        compiled = os.environ.get(
            "TORCH_EXTENSIONS_DIR", str(Path.home() / ".cache" / "torch_extensions" / "py311_cpu")
        )
        own = {"XDG_CACHE_HOME": str(self.folder / "cache"), "XDG_DATA_HOME": str(self.folder / "data")}
        return {**os.environ, **own, "TORCH_EXTENSIONS_DIR": compiled, "COLUMNS": "200"}

    def __call__(self, *words: str | Path, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words, python=python),
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            cwd=self.folder,
            env=self.environment,
        )
