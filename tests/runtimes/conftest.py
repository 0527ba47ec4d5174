"""Graphs that the engines are tried with: the shipped one, and an untrained network in the forms TensorRT takes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from house import EXAMPLES
from numpy.typing import NDArray

from cxredge.bundle import Bundle
from cxredge.compress.export import Contract, Trunk, export, head_for
from cxredge.compress.feature_distance import fit_feature_distance
from cxredge.compress.symmetric import quantize_symmetric
from cxredge.errors import FilmRefusedError
from cxredge.imaging import Preprocessing, read_film
from cxredge.runtimes import Artifact, Session, runtime
from cxredge.train.network import FilmNetwork

SIZE = 64


@pytest.fixture(scope="session")
def films(bundle: Bundle) -> NDArray[np.uint8]:
    """The example films as the shipped network sees them, uint8 [N, 1, H, W]."""
    record = bundle.manifest.preprocessing
    preprocessing = Preprocessing(size=record.size, clahe=record.clahe)
    images = []
    for path in sorted(EXAMPLES.iterdir()):
        try:
            images.append(read_film(path, preprocessing).image)
        except FilmRefusedError:
            assert path.suffix in {".csv", ".md"} or "leg" in path.name
    return np.stack(images)


@pytest.fixture(scope="session")
def load(bundle: Bundle) -> Callable[..., Session]:
    """Open the shipped portable graph with an engine."""

    def open_it(name: str, threads: int = 1, **more: object) -> Session:
        return runtime(name).load(Artifact(name, bundle.model), threads, **more)

    return open_it


@pytest.fixture(scope="session")
def float_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network in float32, small films, constants folded."""
    torch.manual_seed(0)
    network = FilmNetwork("mobilenet_v2", 3).eval()
    pooled = np.random.default_rng(0).normal(size=(64, 96)).astype(np.float32)
    path = tmp_path_factory.mktemp("graphs") / "float.onnx"
    export(Contract(Trunk(network), head_for(network, [0, 1, 2]), fit_feature_distance(pooled, 4)), SIZE, path)
    assert not any(tensor.external_data for tensor in onnx.load(path).graph.initializer)
    return path


@pytest.fixture(scope="session")
def images() -> NDArray[np.uint8]:
    """Noise as small films, more of them than a TensorRT engine takes at once."""
    return np.random.default_rng(0).integers(0, 256, (11, 1, SIZE, SIZE), dtype=np.uint8)


@pytest.fixture(scope="session")
def legal(float_graph: Path, images: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That network signed and symmetric, as TensorRT wants it."""
    out = tmp_path_factory.mktemp("legal") / "model.onnx"
    quantize_symmetric(float_graph, out, images[:2], weight_bits=8, quantize_bias=False)
    return out
