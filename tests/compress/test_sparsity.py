"""Zeros for the sake of measuring: as many as asked for, the smallest, and the graph runs on."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from house import ROOT
from onnx import numpy_helper

from cxredge.bundle import Bundle
from cxredge.compress.quantize import quantized_convolutions
from cxredge.compress.sparsity import make_sparse
from cxredge.runtimes import Artifact, runtime


@pytest.mark.parametrize("graph", ["full_model", "model"])
def test_the_smallest_weights_of_every_kernel_become_zero(bundle: Bundle, graph: str, tmp_path: Path) -> None:
    before, after = getattr(bundle, graph), tmp_path / "sparse.onnx"
    assert make_sparse(before, 0.7, after) >= 0.7
    dense, sparse = (
        {t.name: numpy_helper.to_array(t) for t in onnx.load(file).graph.initializer if len(t.dims) == 4}
        for file in (before, after)
    )
    for name, kernel in sparse.items():
        gone = np.abs(dense[name][kernel == 0].astype(np.float32))
        assert gone.max() <= np.abs(kernel[kernel != 0].astype(np.float32)).min()
    assert quantized_convolutions(after) == quantized_convolutions(before)
    session = runtime("onnxruntime").load(Artifact("onnxruntime", after), 1)
    assert np.isfinite(session.run(np.zeros((1, 1, 224, 224), np.uint8)).logits).all()
    session.close()


def test_the_measurement_that_is_kept_shows_no_gain_worth_a_step() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "sparsity.json").read_text())["rows"]
    assert len(rows) == 8
    for dense, sparse in zip(rows[::2], rows[1::2], strict=True):
        assert (dense["form"], dense["engine"]) == (sparse["form"], sparse["engine"])
        ratios = np.divide(sparse["rounds_cpu_ms"], dense["rounds_cpu_ms"])
        assert 0.9 < np.median(ratios) < 1.1
