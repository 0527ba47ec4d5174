"""Training through the rounding: NNCF on a folded network, to a graph that ONNX Runtime fuses."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from house import FILMS
from numpy.typing import NDArray

from cxredge.bundle import open_bundle
from cxredge.compress.export import head_for
from cxredge.compress.feature_distance import FeatureDistance, fit_feature_distance
from cxredge.compress.quantize import quantized_convolutions
from cxredge.compress.quantize_aware import export_int8, fold_batch_norms, train_quantized
from cxredge.compress.recipe import QuantizationAware
from cxredge.imaging import Preprocessing, read_film
from cxredge.train.bundled import network_of
from cxredge.train.network import FilmNetwork

RECIPE = QuantizationAware(epochs=2, batch_size=8, calibration_films=8, learning_rate=1e-4)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def network(films: NDArray[np.uint8]) -> FilmNetwork:
    """The shipped one: what rounding does to an untrained network's logits is as large as they are."""
    bundle = open_bundle("chestxray14")
    return network_of(bundle, bundle.manifest.names[:5], films).eval()


@pytest.fixture(scope="module")
def films() -> NDArray[np.uint8]:
    files = sorted((FILMS / "chestxray14" / "images").glob("*.jpg"))[:16]
    return np.stack([read_film(file, Preprocessing(size=64)).image for file in files])


@pytest.fixture(scope="module")
def gate() -> FeatureDistance:
    return fit_feature_distance(np.random.default_rng(0).normal(size=(64, 96)).astype(np.float32), 8)


@pytest.fixture(scope="module")
def quantized(
    network: FilmNetwork, films: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory
) -> tuple[torch.nn.Module, torch.nn.Conv2d]:
    checkpoint = tmp_path_factory.mktemp("aware") / "aware.ckpt"
    trained = train_quantized(network, head_for(network, [1, 3]), films, RECIPE, checkpoint=checkpoint)
    assert checkpoint.exists()
    return trained


@pytest.mark.parametrize("architecture", ["mobilenet_v2", "densenet121"])
def test_folding_changes_no_output(architecture: str, films: NDArray[np.uint8]) -> None:
    torch.manual_seed(0)
    other = FilmNetwork(architecture, 3)
    with torch.no_grad():
        other.train()(torch.from_numpy(films))
        folded = fold_batch_norms(other)
        expected = other.eval()(torch.from_numpy(films[:2]))
        assert torch.allclose(folded(torch.from_numpy(films[:2])), expected, atol=1e-4)
    left = sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in folded.modules())
    # DenseNet121 normalises before the convolution: 58 first norms of layers, 3 of transitions and the last one stay.
    assert left == {"mobilenet_v2": 0, "densenet121": 62}[architecture]


def test_every_convolution_but_the_first_and_the_head_is_quantized_and_fused(
    quantized: tuple[torch.nn.Module, torch.nn.Conv2d], gate: FeatureDistance, films: NDArray[np.uint8], tmp_path: Path
) -> None:
    trunk, head = quantized
    out = tmp_path / "model.onnx"
    export_int8(trunk, head, gate, 64, out)
    assert quantized_convolutions(out) == (51, 53)
    weights = [onnx.numpy_helper.to_array(t) for t in onnx.load(out).graph.initializer if len(t.dims) == 4]
    stored = [w for w in weights if w.dtype == np.int8]
    assert len(stored) in (51, 52)
    # Depthwise kernels sum nine products in 32 bits and may use all eight; the others sum pairs in 16 where VNNI is missing.
    assert max(int(np.abs(w.astype(np.int16)).max()) for w in stored if w.shape[1] > 1) <= 64
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(out), options, providers=["CPUExecutionProvider"])
    fused = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    assert fused.count("QLinearConv") == 51
    assert fused.count("QLinearAdd") == 10
    logits, cam = session.run(["logits", "cam"], {"image": films[:8]})
    with torch.no_grad():
        expected = head(trunk(torch.from_numpy(films[:8]))[1]).mean((2, 3)).numpy()
    assert np.abs(logits - expected).mean() < 0.05 * float(expected.std())
    assert np.allclose(cam.mean((2, 3)), logits, atol=1e-4)


def test_training_goes_on_at_the_epoch_it_was_interrupted_in(
    network: FilmNetwork, films: NDArray[np.uint8], quantized: tuple[torch.nn.Module, torch.nn.Conv2d], tmp_path: Path
) -> None:
    class PulledOut:
        """Films on a disk that is pulled out in the second epoch."""

        reads = 0

        def __len__(self) -> int:
            return len(films)

        def __getitem__(self, rows: object) -> NDArray[np.uint8]:
            self.reads += 1
            # Once to equalize, once to calibrate, then batch by batch.
            if self.reads > 2 + 3:
                raise OSError("Input/output error")
            return films[rows]

    checkpoint, head = tmp_path / "aware.ckpt", head_for(network, [1, 3])
    with pytest.raises(OSError, match="Input/output"):
        train_quantized(network, head, PulledOut(), RECIPE, checkpoint=checkpoint)  # type: ignore[arg-type]
    assert checkpoint.exists()
    _, resumed = train_quantized(network, head, films, RECIPE, checkpoint=checkpoint)
    assert torch.equal(resumed.weight, quantized[1].weight)


@pytest.mark.parametrize("left", [0.0, 0.5])
def test_a_checkpoint_that_was_cut_off_is_told_of_and_training_begins_anew(
    left: float, network: FilmNetwork, films: NDArray[np.uint8], tmp_path: Path
) -> None:
    checkpoint, told = tmp_path / "aware.ckpt", list[str]()
    recipe, head = RECIPE.model_copy(update={"epochs": 1}), head_for(network, [1, 3])
    torch.save({"epoch": 1, "more_in_float": [], "head": head.state_dict()}, checkpoint)
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: int(left * len(whole))])
    train_quantized(network, head, films, recipe, checkpoint=checkpoint, say=told.append)
    assert [line.startswith(f"{checkpoint} is damaged") for line in told] == [True]
    assert torch.load(checkpoint, weights_only=True)["epoch"] == 1
    assert [file.name for file in tmp_path.iterdir()] == [checkpoint.name]
