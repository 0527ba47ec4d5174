"""The command line before and around its verbs."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from house import ROOT, Cli

# A library that somebody interrupts while it loads; what it makes of a KeyboardInterrupt is what NumPy makes of it.
INTERRUPTED = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000): pass
except KeyboardInterrupt:
    raise ImportError("cannot be loaded")
"""


@pytest.mark.parametrize("library", ["typer", "pydantic"])
def test_ctrl_c_while_the_libraries_load_ends_it_with_one_line(cli: Cli, tmp_path: Path, library: str) -> None:
    (tmp_path / f"{library}.py").write_text(INTERRUPTED)
    module, function = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["cxredge"].split(":")
    installed = f"import sys; from {module} import {function}; sys.exit({function}())"
    for command in (cli.command("scan", "films"), [sys.executable, "-c", installed, "scan", "films"]):
        run = subprocess.run(
            command, capture_output=True, text=True, check=False, env=cli.environment | {"PYTHONPATH": str(tmp_path)}
        )
        assert run.returncode == 130
        assert run.stderr.splitlines() == ["cxredge: stopped before it began; nothing was done"]
