"""The exported graph keeps the network's contract, mirrored and quantized too."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from untrained import patches, untrained

from cxredge.compress.export import Contract, Trunk, export, head_for
from cxredge.compress.feature_distance import FeatureDistance, fit_feature_distance
from cxredge.compress.fused import Fused, fused
from cxredge.compress.quantize import quantize, quantized_convolutions
from cxredge.train.network import FilmNetwork


@pytest.fixture(scope="module")
def gate() -> FeatureDistance:
    return fit_feature_distance(np.random.default_rng(0).normal(size=(64, 96)).astype(np.float32), 8)


@pytest.fixture(scope="module")
def graph(gate: FeatureDistance, tmp_path_factory: pytest.TempPathFactory) -> tuple[FilmNetwork, Path]:
    network = untrained(5)
    path = tmp_path_factory.mktemp("graph") / "fp32.onnx"
    export(Contract(Trunk(network), head_for(network, [1, 3]), gate), 64, path)
    return network, path


def test_the_graph_gives_the_networks_logits_for_the_findings_carried(graph: tuple[FilmNetwork, Path]) -> None:
    network, path = graph
    films = patches(3, seed=31)
    logits, cam, atypicality = onnxruntime.InferenceSession(str(path)).run(
        ["logits", "cam", "atypicality"], {"image": films}
    )
    with torch.no_grad():
        assert logits.std(0).min() > 1e-3
        assert np.allclose(logits, network(torch.from_numpy(films))[:, [1, 3]].numpy(), atol=1e-4)
    assert np.allclose(cam.mean((2, 3)), logits, atol=1e-4)
    assert (atypicality > 0).all()


def test_a_mirrored_graph_gives_the_mean_of_a_film_and_its_mirror_image(
    graph: tuple[FilmNetwork, Path], gate: FeatureDistance, tmp_path: Path
) -> None:
    network, path = graph
    (tmp_path / "int8").mkdir()
    export(Contract(Trunk(network), head_for(network, [1, 3]), gate, mirrored=True), 64, tmp_path / "mirrored.onnx")
    films = patches(3, seed=31)

    def read(graph: Path, films: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        session = onnxruntime.InferenceSession(str(graph))
        return session.run(["logits", "cam", "atypicality"], {"image": np.ascontiguousarray(films)})

    plain, turned, both = read(path, films), read(path, films[..., ::-1]), read(tmp_path / "mirrored.onnx", films)
    turned[1] = turned[1][..., ::-1]
    assert np.abs(plain[0] - turned[0]).max() > 1e-3
    for one, other, mean in zip(plain, turned, both, strict=True):
        np.testing.assert_allclose(mean, (one + other) / 2, atol=1e-4)
    quantize(tmp_path / "mirrored.onnx", tmp_path / "int8" / "model.onnx", films, percentile=99.9)
    assert quantized_convolutions(tmp_path / "int8" / "model.onnx") == (52, 53)
    assert fused("onnxruntime", tmp_path / "int8" / "model.onnx") == Fused(52, 53, ("head",))


def test_batch_norms_are_folded_and_the_head_stays_in_float(graph: tuple[FilmNetwork, Path], tmp_path: Path) -> None:
    _, path = graph
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(path).graph.node}
    films = patches(16, seed=31)
    (tmp_path / "int8").mkdir()
    quantize(path, tmp_path / "int8" / "model.onnx", films, percentile=99.9)
    assert quantized_convolutions(tmp_path / "int8" / "model.onnx") == (52, 53)
    model = onnx.load(tmp_path / "int8" / "model.onnx")
    weights = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    # Seven bits: with eight, 16-bit sums overflow on x86 processors without VNNI.
    assert max(int(np.abs(w.astype(np.int16)).max()) for w in weights if w.ndim == 4) <= 64


def test_every_convolution_is_fused_in_onnx_runtime(bundle, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(bundle.model), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert kinds.count("QLinearConv") == quantized_convolutions(bundle.model)[0] == 49
