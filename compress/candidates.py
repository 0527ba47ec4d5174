"""The table a build decides by: which jobs measure a candidate, what row it becomes, and which row is kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from cxredge.bundle import Bundle
from cxredge.bundle.built import NOT_MEASURED, Candidate, Latency
from cxredge.bundle.manifest import Tolerance
from cxredge.bundle.record import Precision
from cxredge.bundle.selftest import ASTRAY
from cxredge.compress.candidate_graphs import Graph
from cxredge.compress.measure import Job, Measured
from cxredge.compress.tolerance import tolerance
from cxredge.compress.verdict import BuildGate, Labelled, agreement, drift, outside
from cxredge.devices import Engine, Machine, Profile, profile_of, shipped_profiles
from cxredge.runtimes import runtime

PORTABLE = "onnxruntime"
KEPT, SLOWER, LATER = "kept", "slower", "later in the profile's order"
# Latencies this near are the same: another run may turn their order.
TIE = 1.05
INSIDE = (KEPT, SLOWER, LATER, NOT_MEASURED)
Floats = NDArray[np.float64]
Plan = tuple[Engine, Precision, Graph | str]


@dataclass(frozen=True)
class Films:
    """What a build measures on. images: uint8 [N, 1, H, W], the reference films first, then labelled test films."""

    images: NDArray[np.uint8]
    reference: int
    told: Labelled | None
    calibration: NDArray[np.uint8]
    calibrated_on: str


def is_target(profile: Profile, machine: Machine) -> bool:
    """Whether what is measured here may be said of the target: the same kind of machine, not a stronger or weaker one.

    Of a profile of somebody's own everything that it says must be true of this machine; memory within a fifth, since
    firmware and graphics take their share.
    """
    # As shipped: one of somebody's own may keep the name of the profile that it began as.
    if profile in shipped_profiles():
        match = profile_of(machine)
        return profile.name == "generic" or (match.exact and match.profile.name == profile.name)
    return all((
        profile.architecture in ("any", machine.architecture),
        all(set(group.split("|")) & set(machine.extensions) for group in profile.extensions),
        not profile.boards or any(board in machine.board for board in profile.boards),
        profile.cores in (None, machine.cores),
        profile.memory_mb is None or abs((machine.memory_mb or 0) / profile.memory_mb - 1) <= 0.2,
        not profile.compute_capabilities or bool(machine.nvidia),
    ))  # fmt: skip


class Table:
    """The jobs that measure the plans, and the row each plan becomes."""

    def __init__(
        self, plans: Sequence[Plan], profile: Profile, machine: Machine, checks: dict[Path, tuple[bool, str]],
        films: Films, source: Bundle,
    ) -> None:  # fmt: skip
        self._profile, self._machine, self._checks, self.films, self._source = profile, machine, checks, films, source
        self._target = is_target(profile, machine)
        self.available = {engine.name: runtime(engine.name).available() for engine, _, _ in plans}
        wanted = [job for plan in plans for job in self._jobs(plan)]
        if source.float_model is not None:
            wanted.append(self.alike(source.float_model))
        self.jobs = list(dict.fromkeys(wanted))

    def alike(self, graph: Path) -> Job:
        """A graph through ONNX Runtime, for its numbers only."""
        return Job(PORTABLE, graph, timed=False)

    def own(self, plan: Plan) -> Job | None:
        """The candidate through its own engine; None where that cannot run here."""
        engine, _, graph = plan
        if isinstance(graph, str) or self.available[engine.name] is not True or not self._legal(graph):
            return None
        loaded = next(iter(graph.files.values()))
        if not self._target:
            return Job(engine.name, loaded, timed=False)
        profile = self._profile
        return Job(engine.name, loaded, profile.threads, profile.spinning, profile.arena, timed=True)

    def _jobs(self, plan: Plan) -> list[Job]:
        if isinstance(plan[2], str):
            return []
        own = self.own(plan)
        # What the self-test compares with are ONNX Runtime's numbers of the same graph.
        return [self.alike(plan[2].onnx), *([own] if own else [])]

    def _legal(self, graph: Graph) -> bool:
        return self._checks.get(graph.onnx, (True, ""))[0]

    def candidate(self, plan: Plan, measured: dict[Job, Measured], gate: BuildGate) -> Candidate:
        """The row of the table: what was measured, what could not be, and whether it is inside the gate."""
        engine, precision, graph = plan
        row = Candidate(runtime=engine.name, precision=precision)
        if isinstance(graph, str):
            return row.model_copy(update={"verdict": f"not built: {graph}"})
        own, words = self.own(plan), self._checks.get(graph.onnx, (True, ""))[1]
        size = sum(file.stat().st_size for file in graph.files.values())
        row = row.model_copy(update={"bytes": size, "checked": words})
        if not self._legal(graph):
            return row.model_copy(update={"verdict": f"not legal: {words}"})
        found = measured[own] if own else measured[self.alike(graph.onnx)]
        if found.error:
            return row.model_copy(update={"verdict": f"does not run: {found.error}"})
        if not (np.isfinite(found.logits).all() and np.isfinite(found.atypicality).all()):
            # As 16-bit floats do that overflow: no figure made of these could be held against the gate.
            return row.model_copy(update={"verdict": "gives numbers that are not finite"})
        through = (
            f"{own.runtime} {runtime(own.runtime).version()}"
            if own
            else f"{PORTABLE} {onnxruntime.__version__}, same graph"
        )
        row = row.model_copy(update={"through": through, **self._timing(own, found), **self._losses(found, measured)})
        assert row.agreement is not None  # noqa: S101 - for the type checker: `_losses` gave it
        verdict = outside(gate, row.agreement, row.drift, self._refused(found))
        if not verdict and own and own.runtime != PORTABLE:
            verdict = self._disagrees(graph, found, measured)
        return row.model_copy(update={"verdict": verdict})

    def _timing(self, own: Job | None, found: Measured) -> dict[str, object]:
        if own is None or not found.milliseconds:
            return {}
        p10, median, p90 = (float(x) for x in np.percentile(found.milliseconds, (10, 50, 90)))
        latency = Latency(p10_ms=p10, median_ms=median, p90_ms=p90, runs=len(found.milliseconds), threads=own.threads)
        return {"latency": latency, "peak_memory_mb": found.peak_rss_mb, "measured_on": self._machine.processor}

    def _losses(self, found: Measured, measured: dict[Job, Measured]) -> dict[str, object]:
        n, told = self.films.reference, self.films.told
        logits = np.array(found.logits)
        with np.load(self._source.reference, allow_pickle=False) as stored:
            # The network as it was before rounding: a build cannot be blamed for what pruning cost.
            full = stored["float" if "float" in stored.files else "full"].astype(np.float64)
        losses: dict[str, object] = {"agreement": agreement(full, logits[:n], self._source.manifest)}
        if told is not None:
            losses["drift"] = drift(told, self.full(measured)[n:], logits[n:])
        return losses

    def full(self, measured: dict[Job, Measured]) -> Floats:
        """Logits of all films from the network in full precision as it was before rounding, [N, L]."""
        assert self._source.float_model is not None  # noqa: S101 - asked for only with labels, which need it
        return np.array(measured[self.alike(self._source.float_model)].logits)

    def _refused(self, found: Measured) -> float:
        limit = self._source.manifest.gate
        if limit is None:
            return 0.0
        far = np.array(found.atypicality[: self.films.reference])
        return float((far > limit.threshold).mean()) if len(far) else 1.0

    def _disagrees(self, graph: Graph, found: Measured, measured: dict[Job, Measured]) -> str:
        """Why the self-test would refuse this engine on the machine at hand, or ""."""
        allowed = self.tolerance_of(graph, measured)
        n, alike = self.films.reference, measured[self.alike(graph.onnx)]
        if alike.atypicality:
            astray = float(np.abs(np.array(found.atypicality[:n]) / np.array(alike.atypicality[:n]) - 1).max())
            if astray > ASTRAY:
                return f"disagrees with {PORTABLE} on the same graph: distances from the training films off by {100 * astray:.0f} %"
        off = np.abs(np.array(found.logits[:n]) - np.array(alike.logits[:n]))
        if off.mean() <= allowed.mean and off.max() <= allowed.largest:
            return ""
        return f"disagrees with {PORTABLE} on the same graph: logits differ by {off.mean():.3f} on average, {off.max():.3f} at most"

    def tolerance_of(self, graph: Graph, measured: dict[Job, Measured]) -> Tolerance:
        """How far an engine may be off on this graph."""
        if graph.onnx == self._source.model:
            return self._source.manifest.tolerance
        n = self.films.reference
        logits = np.array(measured[self.alike(graph.onnx)].logits[:n], np.float32)
        return tolerance(graph.onnx, self.films.images[:n], logits)


def choose(candidates: list[Candidate]) -> list[Candidate]:
    """Mark the one to keep: the fastest that was measured; among equals, or where nothing could be, the profile's first."""
    inside = [candidate for candidate in candidates if not candidate.verdict]
    timed = [candidate for candidate in inside if candidate.latency is not None]
    fastest = min((one.latency.p10_ms for one in timed if one.latency), default=0.0)
    quick = [one for one in timed if one.latency and one.latency.p10_ms <= TIE * fastest]
    kept = next(iter(quick or inside), None)
    if kept is None:
        return candidates

    def words(one: Candidate) -> str:
        if one is kept:
            return KEPT
        # As fast as the one that is kept, which stands before it.
        if not timed or one in quick:
            return LATER
        return SLOWER if one.latency else NOT_MEASURED

    return [one.model_copy(update={"verdict": one.verdict or words(one)}) for one in candidates]


def best_of_each(candidates: Sequence[Candidate], plans: Sequence[Plan]) -> list[tuple[Candidate, Graph]]:
    """The kept candidate and, behind it, the best one inside the gate of every other engine: what is fallen back to."""
    pairs = [(row, plan[2]) for row, plan in zip(candidates, plans, strict=True) if isinstance(plan[2], Graph)]
    usable = [pair for pair in pairs if pair[0].verdict in INSIDE]
    usable.sort(key=lambda pair: (pair[0].verdict != KEPT, pair[0].latency.p10_ms if pair[0].latency else np.inf))
    best: dict[str, tuple[Candidate, Graph]] = {}
    for row, graph in usable:
        best.setdefault(row.runtime, (row, graph))
    order = list(dict.fromkeys([usable[0][0].runtime, *(plan[0].name for plan in plans)]))
    return [best[name] for name in order if name in best]
