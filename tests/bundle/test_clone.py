"""What git checks out under Windows' usual setting is what was built, byte for byte."""

import subprocess
from pathlib import Path

import pytest
from house import ROOT

from cxredge.bundle import open_bundle, shipped_names


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no clone of the repository")
def test_line_ends_are_never_turned_by_git(tmp_path: Path) -> None:
    trees = {setting: tmp_path / setting for setting in ("true", "false")}
    for setting, tree in trees.items():
        words = ["git", "-c", f"core.autocrlf={setting}", "checkout-index", "--all", f"--prefix={tree}/"]
        subprocess.run(words, cwd=ROOT, check=True, timeout=60)
    files = [file.relative_to(trees["true"]) for file in trees["true"].rglob("*") if file.is_file()]
    assert [
        str(file) for file in files if (trees["true"] / file).read_bytes() != (trees["false"] / file).read_bytes()
    ] == []
    for name in shipped_names():
        open_bundle(trees["true"] / "cxredge" / "models" / name)
