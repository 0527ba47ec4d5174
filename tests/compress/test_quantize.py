"""Post-training quantization: how much memory its calibration takes."""

import subprocess
import sys
from pathlib import Path

import pytest
from untrained import patches, untrained

from cxredge.compress.export import Contract, Trunk, export, head_for
from cxredge.compress.gate import features, fit_gate
from cxredge.compress.quantize import quantized_convolutions

# In a process that does nothing else.
QUANTIZE = """
import sys
from pathlib import Path
import numpy as np
from cxredge.compress.family import for_tensorrt
from cxredge.compress.quantize import quantize
from cxredge.devices import peak_rss_mb
kind, graph, out, films = sys.argv[1:]
planes = np.random.default_rng(0).integers(0, 256, (int(films), 1, 64, 64), dtype=np.uint8)
if kind == "portable":
    quantize(Path(graph), Path(out), planes, percentile=99.9)
else:
    for_tensorrt(Path(graph), Path(out), planes)
print(peak_rss_mb())
"""


@pytest.mark.parametrize(("kind", "in_float"), [("portable", 1), ("tensorrt", 4)])
def test_calibration_takes_no_more_memory_for_more_films(kind: str, in_float: int, tmp_path: Path) -> None:
    network = untrained(3)
    gate = fit_gate(features(network, patches(8)), 4)
    export(Contract(Trunk(network), head_for(network, [0, 1]), gate), 64, tmp_path / "fp32.onnx")
    peaks = []
    for films in (13, 73):
        words = (kind, tmp_path / "fp32.onnx", tmp_path / "model.onnx", films)
        run = subprocess.run(
            [sys.executable, "-c", QUANTIZE, *map(str, words)], capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        peaks.append(float(run.stdout.split()[-1]))
        done, convolutions = quantized_convolutions(tmp_path / "model.onnx")
        assert done == convolutions - in_float
    # All activations of sixty films more would be 300 MB and more.
    assert peaks[1] < peaks[0] + 100
