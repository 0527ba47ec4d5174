"""OpenVINO: Intel's processors, graphics and neural units; other x86 and Arm processors too."""

import os
import queue
import re
import sys
import threading
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cxredge.runtimes.keep import keep, kept, key_of
from cxredge.runtimes.session import UNTUNED, Artifact, EngineError, Outputs, Settings, Tuning

NAME = "openvino"


def available() -> Literal[True] | str:
    """True, or how to install it."""
    try:
        _openvino()
    except (ImportError, OSError) as error:
        return f'OpenVINO does not load ({error}); install it: pip install "cxredge[openvino]"'
    return True


def version() -> str:
    """Version of the installed library."""
    return metadata.version("openvino")


def devices() -> list[str]:
    """OpenVINO's names of the devices it can use here, such as "CPU", "GPU", "NPU"."""
    return list(_openvino().Core().available_devices)


def compile(onnx_path: Path, profile: Settings, out: Path) -> Artifact:  # noqa: A001 - the contract's word
    """Save the graph as OpenVINO's own IR, model.xml and model.bin, weights as they are; it opens faster than ONNX."""
    ov = _openvino()
    del profile  # the IR is the same for every device
    out.mkdir(parents=True, exist_ok=True)
    model = ov.Core().read_model(onnx_path)
    # OpenVINO numbers what it adds by a counter of the process; the same graph must give the same file.
    for number, node in enumerate(model.get_ordered_ops()):
        if node.get_type_name() not in {"Parameter", "Result"}:
            node.set_friendly_name(f"{node.get_type_name()}_{number}")
    ov.save_model(model, out / "model.xml", compress_to_fp16=False)
    return Artifact(NAME, out / "model.xml")


def load(artifact: Artifact, threads: int, tuning: Tuning = UNTUNED) -> "OpenVinoSession":
    """Open an IR or an ONNX graph. What is compiled for this machine is kept in `tuning.cache`.

    Raises EngineError for a device that is not there, or a graph it cannot run.
    """
    core = _openvino().Core()
    device = tuning.device or "CPU"
    if device.split(".")[0] not in {name.split(".")[0] for name in core.available_devices}:
        raise EngineError(
            f"OpenVINO finds no {device} here, only {', '.join(core.available_devices)}; check its driver"
        )
    lanes = max(1, _cores() // threads) if device == "CPU" else 1
    try:
        return OpenVinoSession(core, artifact.path, device, _options(device, threads), tuning.cache, lanes)
    except RuntimeError as error:
        raise EngineError(_reason(error)) from error


def _reason(error: RuntimeError) -> str:
    """The first line of the library's message that tells what happened; those before it name its own source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    own = re.compile(r"Exception from |Check '.*' failed at ")
    return next((line for line in lines if not own.match(line)), lines[0] if lines else type(error).__name__)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _options(device: str, threads: int) -> dict[str, object]:
    """Latency first, float32 between the 8-bit layers: bfloat16, the default on new processors, moves logits by up to 0.4."""
    options: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if device == "CPU":
        # Without streams the calling thread computes itself and need not wake another; that goes with one thread only.
        options |= {"NUM_STREAMS": 0 if threads == 1 else 1, "INFERENCE_NUM_THREADS": threads}
        # Pinned, threads that share all cores keep in step. Fewer are better moved: beside another session they would
        # both be pinned to the same core, and wait for it while the next one idles.
        options |= {"ENABLE_CPU_PINNING": threads > 1 and threads >= _cores()}
    elif device.startswith("NPU"):
        # The neural unit computes in float16 and knows no other hint.
        options["INFERENCE_PRECISION_HINT"] = "f16"
    return options


def _openvino() -> Any:
    """The library, without its telemetry: its import alone reports to its maker unless that package is missing."""
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    known = sys.modules.get("openvino_telemetry")
    # None makes an import fail.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        del sys.modules["openvino_telemetry"]
        if known is not None:
            sys.modules["openvino_telemetry"] = known
    return openvino


class _Lane:
    """A graph compiled for one film, with its memory looked up once: half the overhead of a plain call. For one caller."""

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        self._request = compiled.create_infer_request()
        self._image = self._request.input_tensors[0].data
        # An output may have other names besides ours: of what was folded into it.
        views = {name: self._request.get_tensor(out).data for out in compiled.outputs for name in out.names}
        self._logits, self._cam, self._atypicality = views["logits"], views["cam"], views.get("atypicality")

    def run(self, image: NDArray[np.uint8]) -> Outputs:
        if image.shape != self._image.shape:
            raise ValueError(f"the network takes images of {self._image.shape}, not {image.shape}")
        np.copyto(self._image, image, casting="no")
        # `infer` would look up every output anew and wrap it: 0.02 ms.
        self._request.start_async(share_inputs=True)
        self._request.wait()
        # The next film's results are written into the same memory.
        atypicality = None if self._atypicality is None else self._atypicality.copy()
        return Outputs(self._logits.copy(), self._cam.copy(), atypicality)


class OpenVinoSession:
    """A graph opened by OpenVINO: compiled for one film, and for any number once that is asked for.

    A compiled graph serves one caller at a time, so callers that come together get one each, up to `lanes`.
    """

    def __init__(
        self, core: Any, path: Path, device: str, options: dict[str, object], cache: Path | None, lanes: int
    ) -> None:
        self._core, self._path, self._device, self._options = core, path, device, options
        self._blob: bytes | None = None
        self._free: queue.SimpleQueue[_Lane] = queue.SimpleQueue()
        self._left = lanes - 1
        self._free.put(_Lane(self._compile_for_one(cache)))
        self._any: Any = None
        self._lock = threading.Lock()

    def run(self, image: NDArray[np.uint8]) -> Outputs:
        """image: uint8 [N, 1, H, W] -> Outputs. Safe from several threads."""
        if len(image) != 1:
            return self._run_many(image)
        try:
            lane = self._free.get_nowait()
        except queue.Empty:
            lane = self._another()
        try:
            return lane.run(image)
        finally:
            self._free.put(lane)

    def _another(self) -> _Lane:
        """A new lane while there may be more, else the first that comes free."""
        with self._lock:
            if self._core is None:
                raise ValueError("the session is closed")
            new = self._left > 0
            self._left -= new
        return _Lane(self._compile_for_one(None)) if new else self._free.get()

    def _run_many(self, image: NDArray[np.uint8]) -> Outputs:
        with self._lock:
            if self._any is None:
                self._any = self._core.compile_model(self._core.read_model(self._path), self._device, self._options)
        results = self._any.create_infer_request().infer([image])
        found = {name: results[out] for out in self._any.outputs for name in out.names}
        return Outputs(found["logits"], found["cam"], found.get("atypicality"))

    def layers(self) -> list[tuple[str, str, str]]:
        """Kind, precision and name of every layer as this machine computes it, such as ("Convolution", "u8", "stem/Conv")."""
        lane = self._free.get()
        try:
            compiled = lane.compiled.get_runtime_model()
        finally:
            self._free.put(lane)
        return [
            (
                *(str(op.get_rt_info()[key].astype(str)) for key in ("layerType", "runtimePrecision")),
                op.get_friendly_name(),
            )
            for op in compiled.get_ordered_ops()
        ]

    def close(self) -> None:
        """Give the engine's memory back."""
        self._free = queue.SimpleQueue()
        self._core = self._any = self._blob = None

    def _compile_for_one(self, cache: Path | None) -> Any:
        """A fixed shape is a tenth faster on the CPU, and the only one that some neural units take."""
        if self._blob is not None:
            return self._core.import_model(self._blob, self._device, self._options)
        core, device = self._core, self._device
        exports = "EXPORT_IMPORT" in core.get_property(device, "OPTIMIZATION_CAPABILITIES")
        folder = cache / NAME if cache and exports else None
        name = key_of(
            self._graph(),
            version(),
            device,
            core.get_property(device, "FULL_DEVICE_NAME"),
            sorted(self._options.items()),
        )
        if (blob := kept(folder, name)) is not None:
            # A processor of the same name may lack instructions that it was compiled for (virtual machines): then it is refused.
            with suppress(RuntimeError):
                compiled = core.import_model(blob, device, self._options)
                self._blob = blob
                return compiled
        model = core.read_model(self._path)
        model.reshape([1, *list(model.input().partial_shape)[1:]])
        compiled = core.compile_model(model, device, self._options)
        if exports:
            self._blob = compiled.export_model().getvalue()
            keep(folder, name, self._blob)
        return compiled

    def _graph(self) -> bytes:
        """Everything that the graph consists of."""
        weights = self._path.with_suffix(".bin")
        return self._path.read_bytes() + (weights.read_bytes() if self._path.suffix == ".xml" else b"")
