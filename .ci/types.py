"""Type-check cxredge as it is imported, not as its folders lie.

mypy does not follow the finder of an editable install, so `cxredge.train` (the folder train/) would be unknown to it and
everything imported from there would silently be Any. This lays out the packages as pyproject.toml maps them, by links, in
a scratch folder and checks that; and it fails when mypy saw fewer files than there are.
"""

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
project = tomllib.loads((ROOT / "pyproject.toml").read_text())
mapping = project["tool"]["setuptools"]["package-dir"]

with tempfile.TemporaryDirectory() as scratch:
    top = Path(scratch) / "cxredge"
    top.mkdir()
    for entry in (ROOT / mapping.pop("cxredge")).iterdir():
        (top / entry.name).symlink_to(entry)
    for package, folder in mapping.items():
        (top / package.removeprefix("cxredge.")).symlink_to(ROOT / folder)
    wanted = sum(name.endswith(".py") for _, _, names in os.walk(top, followlinks=True) for name in names)
    run = subprocess.run(  # noqa: S603 - our own interpreter, our own arguments
        [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "-p", "cxredge"],
        cwd=scratch,
        capture_output=True,
        text=True,
        check=False,
    )
    print(run.stdout, run.stderr, sep="")
    found = re.search(r"(?:checked|no issues found in) (\d+) source files", run.stdout)
    seen = int(found[1]) if found else 0
    if run.returncode == 0 and seen < wanted:
        sys.exit(f"mypy saw {seen} of {wanted} source files: the mapping in pyproject.toml and the folders disagree")
    sys.exit(run.returncode)
