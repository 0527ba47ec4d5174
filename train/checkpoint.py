"""Where a run stands, to the step: what a killed run needs to end as if it had not been killed."""

import io
import pickle
import time
import zipfile
import zlib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cxredge.errors import DataError, OutputError
from cxredge.report.files import atomic_write
from cxredge.train.processes import Processes

LAST = "last.ckpt"


@dataclass
class Progress:
    """How far a run is.

    epoch: counted from 0. step: batches of it done. loss: sum over the films of those batches.
    scores: AUROC per finding at the last whole epoch. best_epoch: counted from 1, of best_score; best: its averaged weights.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)
    best_epoch: int = 0
    best_score: float = -1.0
    best: dict[str, Tensor] = field(default_factory=dict)


class Checkpoints:
    """`last.ckpt` of a run: written whole or not at all, at the latest every `minutes`."""

    def __init__(self, run: Path, minutes: float, on: Processes) -> None:
        self._file, self._seconds, self._on = run / LAST, 60 * minutes, on
        self._written = time.monotonic()

    def due(self) -> bool:
        """Whether the first process's clock says that it is time; the same answer in all processes."""
        late = time.monotonic() - self._written >= self._seconds
        if self._on.count == 1:
            return late
        told = torch.tensor([float(late and self._on.first)], device=self._on.device)
        return bool(self._on.sum(told).item())

    def write(self, parts: dict[str, Any], progress: Progress, generator: torch.Generator) -> None:
        """Replace the checkpoint. parts: modules, optimiser and schedule, by name. All processes call it; the first writes.

        Raises OutputError when the disk does not take it.
        """
        states = self._on.gather(_states(generator, self._on.device))
        if self._on.first:
            state = {name: part.state_dict() for name, part in parts.items()}
            said = {f.name: getattr(progress, f.name) for f in fields(progress)}
            try:
                with atomic_write(self._file, "wb") as out:
                    torch.save({**state, **said, "generators": states}, out)
            # What torch makes of an error of the disk.
            except RuntimeError as error:
                raise OutputError(
                    f"{self._file}: the checkpoint cannot be written ({error}); is the disk full? The one before is kept: free some"
                    " space, and the same command goes on from it"
                ) from error
        self._written = time.monotonic()

    def read(self) -> dict[str, Any] | None:
        """The checkpoint, on this process's device; None when there is none. Raises DataError for a damaged one."""
        return load_whole(self._file, self._on.device) if self._file.exists() else None

    def restore_generators(self, saved: dict[str, Any], generator: torch.Generator) -> None:
        """Augmentation and dropout go on where they stood; with another number of processes they are drawn anew."""
        states = saved.get("generators", [])
        if len(states) != self._on.count:
            return
        augmenting, dropping, *cuda = (state.cpu() for state in states[self._on.rank])
        generator.set_state(augmenting)
        torch.set_rng_state(dropping)
        if cuda and self._on.device.type == "cuda":
            torch.cuda.set_rng_state(cuda[0], self._on.device)


def load_whole(file: Path, device: torch.device) -> dict[str, Any]:
    """What `torch.save` wrote, every byte of it: torch itself takes a flipped bit for a weight. Raises DataError."""
    try:
        # Read once: what was looked at is what is loaded.
        content = io.BytesIO(file.read_bytes())
        with zipfile.ZipFile(content) as parts:
            spoilt = parts.testzip()
        content.seek(0)
        if spoilt is None:
            return dict(torch.load(content, weights_only=True, map_location=device))
    # What torch and zipfile make of a file that was cut off or spoiled.
    except (RuntimeError, EOFError, ValueError, LookupError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error):
        pass
    raise DataError(
        f"{file} is damaged, so that training cannot go on from it; delete it, and the same command begins anew"
    )


def progress_of(saved: dict[str, Any]) -> Progress:
    """How far a checkpoint is; those written before steps were counted stand at an epoch's end."""
    return Progress(**{f.name: saved[f.name] for f in fields(Progress) if f.name in saved})


def _states(generator: torch.Generator, device: torch.device) -> list[Tensor]:
    cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [generator.get_state(), torch.get_rng_state(), *cuda]
