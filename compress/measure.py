"""Candidates measured side by side, each in a process of its own that does nothing else.

Latency is taken in rounds, one block of runs per candidate and round, so that whatever else the machine does hits all alike.
Memory is the peak of the child after those runs. Run as a module, this file is that child.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxredge.devices import peak_rss_mb
from cxredge.errors import CxredgeError
from cxredge.runtimes import Artifact, runtime
from cxredge.runtimes.session import Tuning

WARM_UP, ROUNDS, BLOCK = 10, 6, 20
_BATCH = 32
Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class Job:
    """One graph to be opened by one engine. timed: whether its latency and memory are wanted, or only its numbers.

    threads, spinning, arena: as in a device profile; those of a clinic's computer unless told.
    """

    runtime: str
    graph: Path
    threads: int = 1
    spinning: bool = False
    arena: bool = True
    timed: bool = True


@dataclass(frozen=True)
class Measured:
    """milliseconds: raw samples, batch 1, warm. logits [N, L], atypicality [N] or empty: as nested lists, per film.

    error: why the engine could not run it; then all else is empty.
    """

    milliseconds: tuple[float, ...] = ()
    peak_rss_mb: float | None = None
    logits: tuple[tuple[float, ...], ...] = ()
    atypicality: tuple[float, ...] = ()
    error: str = ""


def measure(jobs: Sequence[Job], planes: NDArray[np.uint8], *, tick: Tick | None = None) -> list[Measured]:
    """Run every job over the films. planes: uint8 [N, 1, H, W]; latency is taken on the first ones.

    tick: called with steps done and steps in all. Raises CxredgeError when a child dies without a word.
    """
    batches = range(0, len(planes), _BATCH)
    steps = len(jobs) * len(batches) + ROUNDS * sum(job.timed for job in jobs)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if tick is not None:
            tick(done, steps)

    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        stored = Path(scratch) / "planes.npy"
        np.save(stored, planes)
        children = [stack.enter_context(_Child(job, stored)) for job in jobs]
        samples: list[list[float]] = [[] for _ in jobs]
        peaks: list[float | None] = [None for _ in jobs]
        timed = [(i, child) for i, child in enumerate(children) if jobs[i].timed and not child.error]
        for _ in range(ROUNDS):
            for i, child in timed:
                samples[i] += child.ask("time")
                step()
        for i, child in timed:
            peaks[i] = child.ask("peak")
        found = []
        for i, child in enumerate(children):
            logits: list[tuple[float, ...]] = []
            far: list[float] = []
            for start in batches if not child.error else ():
                answer = child.ask("score", start, start + _BATCH)
                logits += [tuple(row) for row in answer["logits"]]
                far += answer["atypicality"]
                step()
            found.append(Measured(tuple(samples[i]), peaks[i], tuple(logits), tuple(far), child.error))
    return found


class _Child:
    """A process that holds one session and answers one JSON line with another."""

    def __init__(self, job: Job, planes: Path) -> None:
        said = json.dumps({**asdict(job), "graph": str(job.graph), "planes": str(planes)})
        self._name = f"{job.runtime} with {job.graph.name}"
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-P", "-m", "cxredge.compress.measure", said],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.error: str = self._answer()

    def ask(self, *question: object) -> Any:
        assert self._process.stdin is not None  # noqa: S101 - for the type checker: we asked for a pipe
        # Killed while it waited: that there is no answer says so.
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None  # noqa: S101 - as above
        line = self._process.stdout.readline()
        if not line:
            raise CxredgeError(
                f"{self._name} ended while it was being measured (exit {self._process.wait()}): out of memory, or a fault of"
                " the engine; leave this engine out of the profile, or install another version of it"
            )
        return json.loads(line)

    def __enter__(self) -> "_Child":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def _serve(said: dict[str, Any]) -> None:
    """The child: open, say so, answer until the parent is gone."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # an engine that prints must not answer for us
    planes = np.load(said["planes"], mmap_mode="r")

    def answer(what: object) -> None:
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    try:
        session = runtime(said["runtime"]).load(
            Artifact(said["runtime"], Path(said["graph"])),
            said["threads"],
            Tuning(spinning=said["spinning"], arena=said["arena"]),
        )
        image = np.array(planes[:1])
        for _ in range(WARM_UP):
            session.run(image)
    except Exception as error:  # whatever an engine raises is the answer
        answer(f"{type(error).__name__}: {error}".splitlines()[0])
        return
    answer("")
    for line in sys.stdin:
        verb, *rest = json.loads(line)
        if verb == "time":
            taken = []
            for _ in range(BLOCK):
                begin = time.perf_counter()
                session.run(image)
                taken.append((time.perf_counter() - begin) * 1000)
            answer(taken)
        elif verb == "peak":
            answer(peak_rss_mb())
        else:
            outputs = [session.run(np.array(plane[None])) for plane in planes[rest[0] : rest[1]]]
            far = [out.atypicality for out in outputs if out.atypicality is not None]
            answer(
                {
                    "logits": [out.logits[0].tolist() for out in outputs],
                    "atypicality": np.concatenate(far).tolist() if far else [],
                }
            )


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
