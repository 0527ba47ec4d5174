"""TensorRT for RTX: NVIDIA's desktop and laptop cards from Ampere on. The same as `tensorrt_`, with its own library.

On Turing, which the library knows too, it has no float32 matrix product, and the graphs have one. It times no kernels while it
builds; it compiles them at each start, since its runtime cache cannot be tried without a card and is left alone.
"""

from pathlib import Path
from typing import Literal

from cxredge.runtimes import tensorrt_
from cxredge.runtimes.session import UNTUNED, Artifact, Settings, Tuning

NAME = "tensorrt_rtx"


def available() -> Literal[True] | str:
    """True, or what is missing: the library or a GPU."""
    return tensorrt_.available(NAME)


def version() -> str:
    """Version of the library, of the CUDA driver, and the GPU."""
    return tensorrt_.version(NAME)


def compile(onnx_path: Path, profile: Settings, out: Path) -> Artifact:  # noqa: A001 - the contract's word
    """Check that the parser takes the graph, where it is installed, and put it below `out`. Raises EngineError."""
    return tensorrt_.compile(onnx_path, profile, out, NAME)


def load(artifact: Artifact, threads: int, tuning: Tuning = UNTUNED) -> tensorrt_.TensorRtSession:
    """Open a graph with the engine built from it for this GPU. Raises EngineError."""
    return tensorrt_.load(artifact, threads, tuning, NAME)
