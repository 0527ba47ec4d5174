"""The measured process: one model on one engine, and nothing else. `benchmarks.measure` starts it afresh for every round.

    python -m cxredge.benchmarks.child JOB.json

It imports as little as a clinic's computer would, prints one JSON object, and keeps every sample.
"""

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cxredge.benchmarks import sensors
from cxredge.benchmarks.memory import peak_mb, resident_mb
from cxredge.imaging import Preprocessing, read_film

if TYPE_CHECKING:
    from cxredge.runtimes import Session

Ask = Callable[[NDArray[Any]], object]

WARM_UP = 5
# Sensors are read between queries, this often.
SENSE_EVERY_S = 0.25


@dataclass(frozen=True)
class Job:
    """What to measure. path: ONNX file or run. films: decoded before the engine is timed. seconds, queries: at least both.

    film_seconds: for the second stream, from the file to the result. started: parent's clock when it started this process.
    """

    path: str
    runtime: str
    threads: int
    batch: int
    size: int
    clahe: bool
    films: list[str]
    seconds: float
    queries: int
    film_seconds: float
    started: float = 0.0


def yardstick_ms() -> float:
    """A fixed piece of work on one core, in ms: hashing 4 MB, the best of five. It tells a slower machine from a slower model."""
    content = bytes(4_000_000)
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        hashlib.blake2b(content).digest()
        times.append(time.perf_counter() - begun)
    return 1000 * min(times)


def main(job: Job) -> dict[str, object]:
    """Measure one of cxredge's models on one of its engines."""
    from cxredge.train.engine import engine_version, import_engine, open_engine

    preprocessing = Preprocessing(size=job.size, clahe=job.clahe)
    with tempfile.TemporaryDirectory() as scratch:
        opened: list[Session] = []

        def load() -> Ask:
            opened.append(open_engine(Path(job.path), job.runtime, job.threads, Path(scratch)))
            return opened[0].run

        found = measured(
            job,
            library=lambda: import_engine(job.runtime),
            load=load,
            read=lambda film: read_film(Path(film), preprocessing).image,
        )
        opened[0].close()
    return {"engine": engine_version(job.runtime), **found}


def measured(
    job: Job, *, library: Callable[[], object], load: Callable[[], Ask], read: Callable[[str], NDArray[Any]]
) -> dict[str, object]:
    """Measure, in this order: cold start, engine alone, film to result. Memory is read after each.

    library: imports the engine. load: opens the model and returns what answers a query, an array [N, ...]. read: film -> [...].
    """
    first = read(job.films[0])
    before = resident_mb()
    library()
    loaded = resident_mb()
    opened = time.perf_counter()
    ask = load()
    load_ms = 1000 * (time.perf_counter() - opened)
    ask(first[None])
    cold_ms = 1000 * (time.monotonic() - job.started)
    pool = [read(film) for film in job.films]
    batches = [np.stack([pool[(i + k) % len(pool)] for k in range(job.batch)]) for i in range(len(pool))]
    for _, image in zip(range(WARM_UP), cycle(batches), strict=False):
        ask(image)
    model = resident_mb()
    yard = yardstick_ms()
    energy, begun = sensors.energy_joules(), time.perf_counter()
    engine_ms, sensed = _stream(ask, batches, job.seconds, job.queries)
    wall = time.perf_counter() - begun
    joules = None if energy is None else (sensors.energy_joules() or 0) - energy
    peak_engine = peak_mb()
    film_ms, _ = _stream(
        lambda film: ask(read(film)[None]), job.films, job.film_seconds, len(job.films) if job.film_seconds else 0
    )
    return {
        "cold_ms": cold_ms,
        "load_ms": load_ms,
        "engine_ms": engine_ms,
        "film_ms": film_ms,
        "wall_s": wall,
        "yardstick_ms": yard,
        # A wrapped counter gives a negative difference, which is no measurement.
        "joules": joules if joules is not None and joules > 0 else None,
        "sensed": [asdict(moment) for moment in sensed],
        "rss_mb": {
            "python": before, "library": loaded - before, "model": model - loaded,
            "peak_engine": peak_engine, "peak": peak_mb(),
        },
    }  # fmt: skip


def _stream(
    ask: Callable[[Any], object], queries: Sequence[Any], seconds: float, at_least: int
) -> tuple[list[float], list[sensors.Sample]]:
    """One query after the other until both limits are met: times in ms, and what the sensors said between them."""
    times: list[float] = []
    sensed = [sensors.sample()]
    clock = time.perf_counter
    end, sense = clock() + seconds, clock() + SENSE_EVERY_S
    for query in cycle(queries):
        begun = clock()
        if begun >= end and len(times) >= at_least:
            break
        ask(query)
        done = clock()
        times.append(round(1000 * (done - begun), 4))
        if done >= sense:
            sensed.append(sensors.sample())
            sense = clock() + SENSE_EVERY_S
    sensed.append(sensors.sample())
    return times, sensed


if __name__ == "__main__":
    print(json.dumps(main(Job(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))))
