"""The contract every engine keeps."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

# No machine has more cores; an engine asked for some thousands never comes back, and cannot be interrupted either.
MOST_THREADS = 1024


class EngineError(RuntimeError):
    """An engine that is installed cannot run this graph here; the message is one line and says what to do."""


@dataclass(frozen=True)
class Outputs:
    """What a network says of N films, L findings each.

    logits: float32 [N, L]. cam: float32 [N, L, h, w], class activation maps whose mean over h, w is the logit; where age, sex and
    view were given, the logit without what they add.
    atypicality: float32 [N], distance from the training films; None where the model carries no such output.
    """

    logits: NDArray[np.float32]
    cam: NDArray[np.float32]
    atypicality: NDArray[np.float32] | None


class Session(Protocol):
    """A network ready to run. `run` may be called from several threads at once."""

    def run(self, image: NDArray[np.uint8]) -> Outputs:
        """image: uint8 [N, 1, H, W], 0 = black. The outputs are the caller's own; a later run leaves them alone."""
        ...

    def close(self) -> None:
        """Give its memory back; the session cannot be used after it."""
        ...


class MetadataSession(Protocol):
    """A session of a network that may be told age, sex and view beside the film.

    Not every engine can: OpenVINO and TensorRT take the input's default, "unknown", for a constant.
    """

    @property
    def takes_metadata(self) -> bool:
        """Whether this very graph has the input."""
        ...

    def run(self, image: NDArray[np.uint8], metadata: NDArray[np.float32] | None = None) -> Outputs:
        """metadata: float32 [N, 6], or [1, 6] for all films; the graph's own input says what its columns are."""
        ...


class Settings(Protocol):
    """What an engine needs to know of a device to compile for it; `cxredge.devices.Profile` is one."""

    @property
    def name(self) -> str: ...


@dataclass(frozen=True)
class Tuning:
    """How an engine runs on the machine at hand, besides its threads; engines ignore what does not concern them.

    device: the engine's own name of it ("CPU", "GPU", "NPU"); empty for its default. spinning: whether waiting threads keep a
    core busy. arena: whether freed memory is kept for the next film. cache: folder for what the engine compiles for this
    machine; None: nothing is kept. say: is told in one line of what takes long.
    """

    device: str = ""
    spinning: bool = False
    arena: bool = True
    cache: Path | None = None
    say: Callable[[str], None] = lambda _line: None


UNTUNED = Tuning()


@dataclass(frozen=True)
class Artifact:
    """A compiled network: which engine it is for and the file that engine loads."""

    runtime: str
    path: Path


class Runtime(Protocol):
    """What a module of this folder looks like."""

    NAME: str

    def available(self) -> Literal[True] | str:
        """True, or one line that says what is missing and how to install it."""
        ...

    def version(self) -> str:
        """The engine's version, with the driver's where it has one; a change of it calls for a new self-test."""
        ...

    def compile(self, onnx_path: Path, profile: Settings, out: Path) -> Artifact:
        """Turn a portable ONNX graph into what the engine loads fastest, below the folder `out`."""
        ...

    def load(self, artifact: Artifact, threads: int, tuning: Tuning = ...) -> Session:
        """Open a compiled network. threads: of the engine for one film, 1 or more.

        Raises EngineError, or the engine's own exceptions, for a graph it cannot run here.
        """
        ...
