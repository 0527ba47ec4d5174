"""How many times as fast as PyTorch? Shipped models beside MobileNetV2 and DenseNet121 in torch, one film, one thread, in turns.

    python -m cxredge.benchmarks.against_torch --output benchmarks/results/against-torch.json

Torch runs both in 32-bit floats, eager, weights at random, which take the time that trained ones take. Every round gives each of
all a turn of some films, in an order drawn anew, so that whatever else the machine does hits all alike; the first film of a turn
is not counted, since what ran before it left the cache to others. Ratios are medians over rounds.
"""

import json
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from cxredge import __version__
from cxredge.bundle import open_bundle, shipped_names
from cxredge.devices import this_machine
from cxredge.runtimes import Artifact, runtime
from cxredge.train.network import FilmNetwork

PEERS = ("mobilenet_v2", "densenet121")
ENGINES = ("onnxruntime", "openvino")
WARM_UP, TURN = 2, 6
Run = Callable[[], object]


def main(
    rounds: Annotated[int, typer.Option(min=10, help="Turns of every network.")] = 40,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to keep the figures as JSON.")] = None,
) -> None:
    """Time every shipped model in each engine against torch."""
    torch.set_num_threads(1)
    film = np.random.default_rng(0).integers(0, 256, (1, 1, 224, 224), np.uint8)
    runs = {("torch", name): _torch(name, film) for name in PEERS}
    for name in shipped_names():
        bundle = open_bundle(name)
        graphs = {name: bundle.model}
        if bundle.full_model is not None:
            graphs[f"{name}, full-precision parent"] = bundle.full_model
        runs |= {(engine, said): _session(engine, graph, film) for engine in ENGINES for said, graph in graphs.items()}
    names = list(runs)
    times = _in_turns([runs[name] for name in names], rounds)
    peers = {peer: times[:, names.index(("torch", peer))] for peer in PEERS}
    rows = [
        {
            "engine": engine,
            "model": model,
            "milliseconds": round(float(np.median(times[:, column])), 3),
            **{
                f"times_as_fast_as_{peer}": round(float(np.median(theirs / times[:, column])), 2)
                for peer, theirs in peers.items()
            },
        }
        for column, (engine, model) in enumerate(names)
    ]
    found = {
        "command": f"python -m cxredge.benchmarks.against_torch --rounds {rounds}",
        "date": date.today().isoformat(),
        "cxredge": __version__,
        "machine": this_machine().text,
        "models": {name: open_bundle(name).model_sha256 for name in shipped_names()},
        "versions": {"torch": torch.__version__} | {engine: runtime(engine).version() for engine in ENGINES},
        "rows": rows,
    }
    _show(rows)
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _torch(name: str, film: NDArray[np.uint8]) -> Run:
    network, given = FilmNetwork(name, 14).eval(), torch.from_numpy(film)

    @torch.inference_mode()
    def run() -> object:
        return network(given)

    return run


def _session(engine: str, graph: Path, film: NDArray[np.uint8]) -> Run:
    session = runtime(engine).load(Artifact(engine, graph), 1)
    return lambda: session.run(film)


def _in_turns(runs: Sequence[Run], rounds: int) -> NDArray[np.float64]:
    """Median milliseconds of a film in each turn, [rounds, runs]."""
    rng = np.random.default_rng(0)
    times = np.empty((rounds, len(runs)))
    for number in track(range(-WARM_UP, rounds), "Rounds", transient=True):
        for column in rng.permutation(len(runs)):
            taken = []
            for _ in range(TURN):
                started = perf_counter()
                runs[column]()
                taken.append(1000 * (perf_counter() - started))
            if number >= 0:
                times[number, column] = np.median(taken[1:])
    return times


def _show(rows: Sequence[dict[str, Any]]) -> None:
    table = Table("engine", "model", "ms", *(f"x torch {peer}" for peer in PEERS))
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
