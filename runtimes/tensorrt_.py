"""TensorRT 10 and 11: NVIDIA's GPUs, Jetsons among them.

The bundle carries an ONNX graph that TensorRT takes (explicit QDQ with zero point 0, or FP16); the engine itself fits one
GPU, one version and one driver, so it is built on the device at first use and kept. `tensorrt_rtx_` is the same with
TensorRT for RTX; its functions hand their library's name down to these.
"""

import re
import shutil
import sys
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cxredge.runtimes.cuda import Cuda, CudaError
from cxredge.runtimes.keep import keep, kept, key_of
from cxredge.runtimes.session import UNTUNED, Artifact, EngineError, Outputs, Settings, Tuning
from cxredge.runtimes.tensorrt_build import MAX_BATCH, build_engine, check_graph, logger_of

NAME = "tensorrt"
NEEDS = 10
JETSON = Path("/etc/nv_tegra_release")
# Jetson Linux before the first with a Python for cxredge -> its JetPack, and the one Python that its TensorRT is made for.
OLD_JETPACKS = {"R32": ("4", "3.6"), "R34": ("5", "3.8"), "R35": ("5", "3.8"), "R36": ("6", "3.10")}
EXTRA = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}


def available(library: str = NAME) -> Literal[True] | str:
    """True, or what is missing: the library, a version new enough, or a GPU."""
    try:
        trt = import_module(library)
    except (ImportError, OSError) as error:
        return f"{_title(library)} does not load ({error}); {_how_to_install(library)}"
    if library == "tensorrt" and int(str(trt.__version__).split(".")[0]) < NEEDS:
        return f"TensorRT {trt.__version__} is too old, cxredge needs {NEEDS} or newer; {_how_to_install(library)}"
    try:
        Cuda()
    except CudaError as error:
        return (
            f"{_title(library)} {trt.__version__} is installed, but no NVIDIA GPU can be used ({error});"
            " check the driver with nvidia-smi"
        )
    return True


def version(library: str = NAME) -> str:
    """Version of the library, of the CUDA driver, and the GPU: an engine belongs to all three."""
    trt = import_module(library)
    try:
        return f"{trt.__version__} ({Cuda().text})"
    except CudaError:
        return str(trt.__version__)


def compile(onnx_path: Path, profile: Settings, out: Path, library: str = NAME) -> Artifact:  # noqa: A001 - the contract's word
    """Check that TensorRT's parser takes the graph, where it is installed, and put it below `out`.

    The engine is built where it runs. Raises EngineError for a graph that the parser refuses.
    """
    del profile  # a graph fits every GPU, an engine only one
    out.mkdir(parents=True, exist_ok=True)
    if (checked := check_graph(onnx_path, library=library)) is not None and not checked.legal:
        raise EngineError(f"{onnx_path.name}: {checked.library} refuses the graph: {checked.refused[0]}")
    if (out / "model.onnx").resolve() != onnx_path.resolve():
        shutil.copyfile(onnx_path, out / "model.onnx")
    return Artifact(library, out / "model.onnx")


def load(artifact: Artifact, threads: int, tuning: Tuning = UNTUNED, library: str = NAME) -> "TensorRtSession":
    """Open a graph: take the engine that was built from it for this very GPU, version and driver, or build it now.

    Raises EngineError where the GPU cannot be used or the graph cannot be built.
    """
    del threads  # the GPU has its own
    if tuning.device not in ("", "GPU"):
        raise EngineError(f"{_title(library)} runs on the first GPU only, not on {tuning.device}")
    trt = import_module(library)
    try:
        cuda = Cuda()
        graph = artifact.path.read_bytes()
        folder = None if tuning.cache is None else tuning.cache / library
        engine = None
        name = key_of(graph, library, trt.__version__, cuda.text, MAX_BATCH)
        if (stored := kept(folder, name)) is not None:
            engine = trt.Runtime(logger_of(library)).deserialize_cuda_engine(stored)
        if engine is None:
            plan = _built_here(graph, cuda, folder, tuning, library)
            keep(folder, name, plan)
            engine = trt.Runtime(logger_of(library)).deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineError(f"{_title(library)} cannot open the engine it built; {logger_of(library).last()}")
        return TensorRtSession(trt, engine, cuda)
    except CudaError as error:
        raise EngineError(f"{_title(library)}: the GPU cannot be used ({error})") from None


def _built_here(graph: bytes, cuda: Cuda, folder: Path | None, tuning: Tuning, library: str) -> bytes:
    """Build the engine, with what earlier builds on this GPU learned about the speed of its kernels."""
    timings = key_of(b"timings", library, import_module(library).__version__, cuda.text)
    began = time.monotonic()
    tuning.say(f"Building the {_title(library)} engine for {cuda.name}, once; this can take minutes")
    plan, learned = build_engine(library, graph, timing_cache=kept(folder, timings), say=tuning.say)
    if learned:
        keep(folder, timings, learned)
    tuning.say(f"Built the {_title(library)} engine in {time.monotonic() - began:.0f} s")
    return plan


def _title(library: str) -> str:
    return {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT for RTX"}[library]


def _how_to_install(library: str) -> str:
    if not JETSON.exists():
        return f'install it: pip install "cxredge[{EXTRA[library]}]"'
    if library == "tensorrt_rtx":
        return "it is for RTX cards; a Jetson takes TensorRT"
    release = re.search(r"R\d+", JETSON.read_text(encoding="utf-8", errors="replace"))
    if old := OLD_JETPACKS.get(release[0] if release else ""):
        return (
            f"this Jetson's JetPack {old[0]} has it for Python {old[1]} only, and cxredge needs 3.11 or newer; without it the CPU"
            " reads, through ONNX Runtime. For the GPU an Orin needs JetPack 7.2 or newer, which has it for Python 3.12"
        )
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    return (
        "on a Jetson it comes with JetPack, not from pip: sudo apt install nvidia-jetpack, then make the virtual environment"
        f" with the system's python3 and --system-site-packages (this is Python {here}, JetPack 7 has it for 3.12)"
    )


class TensorRtSession:
    """An engine on the GPU, with its memory; one film at a time, further callers wait."""

    def __init__(self, trt: Any, engine: Any, cuda: Any) -> None:
        self._cuda, self._engine, self._context = cuda, engine, engine.create_execution_context()
        if self._context is None:
            raise EngineError("TensorRT cannot make room for the engine on the GPU; close what else uses it")
        self._lock = threading.Lock()
        self._stream = cuda.stream()
        self._memory: dict[str, int] = {}
        self._types: dict[str, Any] = {}
        for name in (engine.get_tensor_name(i) for i in range(engine.num_io_tensors)):
            self._types[name] = np.dtype(trt.nptype(engine.get_tensor_dtype(name)))
            shape = [MAX_BATCH if size < 0 else size for size in engine.get_tensor_shape(name)]
            self._memory[name] = cuda.allocate(int(np.prod(shape)) * self._types[name].itemsize)
            self._context.set_tensor_address(name, self._memory[name])
        self._outputs = [name for name in self._memory if name != "image"]

    def run(self, image: NDArray[np.uint8]) -> Outputs:
        """image: uint8 [N, 1, H, W] -> Outputs. Safe from several threads."""
        if image.dtype != np.uint8:
            raise ValueError(f"the network takes uint8, not {image.dtype}")
        parts = [
            self._run_some(np.ascontiguousarray(image[i : i + MAX_BATCH])) for i in range(0, len(image), MAX_BATCH)
        ]
        found = {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}
        return Outputs(found["logits"], found["cam"], found.get("atypicality"))

    def _run_some(self, image: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        with self._lock:
            # The driver keeps its current context per thread.
            self._cuda.use()
            if not self._context.set_input_shape("image", image.shape):
                raise ValueError(f"the network takes no images of {image.shape}")
            self._cuda.upload(self._memory["image"], image, self._stream)
            if not self._context.execute_async_v3(self._stream):
                raise EngineError("TensorRT could not run the engine")
            found = {}
            for name in self._outputs:
                found[name] = np.empty(tuple(self._context.get_tensor_shape(name)), self._types[name])
                self._cuda.download(found[name], self._memory[name], self._stream)
            self._cuda.wait(self._stream)
        return {name: values.astype(np.float32, copy=False) for name, values in found.items()}

    def close(self) -> None:
        """Give the GPU's memory back."""
        with self._lock:
            self._cuda.use()
            for address in self._memory.values():
                self._cuda.free(address)
            self._memory = {}
            self._context = self._engine = None
            self._cuda.free_stream(self._stream)
