"""The peers: outside what is installed, described, measured as cxredge is, and shown where cxredge loses too."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from house import FILMS, ROOT

from cxredge.benchmarks.peers.entries import PEERS, Start
from cxredge.bundle import Bundle
from cxredge.imaging import Preprocessing, read_film

PLACE = ROOT / "benchmarks" / "peers"
RESULTS = ROOT / "benchmarks" / "results"


def test_peers_are_not_part_of_what_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "cxredge.benchmarks" in project["tool"]["setuptools"]["packages"]
    assert not [name for name in project["tool"]["setuptools"]["packages"] if "peers" in name]


def test_every_peer_is_described_with_how_to_get_it() -> None:
    rows = [line for line in (PLACE / "README.md").read_text().splitlines() if line.startswith("| `")]
    assert {row.split("`")[1] for row in rows} == {*PEERS, "benchmark_app"}
    assert all("pip install" in row for row in rows)
    pinned = [line for line in (PLACE / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert all("==" in line for line in pinned)


@pytest.fixture
def start(bundle: Bundle) -> Start:
    films = sorted((FILMS / "chestxray14" / "images").glob("*"))[:2]
    assert bundle.full_model is not None
    planes = np.stack([read_film(film, Preprocessing()).image for film in films])
    return Start(bundle.manifest.name, bundle.full_model, planes)


def test_pytorch_peers_and_the_parent_they_start_from_answer_alike(start: Start, tmp_path: Path) -> None:
    found = []
    for key in ("torch", "torchscript", "ort_fp32"):
        out = tmp_path / key
        out.mkdir()
        peer = PEERS[key]
        found.append(peer.open(peer.prepare(start, out), 1)(start.calibration))
    assert found[0].shape == (2, 14)
    assert np.allclose(found[0], found[1], atol=1e-3)
    assert np.allclose(found[0], found[2], atol=0.02)


def test_the_kept_table_stands_in_the_readme_with_the_rows_where_cxredge_loses() -> None:
    told = json.loads((RESULTS / "peers.json").read_text())
    rows = [row for row in told["rows"] if not row["key"].startswith("cxredge/")]
    assert len(rows) >= 5
    lines = [line for line in (RESULTS / "peers.md").read_text().splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(told["rows"])
    readme = (ROOT / "README.md").read_text()
    assert all(line in readme for line in lines)
    assert told["command"].startswith("python -m cxredge.benchmarks.peers.run")
    assert {"processor", "cores"} <= set(told["machine"])
