"""DenseNet121 without norms between its concatenations: the same logits, integers from stem to head."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from house import FILMS
from numpy.typing import NDArray

from cxredge.compress.export import Contract, Trunk, export, head_for
from cxredge.compress.feature_distance import FeatureDistance, fit_feature_distance
from cxredge.compress.fused import Fused, fused
from cxredge.compress.integer_concat import share_grid
from cxredge.compress.preactivation import absorb_norms, standardized
from cxredge.compress.quantize import quantize
from cxredge.compress.quantize_aware import export_int8, train_quantized
from cxredge.compress.recipe import QuantizationAware
from cxredge.imaging import Preprocessing, read_film
from cxredge.runtimes import Artifact, runtime
from cxredge.train.network import FilmNetwork

SIZE = 64


@pytest.fixture(scope="module")
def films() -> NDArray[np.uint8]:
    files = sorted((FILMS / "chestxray14" / "images").glob("*.jpg"))[:12]
    return np.stack([read_film(file, Preprocessing(size=SIZE)).image for file in files])


@pytest.fixture(scope="module")
def network(films: NDArray[np.uint8]) -> FilmNetwork:
    """Untrained, its norms settled on films, with scales of either sign and some of nothing."""
    torch.manual_seed(0)
    network = FilmNetwork("densenet121", 3)
    norms = [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = None
            norm.weight.uniform_(0.5, 1.5)
            norm.weight[::9] *= -0.2
            norm.weight[4::31] = 0
            norm.bias.uniform_(-0.5, 0.5)
        for _ in range(2):
            network(torch.from_numpy(films))
    return network.eval()


@pytest.fixture(scope="module")
def gate() -> FeatureDistance:
    return fit_feature_distance(np.random.default_rng(0).normal(size=(64, 512)).astype(np.float32), 8)


def test_absorbed_norms_change_neither_logits_nor_distances(
    network: FilmNetwork, gate: FeatureDistance, films: NDArray[np.uint8], tmp_path: Path
) -> None:
    absorbed = absorb_norms(network)
    assert sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in absorbed.modules()) == 1
    told = []
    for name, form, its_gate in (("plain", network, gate), ("absorbed", absorbed, standardized(network, gate))):
        export(Contract(Trunk(form), head_for(form, [0, 1, 2]), its_gate), SIZE, tmp_path / f"{name}.onnx")
        told.append(runtime("onnxruntime").load(Artifact("onnxruntime", tmp_path / f"{name}.onnx"), 1).run(films))
    assert np.allclose(told[0].logits, told[1].logits, atol=1e-4)
    assert told[0].atypicality == pytest.approx(told[1].atypicality, rel=1e-3)


def test_every_convolution_but_stem_and_head_is_fused_and_concatenations_stay_integers(
    network: FilmNetwork, gate: FeatureDistance, films: NDArray[np.uint8], tmp_path: Path
) -> None:
    absorbed = absorb_norms(network)
    plain, out = tmp_path / "plain.onnx", tmp_path / "int8" / "model.onnx"
    export(Contract(Trunk(absorbed), head_for(absorbed, [0, 1, 2]), standardized(network, gate)), SIZE, plain)
    out.parent.mkdir()
    quantize(plain, out, films, percentile=99.99, float_layers=[0])
    assert share_grid(out) == 58 + 3
    _integers_throughout(out)
    full, small = (runtime("onnxruntime").load(Artifact("onnxruntime", path), 1).run(films) for path in (plain, out))
    assert np.abs(full.logits - small.logits).mean() < 0.1 * max(1.0, float(full.logits.std()))
    through = runtime("openvino").load(Artifact("openvino", out), 1)
    alike = np.concatenate([through.run(film[None]).logits for film in films[:4]])
    assert np.abs(alike - small.logits[:4]).mean() < 0.05


def test_training_through_the_rounding_keeps_the_grid(
    network: FilmNetwork, gate: FeatureDistance, films: NDArray[np.uint8], tmp_path: Path
) -> None:
    recipe = QuantizationAware(epochs=1, batch_size=6, calibration_films=8, learning_rate=1e-5)
    head = head_for(network, [0, 1, 2])
    trunk, head = train_quantized(network, head, films, recipe, checkpoint=tmp_path / "aware.ckpt")
    out = tmp_path / "model.onnx"
    export_int8(trunk, head, standardized(network, gate), SIZE, out)
    _integers_throughout(out)
    with torch.no_grad():
        simulated = head(trunk(torch.from_numpy(films))[1]).mean((2, 3)).numpy()
    told = runtime("onnxruntime").load(Artifact("onnxruntime", out), 1).run(films).logits
    # An untrained network passes every rounding on: two engines are half of that apart in the very same graph, and what training
    # through the rounding ends with differs from processor to processor (0.966 to 0.98).
    assert np.abs(told - simulated).mean() < 0.1
    assert np.corrcoef(told.ravel(), simulated.ravel())[0, 1] > 0.95


def _integers_throughout(graph: Path) -> None:
    assert fused("onnxruntime", graph) == Fused(119, 121, ("trunk/conv0", "head"))
    assert fused("openvino", graph) == Fused(119, 121, ("trunk/conv0", "head"))
    model = onnx.load(graph)
    maker = {name: node.op_type for node in model.graph.node for name in node.output}
    joined = [node for node in model.graph.node if node.op_type == "Concat" and len(node.input) > 1]
    assert len(joined) == 58
    assert all(maker[name] == "QuantizeLinear" for node in joined for name in node.input)
    assert sum(node.op_type == "BatchNormalization" for node in model.graph.node) <= 1
