"""The contract every engine keeps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Outputs:
    """What a network says of N films, L findings each.

    logits: float32 [N, L]. cam: float32 [N, L, h, w], class activation maps whose mean over h, w is the logit.
    atypicality: float32 [N], distance from the training films; None where the model carries no such output.
    """

    logits: NDArray[np.float32]
    cam: NDArray[np.float32]
    atypicality: NDArray[np.float32] | None


class Session(Protocol):
    """A network ready to run. `run` may be called from several threads at once."""

    def run(self, image: NDArray[np.uint8]) -> Outputs:
        """image: uint8 [N, 1, H, W], 0 = black."""
        ...

    def close(self) -> None:
        """Give its memory back; the session cannot be used after it."""
        ...


class Settings(Protocol):
    """What an engine needs to know of a device; `cxredge.devices.Profile` is one."""

    @property
    def name(self) -> str: ...


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
        """The engine's version; a change of it calls for a new self-test."""
        ...

    def compile(self, onnx_path: Path, profile: Settings, out: Path) -> Artifact:
        """Turn a portable ONNX graph into what the engine loads fastest, below the folder `out`."""
        ...

    def load(self, artifact: Artifact, threads: int) -> Session:
        """Open a compiled network. threads: of the engine for one film, 1 or more."""
        ...
