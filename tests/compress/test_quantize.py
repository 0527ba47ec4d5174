"""Post-training quantization: how much memory its calibration takes, and which convolutions an engine computes in 8 bits."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from untrained import patches, untrained

from cxredge.compress.export import Contract, Trunk, export, head_for
from cxredge.compress.feature_distance import features, fit_feature_distance
from cxredge.compress.fused import Fused, fused
from cxredge.compress.quantize import quantize, quantized_convolutions
from cxredge.train.network import FilmNetwork

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
    gate = fit_feature_distance(features(network, patches(8)), 4)
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


def test_a_layer_in_float_is_named_though_its_module_is_called_conv2d(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, films = FilmNetwork("inception_v3", 2).eval(), patches(8).repeat(2, 2).repeat(2, 3)
    gate = fit_feature_distance(features(network, films), 4)
    export(Contract(Trunk(network), head_for(network, [0, 1]), gate), 128, tmp_path / "fp32.onnx")
    quantize(tmp_path / "fp32.onnx", tmp_path / "model.onnx", films, percentile=99.9, float_layers=[0])
    for engine in ("onnxruntime", "openvino"):
        assert fused(engine, tmp_path / "model.onnx") == Fused(93, 95, ("trunk/Conv2d_1a_3x3/conv", "head"))
