"""Any model on any engine behind one contract; light to import, so that a measured process holds little else."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cxredge.errors import RuntimeMissingError
from cxredge.runtimes import MODULES, Artifact, Outputs, Session, runtime

if TYPE_CHECKING:
    from cxredge.train.network import FilmNetwork

TORCH = "torch"


def engines(path: Path) -> dict[str, str]:
    """Engines that can run this model: name -> "" where it runs here, else why not. path: an ONNX file or a run's folder."""
    told = {name: True if name == TORCH else runtime(name).available() for name in _possible(path)}
    return {name: "" if reason is True else str(reason) for name, reason in told.items()}


def _possible(path: Path) -> list[str]:
    return [TORCH] if path.is_dir() else list(MODULES)


def import_engine(name: str) -> None:
    """Load an engine's library now, so that its time and memory can be told from the model's. Raises RuntimeMissingError."""
    if name == TORCH:
        import torch  # noqa: F401 - loading it is the point
    elif (reason := runtime(name).available()) is not True:
        raise RuntimeMissingError(reason)


def engine_version(name: str) -> str:
    """`onnxruntime 1.31.1`."""
    if name == TORCH:
        from importlib.metadata import version

        return f"{name} {version('torch')}"
    return f"{name} {runtime(name).version()}"


def open_engine(path: Path, name: str, threads: int, scratch: Path) -> Session:
    """A model ready to run. path: an ONNX file, OpenVINO's IR or a run's folder. scratch: a folder for what the engine compiles.

    Raises RuntimeMissingError for an engine that is unknown, not installed here, or cannot run this kind of model.
    """
    if path.is_dir() != (name == TORCH) or name not in {TORCH, *MODULES}:
        raise RuntimeMissingError(f"{path}: no engine {name!r} for it; there is {', '.join(_possible(path))}")
    # Only this engine is asked: asking loads its library, and another's would stay in memory.
    import_engine(name)
    if name == TORCH:
        return TorchSession(path, threads)
    engine = runtime(name)
    # What cxredge writes is already in the form that ONNX Runtime loads fastest; other engines compile it here.
    if name == "onnxruntime":
        return engine.load(Artifact(name, path), threads)
    if path.suffix == ".xml":
        return engine.load(Artifact(name, path), threads)
    from cxredge.devices import read_profile

    return engine.load(engine.compile(path, read_profile("generic"), scratch), threads)


class TorchSession:
    """A run's network in PyTorch on the CPU, in full precision."""

    def __init__(self, run: Path, threads: int) -> None:
        import torch

        from cxredge.train.network import load_network

        torch.set_num_threads(threads)
        self._torch = torch
        self._network: FilmNetwork | None = load_network(run)[0]
        self.takes_metadata = self._network.metadata is not None

    def run(self, image: NDArray[np.uint8], metadata: NDArray[np.float32] | None = None) -> Outputs:
        """image: uint8 [N, 1, H, W] -> Outputs, without a distance from the training films: a run has no gate.

        metadata: float32 [N, 6], see `train.metadata`, where the network takes it.
        """
        if self._network is None:
            raise ValueError("the session is closed")
        with self._torch.inference_mode():
            cam = self._network.head(self._network.maps(self._torch.from_numpy(np.ascontiguousarray(image))))
            logits = cam.mean((2, 3))
            if metadata is not None and self._network.metadata is not None:
                logits = logits + self._network.metadata(self._torch.from_numpy(metadata))
        return Outputs(logits.numpy(), cam.numpy(), None)

    def close(self) -> None:
        """Give its memory back."""
        self._network = None
