"""ONNX Runtime on the CPU: the engine that runs everywhere."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cxredge.runtimes.session import UNTUNED, Artifact, EngineError, Outputs, Settings, Tuning

NAME = "onnxruntime"


def available() -> Literal[True] | str:
    """True, or how to install it."""
    try:
        import onnxruntime  # noqa: F401 - the import is the question
    except (ImportError, OSError) as error:
        return f"ONNX Runtime does not load ({error}); install it: pip install onnxruntime"
    return True


def version() -> str:
    """Version of the installed library."""
    import onnxruntime

    return str(onnxruntime.__version__)


def compile(onnx_path: Path, profile: Settings, out: Path) -> Artifact:  # noqa: A001 - the contract's word
    """Fold what can be folded ahead of time and save the graph; still portable, smaller and quicker to open.

    Only basic optimisations are saved: the deeper ones are made for the processor at hand and redone at load.
    """
    import onnxruntime as ort

    del profile  # the saved graph is the same for every CPU
    out.mkdir(parents=True, exist_ok=True)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(out / onnx_path.name)
    options.log_severity_level = 3
    ort.InferenceSession(str(onnx_path), options, providers=["CPUExecutionProvider"])
    return Artifact(NAME, out / onnx_path.name)


def load(artifact: Artifact, threads: int, tuning: Tuning = UNTUNED) -> "OrtSession":
    """Open a graph. Raises onnxruntime's own exceptions for a graph it cannot run, EngineError for a device but the CPU."""
    import onnxruntime as ort

    if tuning.device not in ("", "CPU"):
        raise EngineError(f"cxredge runs ONNX Runtime on the CPU, not on {tuning.device}")

    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin while they wait warm a laptop and drain its battery.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if tuning.spinning else "0")
    options.enable_cpu_mem_arena = tuning.arena
    options.log_severity_level = 3
    return OrtSession(ort.InferenceSession(_handed_over(artifact.path), options, providers=["CPUExecutionProvider"]))


def _handed_over(graph: Path) -> str | bytes:
    """The graph's path; its content where the path is no UTF-8, which the library does not take (sticks of other systems)."""
    try:
        str(graph).encode()
    except UnicodeEncodeError:
        return graph.read_bytes()
    return str(graph)


class OrtSession:
    """A graph opened by ONNX Runtime."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._names = [output.name for output in session.get_outputs()]
        # An input with a default, which need not be given.
        self.takes_metadata = any(given.name == "metadata" for given in session.get_overridable_initializers())

    def run(self, image: NDArray[np.uint8], metadata: NDArray[np.float32] | None = None) -> Outputs:
        """image: uint8 [N, 1, H, W] -> Outputs. metadata: float32 [N, 6], where the graph takes it. Safe from several threads."""
        given: dict[str, NDArray[Any]] = {"image": image}
        if metadata is not None:
            given["metadata"] = metadata
        found = dict(zip(self._names, self._session.run(self._names, given), strict=True))
        return Outputs(found["logits"], found["cam"], found.get("atypicality"))

    def close(self) -> None:
        """Give the engine's memory back."""
        self._session = None
