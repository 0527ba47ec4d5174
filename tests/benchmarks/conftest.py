"""What the benchmark's tests share: a few real films, and a stand-in for the shipped model's full-precision parent."""

import csv
import shutil
from pathlib import Path

import onnx
import pytest
from house import FILMS
from onnx import numpy_helper

from cxredge.bundle import Bundle
from cxredge.compress.onnx_graph import head_node

NIH = FILMS / "chestxray14"


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 24 small films as a labels table with two findings."""
    folder = tmp_path_factory.mktemp("films")
    with (NIH / "Data_Entry_2017_v2020.csv").open() as lines, (folder / "labels.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["file", "patient", "Effusion", "Hernia", "sex", "view"])
        for row in csv.DictReader(lines):
            film = shutil.copy(next((NIH / "images").glob(Path(row["Image Index"]).stem + ".*")), folder)
            found = [str(int(finding in row["Finding Labels"].split("|"))) for finding in ("Effusion", "Hernia")]
            writer.writerow([Path(film).name, row["Patient ID"], *found, row["Patient Gender"], row["View Position"]])
    return folder / "labels.csv"


@pytest.fixture(scope="session")
def parent(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped graph with its last layer's weights changed by a few per cent: scores close to it, not the same."""
    model = onnx.load(bundle.model)
    head = head_node(model)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == head.input[1])
    values = numpy_helper.to_array(weight).copy()
    values[:, ::2] *= 1.04
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    out = tmp_path_factory.mktemp("parent") / "parent.onnx"
    onnx.save(model, out)
    return out
