"""Engines that run a network, one module each, alike enough to be read side by side.

Each module has `NAME`, `available()`, `compile()` and `load()`; its library is imported inside those functions only.
"""

from importlib import import_module
from typing import cast

from cxredge.runtimes.session import (
    MOST_THREADS,
    UNTUNED,
    Artifact,
    EngineError,
    MetadataSession,
    Outputs,
    Runtime,
    Session,
    Settings,
    Tuning,
)

# Name as manifests and the command line say it -> module. One line more is one engine more.
MODULES = {
    "onnxruntime": "cxredge.runtimes.onnxruntime_",
    "openvino": "cxredge.runtimes.openvino_",
    "tensorrt": "cxredge.runtimes.tensorrt_",
    "tensorrt_rtx": "cxredge.runtimes.tensorrt_rtx_",
}


def runtime(name: str) -> Runtime:
    """The engine of that name. Raises KeyError for a name that is none."""
    return cast(Runtime, import_module(MODULES[name]))


__all__ = [
    "MODULES",
    "MOST_THREADS",
    "UNTUNED",
    "Artifact",
    "EngineError",
    "MetadataSession",
    "Outputs",
    "Runtime",
    "Session",
    "Settings",
    "Tuning",
    "runtime",
]
