"""Every form of the network on the test films, side by side: what the compression report says."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from cxredge.bundle.evaluated import Step
from cxredge.compress.chain import Stage
from cxredge.compress.export import head_for
from cxredge.compress.family import Member
from cxredge.compress.fused import fused
from cxredge.compress.measure import Job, Tick, measure
from cxredge.compress.records import score
from cxredge.compress.report import ENGINES, Judged, Parity, Row, parity, probabilities, row, write_report
from cxredge.compress.to_int8 import Int8
from cxredge.errors import CxredgeError
from cxredge.imaging import Preprocessing
from cxredge.metrics import Floats, youden_point
from cxredge.runtimes import runtime
from cxredge.train.macs import macs_of

# Films that go through the simulation of rounding in torch too.
SIMULATED = 200


@dataclass(frozen=True)
class Form:
    """A graph of the network as one step left it, calibrated. macs: None where the step changes none.

    everywhere: whether OpenVINO runs it too.
    """

    step: str
    graph: Path
    megabytes: float
    parameters: int
    macs: float | None
    everywhere: bool = False


@dataclass(frozen=True)
class Films:
    """planes: uint8 [N, 1, H, W]. truth: float [N, L] in {0, 1, nan}. patients: [N]."""

    planes: NDArray[np.uint8]
    truth: Floats
    patients: NDArray[np.str_]


def report_costs(
    out: Path, title: str, source: str, graphs: Sequence[tuple[Path, Path]], stages: Sequence[Stage],
    made: Int8, calibration: tuple[Floats, Floats], names: Sequence[str],
    test: Films, validation: Films, files: Sequence[Path], preprocessing: Preprocessing, *,
    family: Sequence[Member], views: int = 1,
) -> tuple[Step, ...]:  # fmt: skip
    """Measure every form of the network and write what compression cost; what of it the manifest keeps.

    graphs: a stage each, then the quantized ones; the file in 32-bit floats, whose size is told, and the one that the bundle
    carries, which is measured. made: how the last graph was quantized. calibration: of the last graph.
    family: what was exported. views: how often a graph reads a film, 2 where its mirror image counts too.
    """
    size = preprocessing.size
    forms = []
    for number, (whole, graph) in enumerate(graphs):
        stage = stages[min(number, len(stages) - 1)]
        network = copy.deepcopy(stage.network)
        # As the graphs have it: for the findings carried and no others.
        network.head = head_for(stage.network, list(range(len(names))))
        macs = macs_of(network, size)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        last = number == len(graphs) - 1
        left = "as taken from the bundle" if stage.name == "take" else stage.name
        step = left if number < len(stages) else "INT8" if last else "INT8, rounded only"
        changed = number == 0 or stage.name in {"distil", "prune", "take"}
        forms.append(
            Form(
                step,
                graph,
                whole.stat().st_size / 1e6,
                parameters,
                views * macs if changed and number < len(stages) else None,
                everywhere=number == 0 or last,
            )
        )
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("Forms of the network", total=None)
        found = costs(
            forms, test, validation, names, tick=lambda done, steps: bar.update(task, completed=done, total=steps)
        )
    scans = [(stage.name, stage.probes) for stage in stages if stage.probes]
    first, last_logits = found[0][1], [logits for each, logits in found if each.engine == "onnxruntime"][-1]
    write_report(
        out, [each for each, _ in found], parities(found, made.simulated, calibration, test), title=title,
        source=f"{source} test", truth=test.truth, names=names, files=files, preprocessing=preprocessing,
        graphs=(graphs[0][1], graphs[-1][1]), scans=scans, made=made, family=family,
        differ=probabilities(last_logits) - probabilities(first),
    )  # fmt: skip
    # Through one engine, and no times: the same run gives the same manifest.
    return tuple(
        Step(name=each.step, megabytes=each.megabytes, auroc=each.auroc, drift=each.drift, flipped=each.flipped)
        for each, _ in found
        if each.engine == "onnxruntime"
    )


def costs(
    forms: Sequence[Form], test: Films, validation: Films, names: Sequence[str], *, tick: Tick | None = None
) -> list[tuple[Row, Floats]]:
    """A row per form and engine, the parent's first, each with its logits of the test films [N, L].

    Raises CxredgeError where an engine cannot run a form.
    """
    plans = [
        (form, engine)
        for form in forms
        for engine in ENGINES
        if engine == "onnxruntime" or (form.everywhere and runtime(engine).available() is True)
    ]
    jobs = [Job(engine, form.graph) for form, engine in plans]
    found = measure(jobs, test.planes, tick=tick)
    # Flags of all forms at the points of the one that is shipped, which the manifest holds.
    chances = probabilities(score(forms[-1].graph, validation.planes).logits)
    points = np.array([youden_point(validation.truth[:, i], chances[:, i]).threshold for i in range(len(names))])
    rows: list[tuple[Row, Floats]] = []
    parent: Judged | None = None
    for (form, engine), measured in zip(plans, found, strict=True):
        if measured.error:
            raise CxredgeError(f"{ENGINES[engine]} cannot run {form.step}: {measured.error}")
        logits = np.array(measured.logits, np.float64)
        judged = Judged(logits, points)
        made = row(
            form.step, engine, judged, parent, truth=test.truth, patients=test.patients, names=names,
            parameters=form.parameters, macs=form.macs, megabytes=form.megabytes,
            milliseconds=float(np.median(measured.milliseconds)), fused=fused(engine, form.graph),
        )  # fmt: skip
        parent = parent or judged
        rows.append((made, logits))
    return rows


def parities(
    rows: Sequence[tuple[Row, Floats]],
    simulated: nn.Module | None,
    calibration: tuple[Floats, Floats],
    test: Films,
) -> list[Parity]:
    """The last form through its engines, and through torch where its rounding was trained. calibration: scale and bias [L]."""
    step = rows[-1][0].step
    last = [(ENGINES[each.engine], logits) for each, logits in rows if each.step == step]
    (first_name, first), *others = last
    found = [parity(f"{first_name} and {name}", first, logits, test.truth, test.patients) for name, logits in others]
    if simulated is not None:
        some = _sample(test.truth)
        logits = _simulated(simulated, test.planes[some]) * calibration[0] + calibration[1]
        found.append(
            parity(
                f"torch, rounding simulated, and {first_name}",
                logits,
                first[some],
                test.truth[some],
                test.patients[some],
            )
        )
    return found


def _sample(truth: Floats) -> NDArray[np.intp]:
    """About `SIMULATED` films from all of a set, since a set may lie in the order of its classes; of each finding both kinds."""
    spread = np.linspace(0, len(truth) - 1, min(SIMULATED, len(truth))).astype(np.intp)
    both = [np.argmax(column == value) for column in truth.T for value in (0, 1)]
    return np.unique([*spread, *both])


@torch.no_grad()
def _simulated(contract: nn.Module, planes: NDArray[np.uint8], batch: int = 20) -> Floats:
    parts = torch.from_numpy(np.ascontiguousarray(planes)).split(batch)
    found: Floats = torch.cat([contract(part)[0] for part in parts]).double().numpy()
    return found
