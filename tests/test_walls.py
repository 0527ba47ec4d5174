"""The walls that hold the house up."""

import ast
from pathlib import Path

import pytest
from house import EXAMPLES, ROOT, Cli

LAB = {
    "torch",
    "torchvision",
    "torchao",
    "nncf",
    "onnx",
    "onnxscript",
    "lightning",
    "safetensors",
    "pandas",
    "matplotlib",
    "scipy",
}
# folder -> parts of cxredge it may import, besides itself
ARROWS = {
    "runtimes": set(),
    "devices": set(),
    "cxredge": {"runtimes", "devices"},
    "train": {"cxredge", "runtimes", "devices"},
    "compress": {"cxredge", "runtimes", "devices", "train"},
    "benchmarks": {"cxredge", "runtimes", "devices", "train"},
}


def imported(file: Path) -> set[str]:
    """Modules a file names in its imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def stage(module: str) -> str:
    """The folder a cxredge module lies in."""
    second = module.split(".")[1] if "." in module else ""
    return second if second in ARROWS else "cxredge"


@pytest.mark.parametrize("folder", ["cxredge", "runtimes", "devices"])
def test_the_clinic_side_never_names_a_lab_library(folder: str) -> None:
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    for file in files:
        assert not {name.split(".")[0] for name in imported(file)} & LAB, file


@pytest.mark.parametrize("folder", sorted(ARROWS))
def test_imports_run_downwards_only(folder: str) -> None:
    for file in (ROOT / folder).rglob("*.py"):
        ours = {stage(name) for name in imported(file) if name.split(".")[0] == "cxredge"}
        assert ours <= ARROWS[folder] | {folder}, file


# They write DICOM and open none.
WRITERS = {ROOT / "cxredge" / "report" / name for name in ("dicom_sc.py", "dicom_sr.py", "dicom_out.py")}


def test_one_preprocessing_for_training_and_scan() -> None:
    """Whoever opens a film goes through cxredge.imaging; nobody else decodes or resizes."""
    for folder in ARROWS:
        for file in (ROOT / folder).rglob("*.py"):
            if "imaging" not in file.parts:
                openers = {"PIL", "gdcm", "jpeg_ls"} | ({"pydicom"} if file not in WRITERS else set())
                assert not {name.split(".")[0] for name in imported(file)} & openers, file


def test_scan_loads_nothing_of_the_lab(cli: Cli) -> None:
    run = cli("scan", EXAMPLES, "--output", "out", python=("-X", "importtime"))
    assert run.returncode == 0, run.stderr[-2000:]
    loaded = {
        line.rsplit("|", 1)[1].strip().split(".")[0]
        for line in run.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert "onnxruntime" in loaded
    assert not loaded & LAB
