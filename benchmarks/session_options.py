"""ONNX Runtime's session options, measured: memory arena, spinning threads, threads per film, and the providers it has.

    python -m cxredge.benchmarks.session_options --output benchmarks/results/session-options.json

Each setting runs in a process of its own, several rounds in turn. Between two films the process rests as long as decoding
one takes, because that is when spinning threads burn and when an idle arena holds its memory.
"""

import json
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cxredge import __version__
from cxredge.bundle import open_bundle
from cxredge.devices import peak_rss_mb, this_machine

REST_S = 0.02


@dataclass(frozen=True)
class Setting:
    """threads: of the engine for one film; spinning, arena: as in a device profile."""

    threads: int
    spinning: bool
    arena: bool


SETTINGS = {
    "as scan runs it: 1 thread, arena": Setting(1, False, True),
    "1 thread, no arena": Setting(1, False, False),
    "2 threads, sleeping": Setting(2, False, True),
    "2 threads, spinning": Setting(2, True, True),
}


def child(model: str, setting: Setting, films: int) -> dict[str, Any]:
    """Latency in ms of every film, CPU seconds per film with the rest after it, peak memory of this process in MB."""
    import numpy as np

    from cxredge.runtimes import Artifact, Tuning, runtime

    bundle = open_bundle(model)
    tuning = Tuning(spinning=setting.spinning, arena=setting.arena)
    session = runtime("onnxruntime").load(Artifact("onnxruntime", bundle.model), setting.threads, tuning)
    with np.load(bundle.reference) as stored:
        images = stored["images"]
    for image in images[:10]:
        session.run(image[None])
    times, cpu = [], time.process_time()
    for i in range(films):
        begun = time.perf_counter()
        session.run(images[i % len(images)][None])
        times.append(1000 * (time.perf_counter() - begun))
        time.sleep(REST_S)
    cpu_ms = 1000 * (time.process_time() - cpu) / films
    return {"samples_ms": times, "cpu_ms_per_film": cpu_ms, "peak_rss_mb": peak_rss_mb()}


def main(
    model: Annotated[str, typer.Option(help="A shipped model's name or a bundle's folder.")] = "chestxray14",
    films: Annotated[int, typer.Option(min=10, help="Films a round.")] = 150,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON with every sample.", show_default=False)
    ] = None,
    only: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Latency, CPU time and memory of each setting, and what each costs against the one that scan uses."""
    if only is not None:
        typer.echo(json.dumps(child(model, SETTINGS[only], films)))
        return
    import onnxruntime

    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in SETTINGS}
    for _ in range(rounds):
        for name in SETTINGS:
            words = [sys.executable, "-m", "cxredge.benchmarks.session_options", "--model", model]
            words += ["--films", str(films), "--only", name]
            run = subprocess.run(words, capture_output=True, text=True, check=True)  # noqa: S603 - our own interpreter
            runs[name].append(json.loads(run.stdout))
    found = {
        "command": f"python -m cxredge.benchmarks.session_options --films {films} --rounds {rounds}",
        "date": date.today().isoformat(),
        "cxredge": __version__,
        "python": platform.python_version(),
        "machine": this_machine().text,
        "onnxruntime": onnxruntime.__version__,
        "providers": onnxruntime.get_available_providers(),
        "model_sha256": open_bundle(model).model_sha256,
        "settings": {name: asdict(setting) | _summed(runs[name]) for name, setting in SETTINGS.items()},
        "rounds": runs,
    }
    Console().print_json(json.dumps({key: value for key, value in found.items() if key != "rounds"}))
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _summed(rounds: list[dict[str, Any]]) -> dict[str, float]:
    return {
        "median_ms": round(statistics.median(value for one in rounds for value in one["samples_ms"]), 3),
        "cpu_ms_per_film": round(statistics.median(one["cpu_ms_per_film"] for one in rounds), 2),
        "peak_rss_mb": round(statistics.median(one["peak_rss_mb"] for one in rounds), 1),
    }


if __name__ == "__main__":
    typer.run(main)
