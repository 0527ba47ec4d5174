"""Every peer against a bundle of cxredge, in one interleaved run.

    python -m cxredge.benchmarks.peers.run chestxray14 --data data/chestxray14

See README.md beside it for how to get the peers. A peer that is not installed, or fails, is listed with why.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from cxredge.benchmarks.child import Job
from cxredge.benchmarks.measure import PROFILES, Latency, Profile, latency
from cxredge.benchmarks.peers.entries import PEERS, Start
from cxredge.benchmarks.peers.table import Row, write
from cxredge.errors import CxredgeError
from cxredge.imaging import read_film
from cxredge.metrics import mean_auroc_interval
from cxredge.runtimes import MODULES, runtime
from cxredge.train.evaluate import matched
from cxredge.train.sources import Films
from cxredge.train.subject import Subject, open_subject
from cxredge.train.tables import read_films

RESULTS = Path("benchmarks/results")
CALIBRATION = 200
# The one peer that is a tool of its own rather than a process of ours.
FLOOR = "benchmark_app"
SCREEN = Console(stderr=True)


@dataclass(frozen=True)
class Contestant:
    """key: a peer's name, or `cxredge/ENGINE`. file: what its process opens; bytes: the size of all it needs of a model."""

    key: str
    title: str
    file: Path
    bytes: int
    scored: bool


def main(
    bundle: Annotated[str, typer.Argument(help="A bundle that carries its full-precision parent.")],
    data: Annotated[list[Path], typer.Option(help="The data set of the bundle.")],
    threads: Annotated[int, typer.Option(min=1)] = 1,
    profile: Annotated[str, typer.Option(help=f"{', '.join(PROFILES)}.")] = "quick",
    only: Annotated[str, typer.Option(help="Some peers, by name, separated by commas; all unless told.")] = "",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for peers.md and peers.json.")] = RESULTS,
) -> None:
    """Measure cxredge and its peers on the same films with the same threads, and write the table."""
    subject = open_subject(bundle)
    if subject.full is None:
        raise CxredgeError(f"{bundle} carries no full-precision parent to start the peers from")
    films, _ = matched(read_films(data, "test"), subject)
    wanted = only.split(",") if only else [*PEERS, FLOOR]
    with tempfile.TemporaryDirectory() as scratch:
        start = Start(bundle, subject.full, _calibration(data, subject))
        contestants, failed = _prepare(subject, start, wanted, Path(scratch))
        rounds, floor = _rounds(
            contestants, subject, films, threads, PROFILES[profile], failed, with_floor=FLOOR in wanted
        )
        told = {
            one.key: _scores(one, subject, films, threads, Path(scratch), failed) for one in contestants if one.scored
        }
        rows = [_row(one, rounds[one.key], rounds, told, films) for one in contestants if rounds[one.key]]
        if floor:
            rows.append(_floor(subject, floor, rounds))
    write(rows, [f"{key} did not run: {why}" for key, why in failed.items()], threads, profile, output, len(films))


def _calibration(data: list[Path], subject: Subject) -> NDArray[np.uint8]:
    """Training films, seeded, the same for every peer."""
    films, _ = matched(read_films(data, "train"), subject)
    chosen = np.random.default_rng(0).permutation(len(films))[:CALIBRATION]
    return np.stack([read_film(films.files[i], subject.preprocessing).image for i in chosen])


def _prepare(
    subject: Subject, start: Start, wanted: list[str], scratch: Path
) -> tuple[list[Contestant], dict[str, str]]:  # fmt: skip
    found, failed = [], {}
    for name in MODULES:
        if runtime(name).available() is True:
            size = subject.path.stat().st_size
            found.append(
                Contestant(f"cxredge/{name}", f"cxredge, {name}, {subject.precision.upper()}", subject.path, size, True)
            )
    for key in wanted:
        if key not in PEERS:
            continue
        SCREEN.print(f"Preparing {key}")
        out = scratch / key
        out.mkdir()
        try:
            file = PEERS[key].prepare(start, out)
        except Exception as error:  # whatever a peer raises, the others still run
            failed[key] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            continue
        size = file.stat().st_size + (file.with_suffix(".bin").stat().st_size if file.suffix == ".xml" else 0)
        found.append(Contestant(key, PEERS[key].title, file, size, PEERS[key].accurate))
    return found, failed


def _job(one: Contestant, subject: Subject, films: list[str], threads: int, profile: Profile) -> dict[str, Any]:
    job = Job(
        path=str(one.file.resolve()), runtime="", threads=threads, batch=1, size=subject.preprocessing.size,
        clahe=subject.preprocessing.clahe, films=films, seconds=profile.seconds / profile.rounds,
        queries=-(-profile.queries // profile.rounds), film_seconds=profile.film_seconds / profile.rounds,
        started=time.monotonic(),
    )  # fmt: skip
    return asdict(job) | {"peer": one.key}


def _child(job: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        told = Path(scratch) / "job.json"
        told.write_text(json.dumps(job), encoding="utf-8")
        quiet = {"OMP_NUM_THREADS": str(job["threads"]), "OPENBLAS_NUM_THREADS": "1"}
        run = subprocess.run(  # noqa: S603 - our own interpreter, our own arguments
            [sys.executable, "-m", "cxredge.benchmarks.peers.child", str(told)],
            capture_output=True, text=True, check=False, env=os.environ | quiet,
        )  # fmt: skip
    if run.returncode:
        raise CxredgeError(run.stderr.strip()[-300:])
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def _rounds(
    contestants: list[Contestant], subject: Subject, films: Films, threads: int, profile: Profile, failed: dict[str, str],
    *, with_floor: bool,
) -> tuple[dict[str, list[dict[str, Any]]], list[float]]:  # fmt: skip
    """Every round visits every contestant, in an order of its own; and the medians of OpenVINO's own tool, one per round."""
    floor: list[float] = []
    pool = [str(film.resolve()) for film in films.files[:32]]
    rounds: dict[str, list[dict[str, Any]]] = {one.key: [] for one in contestants}
    order = np.random.default_rng(0)
    for number in range(profile.rounds):
        for at in order.permutation(len(contestants)):
            one = contestants[at]
            if one.key in failed:
                continue
            SCREEN.print(f"Round {number + 1} of {profile.rounds}: {one.key}")
            try:
                rounds[one.key].append(_child(_job(one, subject, pool, threads, profile)))
            except CxredgeError as error:
                failed[one.key], rounds[one.key] = str(error).splitlines()[-1], []
        if with_floor and FLOOR not in failed:
            SCREEN.print(f"Round {number + 1} of {profile.rounds}: {FLOOR}")
            try:
                floor.append(_benchmark_app(subject, threads, profile.seconds / profile.rounds))
            except CxredgeError as error:
                failed[FLOOR] = str(error).splitlines()[-1]
    return rounds, floor


def _scores(
    one: Contestant, subject: Subject, films: Films, threads: int, scratch: Path, failed: dict[str, str]
) -> NDArray[np.float32] | None:  # fmt: skip
    SCREEN.print(f"Scoring {len(films)} films: {one.key}")
    out = scratch / "scores.npy"
    try:
        job = _job(one, subject, [str(film.resolve()) for film in films.files], threads, PROFILES["quick"])
        _child(job | {"scores": str(out)})
    except CxredgeError as error:
        failed[f"{one.key}, scoring"] = str(error).splitlines()[-1]
        return None
    scores: NDArray[np.float32] = np.load(out)
    return scores


def _row(
    one: Contestant, own: list[dict[str, Any]], rounds: dict[str, list[dict[str, Any]]],
    told: dict[str, NDArray[np.float32] | None], films: Films,
) -> Row:  # fmt: skip
    ours = next(rounds[key] for key in rounds if key.startswith("cxredge/"))
    pairs = [np.median(a["engine_ms"]) / np.median(b["engine_ms"]) for a, b in zip(own, ours, strict=False)]
    scores, base = told.get(one.key), told.get("ort_fp32")
    labels = films.labels.astype(np.float64)
    area = drift = None
    if scores is not None:
        area = mean_auroc_interval(labels, scores.astype(np.float64), films.patients)
        # A drift is against one's own parent, or it is none.
        if base is not None and one.key != "ort_fp32":
            drift = mean_auroc_interval(
                labels, scores.astype(np.float64), films.patients, baseline=base.astype(np.float64)
            )
    return Row(
        one.key, one.title, latency([r["engine_ms"] for r in own]), latency([r["film_ms"] for r in own]),
        float(np.median(pairs)), float(np.median([r["cold_ms"] for r in own])), max(r["rss_mb"]["peak"] for r in own),
        one.bytes / 1e6, area, drift,
    )  # fmt: skip


def _benchmark_app(subject: Subject, threads: int, seconds: float) -> float:
    """Median ms of OpenVINO's own tool on cxredge's file, one request at a time, for so many seconds."""
    tool = shutil.which("benchmark_app", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if tool is None:
        raise CxredgeError("not installed: pip install openvino")
    size = subject.preprocessing.size
    run = subprocess.run(  # noqa: S603 - OpenVINO's own tool, our own arguments
        [tool, "-m", str(subject.path), "-d", "CPU", "-api", "sync", "-hint", "none", "-nthreads", str(threads),
         "-data_shape", f"image[1,1,{size},{size}]", "-t", str(max(1, round(seconds)))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.search(r"Median:\s+([\d.]+) ms", run.stdout)
    if found is None:
        raise CxredgeError((run.stdout + run.stderr).strip())
    return float(found[1])


def _floor(subject: Subject, medians: list[float], rounds: dict[str, list[dict[str, Any]]]) -> Row:
    """The tool tells its median only, no samples."""
    ours = next(rounds[key] for key in rounds if key.startswith("cxredge/"))
    ratio = np.median([a / np.median(b["engine_ms"]) for a, b in zip(medians, ours, strict=False)])
    nothing = float("nan")
    told = Latency(0, float(np.median(medians)), nothing, nothing, None, None, medians)
    return Row(
        FLOOR, f"OpenVINO benchmark_app on cxredge's {subject.precision.upper()} file", told, None, float(ratio), None, None,
        subject.path.stat().st_size / 1e6, None, None,
    )  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
