"""Latency and memory of models, each round of each setting in a process of its own, interleaved so that drift hits all alike."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cxredge.benchmarks import sensors
from cxredge.benchmarks.child import Job
from cxredge.benchmarks.early_stopping import estimate
from cxredge.benchmarks.macs import count_macs
from cxredge.errors import CxredgeError
from cxredge.train.subject import Subject

Say = Callable[[str], None]


@dataclass(frozen=True)
class Profile:
    """How long to measure each setting. rounds: fresh processes; seconds and queries are of all rounds together.

    film_seconds: of the second stream, from the file to the result.
    """

    name: str
    rounds: int
    seconds: float
    queries: int
    film_seconds: float


# The defaults of MLPerf Inference's single stream: 60 s and 1,024 queries at first, 600 s since version 1.1.
PROFILES = {
    "quick": Profile("quick", 3, 10, 96, 3),
    "default": Profile("default", 5, 60, 1024, 15),
    "mlperf": Profile("mlperf", 5, 600, 1024, 60),
}


@dataclass(frozen=True)
class Setting:
    """One model on one engine. model: its place in the list of models."""

    model: int
    runtime: str
    threads: int
    batch: int


@dataclass(frozen=True)
class Latency:
    """Of queries, in ms. per_round: medians, one per process. estimate90, estimate99: MLPerf's early-stopping estimates,
    None where there are too few queries for one."""

    queries: int
    p50: float
    p90: float
    p99: float
    estimate90: float | None
    estimate99: float | None
    per_round: list[float]


@dataclass(frozen=True)
class Measured:
    """One setting. Memory in MB (10^6 bytes): peak_rss of the whole process, engine and decoding; model_rss: what the opened
    model added to Python and the engine's library. yardstick: a fixed piece of work per round, in ms. sha256: of the network
    that ran; graph: its precision where the bundle holds another for this engine than the portable one, else empty. mmacs: None
    where the graph's work cannot be counted.
    """

    model: str
    runtime: str
    engine: str
    threads: int
    batch: int
    cold_start_ms: list[float]
    load_ms: list[float]
    engine_only: Latency
    film_to_result: Latency | None
    films_per_second: float
    peak_rss_mb: float
    peak_rss_engine_mb: float
    model_rss_mb: float
    library_rss_mb: float
    size_mb: float
    sha256: str
    graph: str
    mmacs: float | None
    mhz: tuple[float, float] | None
    celsius: float | None
    throttled: int | None
    joules_per_film: float | None
    yardstick_ms: list[float]


Samples = dict[str, list[float]]


def measure(
    subjects: Sequence[Subject], settings: Sequence[Setting], films: Sequence[Path], profile: Profile, *, say: Say = print
) -> tuple[list[Measured], Samples]:  # fmt: skip
    """Measure every setting; returns them with all raw samples, ms, by `model/runtime/threads/batch/round/stream`.

    Each round visits every setting, in an order of its own (seeded). Raises CxredgeError when a process fails.
    """
    rounds: list[list[dict[str, Any]]] = [[] for _ in settings]
    order = np.random.default_rng(0)
    for number in range(profile.rounds):
        for at in order.permutation(len(settings)):
            setting = settings[at]
            say(f"Round {number + 1} of {profile.rounds}: {described(subjects[setting.model], setting)}")
            rounds[at].append(run_child(job_for(subjects[setting.model].on(setting.runtime), setting, films, profile)))
    samples: Samples = {}
    for setting, told in zip(settings, rounds, strict=True):
        for number, one in enumerate(told):
            key = f"{subjects[setting.model].name}/{setting.runtime}/{setting.threads}/{setting.batch}/{number}"
            samples[f"{key}/engine_only"], samples[f"{key}/film_to_result"] = one["engine_ms"], one["film_ms"]
    return [_summed(subjects[s.model], s, told) for s, told in zip(settings, rounds, strict=True)], samples


def described(subject: Subject, setting: Setting) -> str:
    """`chestxray14, onnxruntime, 1 thread, batch 8`."""
    threads = f"{setting.threads} thread{'s' if setting.threads > 1 else ''}"
    return f"{subject.name}, {setting.runtime}, {threads}" + (f", batch {setting.batch}" if setting.batch > 1 else "")


def job_for(subject: Subject, setting: Setting, films: Sequence[Path], profile: Profile) -> Job:
    """One round of a setting."""
    return Job(
        path=str(subject.path.resolve()),
        runtime=setting.runtime,
        threads=setting.threads,
        batch=setting.batch,
        size=subject.preprocessing.size,
        clahe=subject.preprocessing.clahe,
        films=[str(film.resolve()) for film in films],
        seconds=profile.seconds / profile.rounds,
        queries=-(-profile.queries // profile.rounds),
        # The file-to-result stream is one film at a time, whatever the batch.
        film_seconds=profile.film_seconds / profile.rounds if setting.batch == 1 else 0,
    )


def run_child(job: Job, *, before: Sequence[str] = ()) -> dict[str, Any]:
    """Run one round in a fresh process. before: words to start it with, such as `/usr/bin/time -v -o FILE`.

    Raises CxredgeError with the end of what the process said when it fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        told = Path(scratch) / "job.json"
        told.write_text(json.dumps(asdict(job) | {"started": time.monotonic()}), encoding="utf-8")
        command = [*before, sys.executable, "-P", "-m", "cxredge.benchmarks.child", str(told)]
        # Threads of NumPy or OpenMP beside the engine's would blur the setting.
        quiet = {"OMP_NUM_THREADS": str(job.threads), "OPENBLAS_NUM_THREADS": "1"}
        run = subprocess.run(  # noqa: S603 - our own interpreter, our own arguments
            command, capture_output=True, text=True, check=False, env=os.environ | quiet
        )
    if run.returncode:
        raise CxredgeError(f"{job.path} on {job.runtime} could not be measured: {run.stderr.strip()[-800:]}")
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def latency(rounds: Sequence[Sequence[float]]) -> Latency:
    """Percentiles over all rounds together. rounds: samples in ms, a list per process."""
    everything = [sample for one in rounds for sample in one]
    p50, p90, p99 = (float(value) for value in np.percentile(everything, (50, 90, 99)))
    return Latency(
        len(everything), p50, p90, p99, estimate(everything, 0.90), estimate(everything, 0.99),
        [float(statistics.median(one)) for one in rounds],
    )  # fmt: skip


def _summed(subject: Subject, setting: Setting, rounds: list[dict[str, Any]]) -> Measured:
    loaded = subject.on(setting.runtime)
    queries = sum(len(one["engine_ms"]) for one in rounds)
    seconds = sum(sum(one["engine_ms"]) for one in rounds) / 1000
    moments = [sensors.Sample(**moment) for one in rounds for moment in one["sensed"]]
    clocks = [moment.mhz for moment in moments if moment.mhz is not None]
    heat = [moment.celsius for moment in moments if moment.celsius is not None]
    return Measured(
        model=subject.name,
        runtime=setting.runtime,
        engine=rounds[0]["engine"],
        threads=setting.threads,
        batch=setting.batch,
        cold_start_ms=[one["cold_ms"] for one in rounds],
        load_ms=[one["load_ms"] for one in rounds],
        engine_only=latency([one["engine_ms"] for one in rounds]),
        film_to_result=latency([one["film_ms"] for one in rounds]) if rounds[0]["film_ms"] else None,
        films_per_second=queries * setting.batch / seconds,
        peak_rss_mb=max(one["rss_mb"]["peak"] for one in rounds),
        peak_rss_engine_mb=max(one["rss_mb"]["peak_engine"] for one in rounds),
        model_rss_mb=statistics.median(one["rss_mb"]["model"] for one in rounds),
        library_rss_mb=statistics.median(one["rss_mb"]["library"] for one in rounds),
        size_mb=loaded.bytes / 1e6,
        sha256=loaded.sha256,
        graph=loaded.graph,
        mmacs=_mmacs(subject),
        mhz=(min(clocks), max(clocks)) if clocks else None,
        celsius=max(heat) if heat else None,
        throttled=throttled(rounds),
        joules_per_film=_energy(rounds, moments, setting.batch),
        yardstick_ms=[one["yardstick_ms"] for one in rounds],
    )


def _mmacs(subject: Subject) -> float | None:
    try:
        return count_macs(subject.path, subject.preprocessing.size) / 1e6
    except CxredgeError:
        return None


def throttled(rounds: list[dict[str, Any]]) -> int | None:
    """How often the processor slowed itself down within the rounds: between them other settings run. None where nothing tells."""
    told = [[moment["throttled"] for moment in one["sensed"]] for one in rounds]
    counted = [kept for one in told if (kept := [count for count in one if count is not None])]
    return sum(max(one) - min(one) for one in counted) if counted else None


def _energy(rounds: list[dict[str, Any]], moments: list[sensors.Sample], batch: int) -> float | None:
    """Joules a film: the processor's counter over the engine stream, or the board's mean power times the time a film takes.

    Both are of the whole machine, with whatever else runs on it.
    """
    films = batch * sum(len(one["engine_ms"]) for one in rounds)
    counted = [one["joules"] for one in rounds]
    if all(joules is not None for joules in counted):
        return float(sum(counted)) / films
    watts = [moment.watts for moment in moments if moment.watts is not None]
    return statistics.mean(watts) * sum(one["wall_s"] for one in rounds) / films if watts else None
