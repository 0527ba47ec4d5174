"""How much of a bare loop's speed the real one keeps: films a second of both, in turns, in one process.

    python -m cxredge.train.throughput data/chestxray14 --output throughput.json

The real loop is that of `cxredge train`: films from the mapped cache, augmentation, loss over the known labels, running average,
progress bar, TensorBoard. The bare loop trains the same network with the same optimiser on one batch of random films
that never changes: no more than forward, backward and step, in the arithmetic that `train` chooses for the machine and in
channels_last. Ratios are taken within a round, whose two halves follow each other and change places from round to round; processor
times stand beside them, since other work on the machine moves those less. One step a round in the arithmetic that was not chosen
tells whether the choice was right.
"""

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import Progress as Bar
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cxredge import __version__
from cxredge.devices import this_machine
from cxredge.errors import DataError
from cxredge.train.checkpoint import Checkpoints, Progress
from cxredge.train.loop import Loop, phase_of
from cxredge.train.losses import label_loss
from cxredge.train.network import FilmNetwork
from cxredge.train.planes import cached_planes
from cxredge.train.precision import autocast, computes_in_bfloat16, in_words
from cxredge.train.processes import Processes
from cxredge.train.recipe import Recipe, read_recipe
from cxredge.train.run_folder import Log
from cxredge.train.sources import Films
from cxredge.train.tables import read_data

AIM = 0.9


@dataclass(frozen=True)
class Half:
    """One loop in one round. seconds: of the wall clock; processor_seconds: of all threads."""

    films: int
    seconds: float
    processor_seconds: float

    @property
    def films_per_second(self) -> float:
        return self.films / self.seconds


def real_loop(recipe: Recipe, films: Films, cache: Path, run: Path, log: Log, steps: int) -> Callable[[], int]:
    """A function that trains `steps` batches as `cxredge train` does, and tells how many films that were. run: for its files."""
    films = films.take(films.splits == "train")
    if len(films) < steps * recipe.batch_size:
        raise DataError(f"{len(films)} training films are too few for {steps} batches of {recipe.batch_size}")
    films = films.take(np.arange(steps * recipe.batch_size))
    planes = cached_planes(films.files, recipe.preprocessing, cache)
    on = Processes(0, 1, _device())
    network = _network(recipe.architecture, len(films.findings), on.device)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay), use_buffers=True)
    phase = phase_of(recipe, network, 0, steps, on)
    # A wide terminal's bar is drawn, as a person training sees it, but not on this screen.
    bar = Bar(console=Console(file=(run / "screen").open("w", encoding="utf-8"), force_terminal=True))
    loop = Loop(
        recipe, films, planes, network, average, label_loss(recipe, films.labels, on.device), [],
        Checkpoints(run, recipe.checkpoint_minutes, on), log, bar, on,
    )  # fmt: skip
    progress = Progress()

    def train() -> int:
        with bar:
            loop.epoch(phase, progress, None)
        progress.epoch, progress.step = progress.epoch + 1, 0
        return len(films)

    return train


def bare_loop(recipe: Recipe, findings: int, steps: int, *, bfloat16: bool | None = None) -> Callable[[], int]:
    """A function that trains `steps` times on the same random batch and returns how many films that were. bfloat16: see
    `precision.autocast`."""
    device = _device()
    network = _network(recipe.architecture, findings, device).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)
    shape = (recipe.batch_size, 1, recipe.size, recipe.size)
    image = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    labels = (torch.rand(recipe.batch_size, findings, device=device) < 0.1).float()

    def train() -> int:
        for _ in range(steps):
            optimiser.zero_grad(set_to_none=True)
            with autocast(device, bfloat16=bfloat16):
                logits = network(image)
            F.binary_cross_entropy_with_logits(logits.float(), labels).backward()
            optimiser.step()
        return steps * recipe.batch_size

    return train


def measured(train: Callable[[], int]) -> Half:
    """Run one half and clock it, to the end of what a GPU still has to do."""
    _wait()
    wall, processor = time.perf_counter(), time.process_time()
    films = train()
    _wait()
    return Half(films, time.perf_counter() - wall, time.process_time() - processor)


def main(
    data: Annotated[Path, typer.Argument(help="A data set in its published layout.", show_default=False)],
    arch: Annotated[list[str] | None, typer.Option(help="Networks; repeat.", show_default=False)] = None,
    recipe: Annotated[str, typer.Option(help="A shipped recipe's name or a .toml file.")] = "joint",
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Batches of each loop in a round.")] = 10,
    cache: Annotated[Path, typer.Option(help="Folder for decoded films.")] = Path("runs/cache"),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON with every sample.", show_default=False)
    ] = None,
) -> None:
    """Films a second of `cxredge train`'s loop and of a bare loop, and the share of the one in the other."""
    found: dict[str, object] = {
        "command": f"python -m cxredge.train.throughput {data.name} --recipe {recipe} --rounds {rounds} --steps {steps}",
        "date": date.today().isoformat(),
        "cxredge": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": this_machine().text,
        "device": str(_device()),
        "arithmetic": in_words(_device()),
        "threads": torch.get_num_threads(),
        "aim": AIM,
    }
    networks = found["networks"] = {}
    films = read_data(data)
    for architecture in arch or ["mobilenet_v2", "densenet121"]:
        settings = read_recipe(recipe, architecture=architecture, weights="none")
        # The schedule needs to know all steps there will be.
        settings = settings.model_copy(update={"epochs": rounds + 1, "films_per_epoch": {}})
        with tempfile.TemporaryDirectory() as scratch, closing(Log(Path(scratch), 0, 0)) as log:
            loops = {
                "real": real_loop(settings, films, cache, Path(scratch), log, steps),
                "bare": bare_loop(settings, len(films.findings), steps),
                # One step, since it may take very long.
                "other arithmetic": bare_loop(
                    settings, len(films.findings), 1, bfloat16=not computes_in_bfloat16(_device())
                ),
            }
            for train in loops.values():  # the first steps choose kernels and take memory
                train()
            halves: dict[str, list[Half]] = {name: [] for name in loops}
            for number in range(rounds):
                for name in halves if number % 2 == 0 else reversed(halves):
                    halves[name].append(measured(loops[name]))
        networks[architecture] = _summary(halves, settings)
    found["load_average_after"] = os.getloadavg()
    Console().print_json(json.dumps(found))
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _summary(halves: dict[str, list[Half]], recipe: Recipe) -> dict[str, object]:
    real, bare = halves["real"], halves["bare"]
    wall = [a.films_per_second / b.films_per_second for a, b in zip(real, bare, strict=True)]
    work = [(b.processor_seconds / b.films) / (a.processor_seconds / a.films) for a, b in zip(real, bare, strict=True)]
    other = statistics.median(half.films_per_second for half in halves["other arithmetic"])
    return {
        "batch_size": recipe.batch_size,
        "size": recipe.size,
        "films_per_second": {
            name: round(statistics.median(half.films_per_second for half in some), 2) for name, some in halves.items()
        },
        "share_by_the_clock": round(statistics.median(wall), 3),
        "share_of_computing": round(statistics.median(work), 3),
        "times_the_other_arithmetic": round(statistics.median(half.films_per_second for half in bare) / other, 2),
        "rounds": [round(share, 3) for share in wall],
        "samples": {name: [asdict(half) for half in some] for name, some in halves.items()},
    }


def _network(architecture: str, findings: int, device: torch.device) -> FilmNetwork:
    torch.manual_seed(0)
    network = FilmNetwork(architecture, findings)
    return cast(FilmNetwork, network.to(device, memory_format=torch.channels_last))  # type: ignore[call-overload]


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    typer.run(main)
