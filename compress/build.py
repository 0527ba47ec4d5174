"""From a bundle to a bundle for one device: make the graphs, measure what runs here, keep the fastest inside the gate."""

import hashlib
import io
import json
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from cxredge import __version__
from cxredge.bundle import Bundle, Manifest, write_bundle
from cxredge.bundle.built import Build, Settings
from cxredge.bundle.bundle import check_output
from cxredge.bundle.manifest import EngineGraph, Finding
from cxredge.bundle.selftest import distances_name
from cxredge.bundle.signature import sign
from cxredge.compress.build_card import with_build
from cxredge.compress.candidate_graphs import Graph, Graphs
from cxredge.compress.candidates import INSIDE, KEPT, PORTABLE, Films, Plan, Table, best_of_each, choose
from cxredge.compress.measure import Job, Measured, Tick, measure
from cxredge.compress.tensorrt_check import take
from cxredge.compress.tolerance import MOVED_LESS
from cxredge.compress.verdict import BuildGate, labelled
from cxredge.devices import Engine, Machine, Profile, this_machine
from cxredge.errors import CxredgeError, DataError
from cxredge.imaging import Preprocessing
from cxredge.runtimes import runtime
from cxredge.scan.decide import nearness
from cxredge.train.planes import cached_planes
from cxredge.train.tables import read_films

CALIBRATION_FILMS = 128
Say = Callable[[str], None]


class OutsideGateError(CxredgeError):
    """No candidate lost little enough, or none that opens on any machine; nothing was written."""

    def __init__(self, build: Build) -> None:
        kept = any(candidate.verdict == KEPT for candidate in build.candidates)
        which = f"no candidate through {PORTABLE}, which every machine has," if kept else "no candidate"
        super().__init__(
            f"{which} for {build.target} is inside the gate ({build.gate}); nothing was written. Compress the model anew,"
            " or raise the limit that is broken if you know what it costs (--max-drift, --max-disagreement, --max-flipped)"
        )
        self.build = build


def build(
    source: Bundle, profile: Profile, out: Path, *, data: Sequence[Path] = (), gate: BuildGate | None = None,
    key: Path | None = None, cache: Path, afresh: bool = False, say: Say = print, tick: Tick | None = None,
) -> Bundle:  # fmt: skip
    """Build a bundle for a device and write it to `out`, or write nothing.

    data: labelled data sets; their training films calibrate and their official test films judge. Without, both are the bundle's
    reference films. key: private key to sign with. cache: folder for graphs and for what was measured here of the very same
    files before, which is not measured again unless `afresh`. tick: steps of measuring done, and in all.
    Raises OutsideGateError with the table, DataError, KeyFileError and OutputError.
    """
    # What would only fail at the end fails at once.
    check_output(out)
    if key is not None:
        sign(b"", key)
    gate, machine = gate or BuildGate(), this_machine()
    with np.load(source.reference, allow_pickle=False) as stored:
        arrays = {
            name: stored[name] for name in ("images", "logits", "full", "float", "atypicality") if name in stored.files
        }
    films = _films(source, arrays["images"], data, cache)
    if films.told is not None and source.float_model is None:
        raise DataError(
            f"{source.folder}: carries no full-precision network to measure drift against; compress the run again, or leave"
            " --data out"
        )
    graphs = Graphs(source, films.calibration, cache)
    plans = []
    for engine in _with_portable(profile, source.manifest):
        for precision in engine.precisions:
            say(f"Making {engine.name} {precision}")
            plans.append((engine, precision, graphs.make(engine, precision, profile)))
    checks = {plan[2].onnx: take(plan[2].onnx, profile.compute_capabilities)
              for plan in plans if isinstance(plan[2], Graph) and plan[0].name.startswith("tensorrt")}  # fmt: skip

    table = Table(plans, profile, machine, checks, films, source)
    say("Measuring, candidates in turn")
    measured = _measured(table.jobs, films.images, machine, cache, afresh, tick)
    candidates = choose([table.candidate(plan, measured, gate) for plan in plans])
    record = Build(
        target=profile.name,
        title=profile.title,
        gate=gate.text(labelled=films.told is not None, pruned=source.manifest.float_model is not None),
        calibration=films.calibrated_on,
        machine=machine.text,
        candidates=tuple(candidates),
        settings=Settings(threads=profile.threads, spinning=profile.spinning, arena=profile.arena),
    )
    if not any(candidate.runtime == PORTABLE and candidate.verdict in INSIDE for candidate in candidates):
        raise OutsideGateError(record)
    return _write(source, record, table, plans, measured, arrays, out, key)


def _films(source: Bundle, reference: NDArray[np.uint8], data: Sequence[Path], cache: Path) -> Films:
    by_reference = f"the bundle's {len(reference)} reference films, the same that agreement is measured on"
    if not data:
        return Films(reference, len(reference), None, reference, by_reference)
    record = source.manifest.preprocessing
    preprocessing = Preprocessing(size=record.size, clahe=record.clahe)
    known = read_films(data, "all")
    test, train = known.split("test"), known.take(known.splits == "train")
    name = "+".join(sorted(set(test.sources)))
    told = labelled(test, source.manifest.names, f"{name} test")
    images = np.concatenate([reference, cached_planes(test.files, preprocessing, cache / "films")])
    if not len(train):
        return Films(images, len(reference), told, reference, by_reference)
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.choice(len(train), min(CALIBRATION_FILMS, len(train)), replace=False))
    calibration = np.array(cached_planes(train.take(chosen).files, preprocessing, cache / "films"))
    return Films(images, len(reference), told, calibration, f"{len(calibration)} training films of {name}")


def _with_portable(profile: Profile, manifest: Manifest) -> Sequence[Engine]:
    """The profile's engines, and ONNX Runtime behind them, so that the bundle opens anywhere: with the portable model, or in full
    precision where that is outside the gate."""
    if PORTABLE in profile.runtimes:
        return profile.engines
    precisions = tuple(dict.fromkeys((manifest.precision, "fp32")))
    portable = Engine(PORTABLE, precisions, "unsigned", 8, "int32", "added: the bundle must open on any machine")
    return (*profile.engines, portable)


def _measured(
    jobs: Sequence[Job], images: NDArray[np.uint8], machine: Machine, cache: Path, afresh: bool, tick: Tick | None
) -> dict[Job, Measured]:
    """Measure all jobs, or take over what the very same files gave on this machine before.

    Numbers do not depend on what else is measured, times do: those are kept of all timed candidates together or not at all.
    """
    timed = [job for job in jobs if job.timed]
    groups = [timed, *([job] for job in jobs if not job.timed)]
    films = hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()
    found: dict[Job, Measured] = {}
    stores = {}
    for group in filter(None, groups):
        said = [films, machine.text, __version__, *(_said(job) for job in group)]
        stores[tuple(group)] = cache / "measured" / f"{hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]}.json"
    for jobs_of, stored in stores.items():
        with suppress(OSError, ValueError, TypeError):
            if not afresh:
                found |= dict(zip(jobs_of, _read_kept(stored), strict=True))
    missing = [job for job in jobs if job not in found]
    found |= dict(zip(missing, measure(missing, images, tick=tick), strict=True))
    for jobs_of, stored in stores.items():
        # What fails today may run tomorrow.
        if set(jobs_of) & set(missing) and not any(found[job].error for job in jobs_of):
            _keep([found[job] for job in jobs_of], stored)
    return found


def _keep(measured: Sequence[Measured], stored: Path) -> None:
    """Behind the hash of it: what the disk did to a digit nobody would see."""
    said = json.dumps([asdict(one) for one in measured])
    stored.parent.mkdir(parents=True, exist_ok=True)
    stored.write_text(f"{hashlib.sha256(said.encode()).hexdigest()}\n{said}", encoding="utf-8")


def _read_kept(stored: Path) -> list[Measured]:
    """What `_keep` wrote. Raises OSError, ValueError or TypeError for anything else."""
    digest, _, said = stored.read_text(encoding="utf-8").partition("\n")
    if hashlib.sha256(said.encode()).hexdigest() != digest:
        raise ValueError("not what was written")
    return [Measured(**one) for one in json.loads(said)]


def _said(job: Job) -> list[object]:
    """What a measurement depends on: the engine and its version, the graph's content, the options."""
    options = [job.threads, job.spinning, job.arena, job.timed]
    return [job.runtime, runtime(job.runtime).version(), _hash(job.graph), options]


def _hash(graph: Path) -> str:
    parts = [graph, *([graph.with_suffix(".bin")] if graph.suffix == ".xml" else [])]
    return hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()


def _write(
    source: Bundle, record: Build, table: Table, plans: Sequence[Plan], measured: dict[Job, Measured],
    arrays: dict[str, NDArray[Any]], out: Path, key: Path | None,
) -> Bundle:  # fmt: skip
    chosen = best_of_each(record.candidates, plans)
    files: dict[str, Path | bytes] = {source.manifest.model: source.model}
    for kept in (source.manifest.full_model, source.manifest.float_model):
        if kept is not None:
            files[kept] = source.folder / kept
    # The card shows them.
    files |= {name: source.folder / name for name in source.manifest.pictures}
    graphs: dict[str, EngineGraph] = {}
    for row, graph in chosen:
        files |= graph.files
        through, n = measured[table.alike(graph.onnx)], table.films.reference
        arrays.setdefault(graph.logits, np.array(through.logits[:n], np.float32))
        if through.atypicality:
            arrays.setdefault(distances_name(graph.logits), np.array(through.atypicality[:n], np.float32))
        loaded = next(iter(graph.files))
        if loaded != source.manifest.model:
            allowed = table.tolerance_of(graph, measured)
            graphs[row.runtime] = EngineGraph(
                file=loaded, precision=row.precision, logits=graph.logits, tolerance=allowed
            )
    stored = io.BytesIO()
    np.savez_compressed(stored, allow_pickle=False, **arrays)
    files["reference.npz"] = stored.getvalue()
    manifest = source.manifest.model_copy(
        update={
            "target": record.target,
            "runtimes": tuple(row.runtime for row, _ in chosen),
            "findings": _as_near(source.manifest, arrays, [graph.logits for graph in graphs.values()]),
            "graphs": graphs,
            "build": record,
            "software": source.manifest.software | _software([row.runtime for row, _ in chosen]),
        }
    )
    card = (source.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    files["MODEL_CARD.md"] = with_build(card, manifest).encode()
    return write_bundle(out, files, lambda hashes: manifest.model_copy(update={"files": hashes}), key=key)


def _as_near(manifest: Manifest, arrays: dict[str, NDArray[Any]], logits: Sequence[str]) -> tuple[Finding, ...]:
    """The findings, `rounding` widened by as much as an engine's own graph rounds more than the portable one, on reference films.

    So scores near a threshold go to a person whichever engine gives them. logits: names in `arrays` of what such graphs say.
    """

    def moved(name: str) -> float:
        return float(np.quantile(np.abs(arrays[name] - arrays["full"]), MOVED_LESS))

    more = max((moved(name) - moved("logits") for name in logits), default=0.0)
    if more <= 0:
        return manifest.findings
    return tuple(one.model_copy(update={"rounding": nearness(one, manifest) + more}) for one in manifest.findings)


def _software(runtimes: Sequence[str]) -> dict[str, str]:
    found = {"build": f"cxredge {__version__}, python {platform.python_version()}, onnx {onnx.__version__}",
             "onnxruntime": str(onnxruntime.__version__)}  # fmt: skip
    for name in runtimes:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name.replace("_", "-"))
    return found
