"""What a run leaves behind: its identity, its log, its description."""

import csv
import hashlib
import json
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from cxredge import __version__
from cxredge.errors import DataError
from cxredge.report.files import atomic_write, drop_unfinished
from cxredge.train.checkpoint import LAST
from cxredge.train.lock import LOCK, locked
from cxredge.train.precision import in_words
from cxredge.train.processes import Processes
from cxredge.train.recipe import Recipe
from cxredge.train.sources import Films
from cxredge.train.tables import data_hash as data_hash
from cxredge.train.tables import validation_hash, validation_hashes
from cxredge.train.teacher import identity
from cxredge.train.validate import mean_auroc

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

# What says how a run is carried out and not what comes of it.
_INDIFFERENT = {"checkpoint_minutes"}


@contextmanager
def claim(
    run: Path, recipe: Recipe, films: Films, teachers: Sequence[Path], metadata: NDArray[np.float32] | None
) -> Iterator[None]:
    """A folder holds one run, which one process writes: going on with another recipe or other films would mix two.

    metadata: of the films, where the network learns from it. Raises DataError, also for a folder that holds something else, and
    OutputError while another process trains there.
    """
    check_free(run, "resolved.json")
    run.mkdir(parents=True, exist_ok=True)
    with locked(run):
        drop_unfinished(run)
        _begin(run, recipe, films, teachers, metadata)
        yield


def _begin(
    run: Path, recipe: Recipe, films: Films, teachers: Sequence[Path], metadata: NDArray[np.float32] | None
) -> None:
    said = {
        "recipe": recipe.model_dump(),
        "films": len(films),
        "findings": list(films.findings),
        "data_sha256": data_hash(films),
        "order_sha256": _order_hash(films),
    }
    if teachers:
        said["teachers"] = [identity(teacher) for teacher in teachers]
    if metadata is not None:
        said["metadata_sha256"] = hashlib.sha256(np.ascontiguousarray(metadata).data).hexdigest()
    stored = read_json(run / "resolved.json")
    if stored is not None and _begun(run) and not _same(stored, said):
        raise DataError(
            f"{run} holds a run of another recipe or other films, or of these in another order; choose another --output or remove"
            " that folder"
        )
    write_json(run / "resolved.json", said)
    write_splits(run, films)


def _order_hash(films: Films) -> str:
    """Films are drawn by their places: with a table sorted anew, a run that goes on would see some twice and others never."""
    named = [f"{source}/{name}" for source, name in zip(films.sources.tolist(), films.names, strict=True)]
    return hashlib.sha256("\n".join(named).encode()).hexdigest()


def read_json(file: Path) -> dict[str, Any] | None:
    """What a JSON file says; None where there is none, or only a part of one, as a power cut left it of older versions."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return None


def write_json(file: Path, said: Mapping[str, object]) -> None:
    """The whole of it, or what was there before. Raises OutputError."""
    with atomic_write(file) as out:
        json.dump(said, out, indent=1)


def write_network(run: Path, state: Mapping[str, Tensor]) -> None:
    """Write `model.safetensors`, on the disk when this returns: `run.json`, which says that a run is finished, comes after it."""
    with atomic_write(run / "model.safetensors", "wb") as out:
        out.write(save({key: value.contiguous().cpu() for key, value in state.items()}))


def check_free(run: Path, mark: str) -> None:
    """Raise DataError for a folder with something in it that no run put there. mark: the file that a run writes first."""
    if run.exists() and not run.is_dir():
        raise DataError(f"{run} is a file; choose another --output")
    others = sorted(file.name for file in run.iterdir() if file.name != LOCK) if run.is_dir() else []
    if others and not (run / mark).is_file():
        raise DataError(f"{run} holds {others[0]} and is no training run; choose another --output")


def _begun(run: Path) -> bool:
    """Whether there is anything to lose: a run that failed before its first checkpoint may be corrected and started again."""
    return any((run / name).exists() for name in (LAST, "metrics.csv", "model.safetensors", "run.json"))


def write_splits(run: Path, films: Films) -> None:
    """Write `splits.csv`: which film trains and which validates."""
    with atomic_write(run / "splits.csv") as out:
        table = csv.writer(out)
        table.writerow(["file", "source", "patient", "split"])
        table.writerows(zip(films.names, films.sources, films.patients, films.splits, strict=True))


def _same(then: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether two runs are one; what a run begun by an older version does not say is what that version did."""
    before = dict(then["recipe"])
    before.setdefault("split_seed", before.get("seed", 0))
    before = {**Recipe().model_dump(), **before}
    if any(before[key] != now["recipe"].get(key) for key in before if key not in _INDIFFERENT):
        return False
    then = {**{key: now[key] for key in ("data_sha256", "order_sha256", "metadata_sha256") if key in now}, **then}
    return {k: v for k, v in then.items() if k != "recipe"} == {k: v for k, v in now.items() if k != "recipe"}


def environment(on: Processes) -> dict[str, str | int]:
    """What the figures may depend on besides recipe and data."""
    gpu = torch.cuda.get_device_name(on.device) if on.device.type == "cuda" else ""
    return {
        "cxredge": __version__,
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": gpu or "cpu",
        "cuda": torch.version.cuda or "" if gpu else "",
        "processes": on.count,
        "threads": torch.get_num_threads(),
        "precision": in_words(on.device),
    }


def describe(
    run: Path, recipe: Recipe, architecture: str, films: Films, data: Sequence[Path], scores: dict[str, float],
    *, epochs: tuple[int, int], on: Processes,
) -> None:  # fmt: skip
    """Write `run.json`. architecture: the network's own, which trained on from another run is that run's. epochs: how many were
    run, and the one, counted from 1, whose weights were kept."""
    known = environment(on)
    facts = {
        "architecture": architecture,
        "findings": list(films.findings),
        "preprocessing": {"size": recipe.size, "clahe": recipe.clahe},
        "validation_share": recipe.validation_share,
        "split_seed": recipe.split_seed,
        "seed": recipe.seed,
        "uncertain": recipe.uncertain,
        "metadata": recipe.metadata,
        "epochs": recipe.epochs,
        "epochs_run": epochs[0],
        "kept_epoch": epochs[1],
        "sources": {source: _count(films, source) for source in sorted(set(films.sources))},
        "data": [folder.name for folder in data],
        "data_sha256": data_hash(films),
        "validation_sha256": validation_hash(films),
        "validation_sha256_of": validation_hashes(films),
        "validation_auroc": {k: None if math.isnan(v) else round(v, 5) for k, v in scores.items()},
        "versions": {key: known[key] for key in ("cxredge", "torch", "python")},
        "environment": known,
    }
    write_json(run / "run.json", facts)


def _count(films: Films, source: str) -> dict[str, int]:
    return {
        split: int(((films.sources == source) & (films.splits == split)).sum()) for split in ("train", "validation")
    }


class Log:
    """`metrics.csv`, a row an epoch, and the same for TensorBoard in `tensorboard/` where it is installed."""

    def __init__(self, run: Path, epochs: int, steps: int) -> None:
        """epochs, steps: how many are done, by the checkpoint; what a killed process wrote beyond them is dropped."""
        self._table = run / "metrics.csv"
        if self._table.exists():
            rows = self._table.read_text(encoding="utf-8").splitlines(keepends=True)
            with atomic_write(self._table) as out:
                out.writelines(rows[: 1 + epochs])
        self.board = _board(run / "tensorboard", steps + 1)

    def where(self) -> str:
        """For a person watching: where the log lies."""
        if self.board is None:
            return f"log: {self._table}; for TensorBoard too: pip install tensorboard"
        return f"log: {self._table}, and tensorboard --logdir {self._table.parent}"

    def step(self, number: int, loss: float, rate: float) -> None:
        """One optimiser step. number: counted from 1 over the whole run."""
        if self.board is not None:
            self.board.add_scalar("step/loss", loss, number)
            self.board.add_scalar("step/learning_rate", rate, number)

    def epoch(
        self, epoch: int, step: int, loss: float, rate: float, seconds: float, scores: dict[str, float],
        with_metadata: float | None = None,
    ) -> None:  # fmt: skip
        """One epoch, counted from 1, on the disk when this returns. step: the number of its last step.

        scores: AUROC per finding; with_metadata: their mean with age, sex and view, where the network takes them.
        """
        # No column of its own where there is nothing to say: a log goes on in the form it was begun in.
        beside = {} if with_metadata is None else {"mean_with_metadata": with_metadata}
        new = not self._table.exists() or not self._table.stat().st_size
        with self._table.open("a", newline="", encoding="utf-8") as out:
            rows = csv.writer(out)
            if new:
                rows.writerow(["epoch", "loss", "learning_rate", "seconds", *scores, *beside])
            told = [f"{value:.5f}" for value in (*scores.values(), *beside.values())]
            rows.writerow([epoch, f"{loss:.5f}", f"{rate:.3e}", f"{seconds:.1f}", *told])
            out.flush()
            os.fsync(out.fileno())
        if self.board is not None:
            self.board.add_scalar("epoch/loss", loss, step)
            for finding, value in {**scores, "mean": mean_auroc(scores), **beside}.items():
                if not math.isnan(value):
                    self.board.add_scalar(f"validation_auroc/{finding}", value, step)
            self.board.flush()

    def close(self) -> None:
        """Write out what TensorBoard's thread still holds."""
        if self.board is not None:
            self.board.close()


def _board(folder: Path, step: int) -> "SummaryWriter | None":
    """A writer that drops what is logged at `step` and beyond; None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "tensorboard":
            raise
        return None
    return SummaryWriter(str(folder), purge_step=step)
