"""Both of the clinic's networks in TensorRT's form of INT8: parsed and built without a GPU, and without a complaint."""

from pathlib import Path

import numpy as np
import pytest
import torch
from onnxruntime.quantization.shape_inference import quant_pre_process

from cxredge.compress.export import Contract, Trunk, export, head_for
from cxredge.compress.feature_distance import fit_feature_distance
from cxredge.compress.symmetric import FLOAT_LAYERS, quantize_symmetric
from cxredge.runtimes.tensorrt_build import check_graph
from cxredge.train.network import FilmNetwork

LIBRARY = "tensorrt_rtx"
pytest.importorskip(LIBRARY, reason="an extra: pip install cxredge[tensorrt-rtx]")
SIZE = 64


@pytest.mark.parametrize(
    ("architecture", "halfway", "convolutions", "mirrored"),
    [("mobilenet_v2", 96, 53, True), ("densenet121", 512, 121, False)],
)
def test_the_library_builds_it_and_warns_of_nothing(
    architecture: str, halfway: int, convolutions: int, mirrored: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = FilmNetwork(architecture, 3).eval()
    pooled = np.random.default_rng(0).normal(size=(64, halfway)).astype(np.float32)
    gate = fit_feature_distance(pooled, 4)
    contract = Contract(Trunk(network), head_for(network, [0, 1, 2]), gate, mirrored=mirrored)
    export(contract, SIZE, tmp_path / "plain.onnx")
    quant_pre_process(str(tmp_path / "plain.onnx"), str(tmp_path / "folded.onnx"), skip_symbolic_shape=True)
    films = np.random.default_rng(0).integers(0, 256, (2, 1, SIZE, SIZE), dtype=np.uint8)
    quantize_symmetric(tmp_path / "folded.onnx", tmp_path / "model.onnx", films, weight_bits=8, quantize_bias=False)
    checked = check_graph(tmp_path / "model.onnx", ["8.6"], LIBRARY)
    assert checked is not None
    assert checked.legal, checked.refused
    assert checked.built == {"8.6": "8.6"}
    # In float by choice: the first convolutions, and the head.
    chosen = FLOAT_LAYERS + 1
    assert checked.convolutions == {"int8": convolutions - chosen, "fp32": chosen}
    # That choice is all there is to say: the library itself has no word on precision, or on anything.
    assert checked.warnings == (f"{chosen} of {convolutions} convolutions stay in FP32",)
