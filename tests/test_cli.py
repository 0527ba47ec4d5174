"""The command line before and around its verbs."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from house import EXAMPLES, FILMS, ROOT, Cli, rows_of

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


# As a service or a container runs: a user whom the system does not know, and no HOME.
NOBODY = "import pwd; pwd.getpwuid = {}.__getitem__; from cxredge.__main__ import main; main()"


def test_a_user_without_a_home_reads_films(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("pwd")
    homeless = {name: value for name, value in cli.environment.items() if not name.startswith(("HOME", "XDG_"))}
    for words in (["scan", str(EXAMPLES / "chest-cr.dcm")], ["doctor"]):
        run = subprocess.run(
            [sys.executable, "-c", NOBODY, *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=homeless,
        )
        assert run.returncode == 0, run.stderr
    assert [row["status"] for row in rows_of(tmp_path / "cxredge-scan")] == ["ok"]
    assert [path.name for path in tmp_path.iterdir()] == ["cxredge-scan"]


@pytest.mark.parametrize("words", [[], ["scan"], ["models", "show"], ["keys"]])
def test_h_is_help(cli: Cli, words: list[str]) -> None:
    short = cli(*words, "-h")
    assert short.returncode == 0, short.stderr
    assert short.stdout == cli(*words, "--help").stdout


@pytest.mark.parametrize("words", ["scan --threads", "scan --workers", "evaluate --threads", "benchmark --threads"])
def test_more_threads_than_any_machine_has_cores_are_refused(cli: Cli, words: str) -> None:
    verb, option = words.split()
    where = [EXAMPLES / "chest-cr.dcm"] if verb == "scan" else ["chestxray14", "--data", FILMS / "chestxray14"]
    run = cli(verb, *where, option, "100000")
    assert run.returncode == 2
    assert "1024" in run.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["keys"], "is a folder; name the private key"),
        (["compress", "run", "--data", "x", "--output"], "exists and is not a bundle"),
    ],
)
def test_the_folder_one_stands_in_is_nothing_to_overwrite(
    cli: Cli, tmp_path: Path, words: list[str], says: str
) -> None:
    (tmp_path / "film.dcm").touch()
    run = cli(*words, ".")
    assert run.returncode == 2
    assert says in run.stderr
    assert "Traceback" not in run.stderr
