"""One class-free record per peer: how it is prepared once, and how it is opened in the measured process.

Each peer takes uint8 films as cxredge's own preprocessing gives them, [N, 1, H, W], unless it says otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Planes = NDArray[np.uint8]
Ask = Callable[[NDArray[Any]], NDArray[np.float32]]
SIZE = 224


@dataclass(frozen=True)
class Start:
    """What every peer starts from. bundle: its folder or name. full: its full-precision parent as ONNX. calibration: training
    films [N, 1, H, W]."""

    bundle: str
    full: Path
    calibration: Planes


@dataclass(frozen=True)
class Peer:
    """prepare: writes below a folder and returns the file to open; library: import of the engine; open: file, threads -> ask.

    read: film -> array [...], where the peer has a preprocessing of its own. accurate: whether its outputs mean anything.
    """

    title: str
    prepare: Callable[[Start, Path], Path]
    library: Callable[[], object]
    open: Callable[[Path, int], Ask]
    read: Callable[[str], NDArray[Any]] | None = None
    accurate: bool = True


TWICE = "twice"

# --- PyTorch -----------------------------------------------------------------------------------------------------------


def _network(start: Start) -> Any:
    """The parent read back into PyTorch, batch norms and all."""
    from cxredge.bundle import open_bundle
    from cxredge.train.bundled import network_of

    bundle = open_bundle(start.bundle)
    return network_of(bundle, bundle.manifest.names, start.calibration).eval()


def _file(start: Start, out: Path, suffix: str) -> Path:
    """Where a PyTorch peer keeps its weights; the name says whether they read a film and its mirror image, as the bundle does."""
    from cxredge.bundle import open_bundle

    twice = open_bundle(start.bundle).manifest.training.recipe.get("mirrored", False)
    return out / f"{TWICE if twice else 'once'}{suffix}"


def _traced(start: Start, out: Path) -> Path:
    import torch

    with torch.inference_mode(False), torch.no_grad():
        traced = torch.jit.trace(_network(start), torch.zeros(1, 1, SIZE, SIZE, dtype=torch.uint8))
    file = _file(start, out, ".pt")
    torch.jit.save(torch.jit.freeze(traced), str(file))
    return file


def _keep_eager(start: Start, out: Path) -> Path:
    from safetensors.torch import save_file

    file = _file(start, out, ".safetensors")
    save_file(_network(start).state_dict(), file)
    return file


def _import_torch() -> None:
    import torch  # noqa: F401 - loading it is the point


def _open_eager(path: Path, threads: int) -> Ask:
    import torch
    from safetensors.torch import load_file

    from cxredge.train.network import FilmNetwork

    torch.set_num_threads(threads)
    weights = load_file(path)
    network = FilmNetwork("mobilenet_v2", len(weights["head.bias"])).eval()
    network.load_state_dict(weights)
    return _ask_torch(network, twice=path.stem == TWICE)


def _open_traced(path: Path, threads: int) -> Ask:
    import torch

    torch.set_num_threads(threads)
    # Optimised after loading: what that step makes cannot be saved.
    return _ask_torch(torch.jit.optimize_for_inference(torch.jit.load(str(path))), twice=path.stem == TWICE)


def _ask_torch(network: Any, *, twice: bool = False) -> Ask:
    import torch

    def ask(image: NDArray[Any]) -> NDArray[np.float32]:
        films = torch.from_numpy(np.ascontiguousarray(image))
        with torch.inference_mode():
            said = network(torch.cat([films, films.flip(3)]) if twice else films)
            found: NDArray[np.float32] = (said.unflatten(0, (2, -1)).mean(0) if twice else said).numpy()
        return found

    return ask


# --- ONNX Runtime, its quantization tool, and Olive on top of it ---------------------------------------------------------


class Reader:
    """Calibration films, one at a time, as ONNX Runtime's tools want them."""

    def __init__(self, planes: Planes) -> None:
        self._planes = planes
        self.rewind()

    def get_next(self) -> dict[str, Planes] | None:
        return next(self._left, None)

    def rewind(self) -> None:
        self._left = iter([{"image": plane[None]} for plane in self._planes])


def _quantized_by_ort(start: Start, out: Path, **options: bool) -> Path:
    from onnxruntime.quantization import quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(str(start.full), str(out / "prepared.onnx"), skip_symbolic_shape=True)
    quantize_static(str(out / "prepared.onnx"), str(out / "model.onnx"), Reader(start.calibration), **options)
    return out / "model.onnx"


def _quantized_by_olive(start: Start, out: Path) -> Path:
    from olive import run
    from olive.data.registry import Registry

    def films(**_: Any) -> Any:
        class Pairs:
            def __len__(self) -> int:
                return len(start.calibration)

            def __getitem__(self, index: int) -> Any:
                return {"image": start.calibration[index][None]}, 0

        return Pairs()

    Registry.register_dataset("cxredge_films")(films)
    run({
        "input_model": {"type": "ONNXModel", "model_path": str(start.full)},
        "data_configs": [{"name": "films", "type": "DummyDataContainer", "load_dataset_config": {"type": "cxredge_films"},
                          "dataloader_config": {"batch_size": 1}}],
        "passes": {"quantize": {"type": "OnnxStaticQuantization", "data_config": "films"}},
        "output_dir": str(out / "olive"), "cache_dir": str(out / "cache"), "log_severity_level": 3,
    })  # fmt: skip
    found: Path = next((out / "olive").rglob("*.onnx"))
    return found


def _import_ort() -> None:
    import onnxruntime  # noqa: F401 - loading it is the point


def _open_ort(path: Path, threads: int) -> Ask:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(["logits"], {"image": image})[0]


# --- OpenVINO and NNCF ---------------------------------------------------------------------------------------------------


def _quantized_by_nncf(start: Start, out: Path) -> Path:
    import nncf
    import openvino

    films = nncf.Dataset([plane[None] for plane in start.calibration])
    quantized = nncf.quantize(openvino.Core().read_model(start.full), films, subset_size=len(start.calibration))
    openvino.save_model(quantized, out / "model.xml")
    return out / "model.xml"


def _import_openvino() -> None:
    import openvino  # noqa: F401 - loading it is the point


def _open_openvino(path: Path, threads: int) -> Ask:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()
    # As cxredge's own sessions do, each answer is a copy that a later query leaves alone.
    return lambda image: np.array(request.infer({"image": image})["logits"])


# --- torchxrayvision -----------------------------------------------------------------------------------------------------


def _xrayvision(start: Start, out: Path) -> Path:
    del start  # it has a network of its own
    import torch

    network = _import_xrayvision().models.DenseNet(weights=None, num_classes=18, in_channels=1)
    torch.save(network.state_dict(), out / "network.pt")
    return out / "network.pt"


def _import_xrayvision() -> Any:
    from cxredge.train.torchvision_guard import import_torchvision

    # It imports torchvision, which beside a CPU-only torch needs a hand.
    import_torchvision()
    import torchxrayvision

    return torchxrayvision


def _open_xrayvision(path: Path, threads: int) -> Ask:
    import torch

    torch.set_num_threads(threads)
    network = _import_xrayvision().models.DenseNet(weights=None, num_classes=18, in_channels=1).eval()
    network.load_state_dict(torch.load(path, weights_only=True))
    return _ask_torch(network)


def _read_xrayvision(film: str) -> NDArray[Any]:
    """As its documentation says: grey to -1024..1024, centre crop, resize to 224. -> float32 [1, 224, 224]."""
    import skimage.io

    torchxrayvision = _import_xrayvision()
    image = skimage.io.imread(film)
    image = torchxrayvision.datasets.normalize(image if image.ndim == 2 else image.mean(2), 255)
    crop, resize = torchxrayvision.datasets.XRayCenterCrop(), torchxrayvision.datasets.XRayResizer(SIZE)
    return resize(crop(image[None])).astype(np.float32)  # type: ignore[no-any-return]


PEERS = {
    "torch": Peer("PyTorch, eager, FP32", _keep_eager, _import_torch, _open_eager),
    "torchscript": Peer(
        "torchvision + TorchScript, FP32", _traced, _import_torch, _open_traced
    ),
    "ort_fp32": Peer("ONNX Runtime, FP32", lambda start, _: start.full, _import_ort, _open_ort),
    "ort_quantization": Peer("ONNX Runtime quantization alone, INT8", _quantized_by_ort, _import_ort, _open_ort),
    "ort_per_channel": Peer(
        "the same, per channel and 7-bit weights as its guide advises, INT8",
        lambda start, out: _quantized_by_ort(start, out, per_channel=True, reduce_range=True), _import_ort, _open_ort,
    ),
    "olive": Peer("Olive static quantization, INT8", _quantized_by_olive, _import_ort, _open_ort),
    "nncf_ptq": Peer("NNCF PTQ + OpenVINO, INT8", _quantized_by_nncf, _import_openvino, _open_openvino),
    "xrayvision": Peer(
        "torchxrayvision DenseNet121, FP32", _xrayvision, _import_xrayvision, _open_xrayvision, _read_xrayvision, False
    ),
}  # fmt: skip
