"""What every step of a compression cost, as JSON and as a page: size, speed, AUROC, drift, flags that flip, films that differ."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxredge import __version__
from cxredge.compress.family import Member
from cxredge.compress.fused import Fused
from cxredge.compress.sensitivity import Probe, drawn
from cxredge.compress.to_int8 import Int8
from cxredge.devices import this_machine
from cxredge.imaging import Preprocessing, read_film
from cxredge.imaging.sheet import Tile, contact_sheet
from cxredge.metrics import Floats, Interval, auroc_drift, auroc_interval, mean_auroc_interval
from cxredge.runtimes import Artifact, runtime
from cxredge.train import plots
from cxredge.train.page import environment
from cxredge.train.sources import name_of

ENGINES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
# Films that disagree most are shown, that many.
SHOWN = 8


@dataclass(frozen=True)
class Row:
    """One network at one step, through one engine.

    macs: multiplications a film; None where the step changed none. milliseconds: median of a film, one thread, all rows measured
    in turns in one run. flipped: share of film and finding pairs whose flag differs from the parent's, both at the operating
    point of what is shipped (Youden's index on validation). findings, drifts: AUROC per finding, and against the parent, paired.
    """

    step: str
    engine: str
    parameters: int
    macs: float | None
    megabytes: float
    milliseconds: float
    auroc: Interval
    drift: Interval | None
    flipped: float | None
    findings: dict[str, Interval]
    drifts: dict[str, Interval]
    fused: Fused | None


@dataclass(frozen=True)
class Parity:
    """The same films through two forms of the quantized network: mean and largest difference of probability, and of AUROC."""

    between: str
    films: int
    mean_probability: float
    largest_probability: float
    mean_auroc: float


@dataclass(frozen=True)
class Judged:
    """Logits of test films, float64 [N, L], with what flags them: thresholds of probability [L]."""

    logits: Floats
    thresholds: Floats

    @property
    def flags(self) -> NDArray[np.bool_]:
        """bool [N, L]."""
        flags: NDArray[np.bool_] = probabilities(self.logits) >= self.thresholds
        return flags


def probabilities(logits: Floats) -> Floats:
    """The logistic function."""
    found: Floats = 1 / (1 + np.exp(-logits))
    return found


def row(
    step: str, engine: str, judged: Judged, parent: Judged | None, *, truth: Floats, patients: NDArray[np.str_],
    names: Sequence[str], **measured: Any,
) -> Row:  # fmt: skip
    """Figures of one form of the network on the test films. truth: [N, L] in {0, 1, nan}. parent: None for the parent itself."""
    base = parent.logits if parent else None
    return Row(
        step=step,
        engine=engine,
        auroc=mean_auroc_interval(truth, judged.logits, patients),
        drift=None if base is None else mean_auroc_interval(truth, judged.logits, patients, baseline=base),
        flipped=None if parent is None else float((judged.flags != parent.flags).mean()),
        findings={name: auroc_interval(truth[:, i], judged.logits[:, i], patients) for i, name in enumerate(names)},
        drifts={}
        if base is None
        else {
            name: auroc_drift(truth[:, i], base[:, i], judged.logits[:, i], patients) for i, name in enumerate(names)
        },
        **measured,
    )


def parity(between: str, one: Floats, other: Floats, truth: Floats, patients: NDArray[np.str_]) -> Parity:
    """How far two forms of one network are apart on the same films. one, other: logits [N, L]."""
    off = np.abs(probabilities(one) - probabilities(other))
    drift = mean_auroc_interval(truth, other, patients, baseline=one).value
    return Parity(between, len(one), float(off.mean()), float(off.max()), drift)


def write_report(
    out: Path, rows: Sequence[Row], parities: Sequence[Parity], *, title: str, source: str, truth: Floats, names: Sequence[str],
    files: Sequence[Path], preprocessing: Preprocessing, graphs: tuple[Path, Path], differ: Floats,
    scans: Sequence[tuple[str, Sequence[Probe]]] = (), made: Int8, family: Sequence[Member] = (),
) -> None:  # fmt: skip
    """Write `compression.json` and `compression.html` into the folder `out`.

    rows: the parent first, what is shipped last. graphs: those two. files: the test films; differ: the two graphs' difference of
    probability on them, [N, L]. scans: of the steps that made one, with the step's name. made: how the last graph was quantized.
    family: what was exported.
    """
    out.mkdir(parents=True, exist_ok=True)
    apart = _furthest_apart(differ)
    said = {
        "title": title,
        "date": date.today().isoformat(),
        "cxredge": __version__,
        "machine": this_machine().text,
        "films": len(truth),
        "source": source,
        "rows": [asdict(each) for each in rows],
        "parity": [asdict(each) for each in parities],
        "furthest_apart": [
            {"film": name_of(files[film]), "finding": names[finding], "difference": float(differ[film, finding])}
            for film, finding in apart
        ],
        "sensitivity": [{"step": step, "probes": [asdict(probe) for probe in probes]} for step, probes in scans],
        "speedup": made.speedup or {},
        "graphs": [asdict(each) for each in family],
        "accuracy_control": asdict(made.controlled) if made.controlled else None,
    }
    (out / "compression.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    positives = {name: int(np.nansum(truth[:, i])) for i, name in enumerate(names)}
    rarest = sorted(names, key=positives.__getitem__)
    forests = [
        (each, plots.forest(
            [(f"{plots.readable(name)} ({positives[name]})", each.drifts[name]) for name in rarest],
            "AUROC minus the parent's", zero=True, shade=0.005,
        )) for each in rows if each.drifts and each.engine == "onnxruntime"
    ]  # fmt: skip
    tiles = _tiles(apart, names, files, preprocessing, graphs)
    page = environment("cxredge.compress").get_template("compression.html.j2").render(
        said=said, rows=rows, parities=parities, forests=forests, pareto=_pareto(rows), rarest=rarest, positives=positives,
        engines=ENGINES, sheet=contact_sheet(tiles, columns=4) if tiles else None,
        scans=[(step, probes, drawn(probes)) for step, probes in scans], controlled=made.controlled, family=family,
    )  # fmt: skip
    (out / "compression.html").write_text(page, encoding="utf-8")


def _furthest_apart(differ: Floats) -> list[tuple[int, int]]:
    """Film and finding of the largest differences, one finding a film."""
    worst = np.abs(differ).argmax(1)
    films = np.argsort(-np.abs(differ)[np.arange(len(differ)), worst], kind="stable")[:SHOWN]
    return [(int(film), int(worst[film])) for film in films]


def _tiles(
    apart: Sequence[tuple[int, int]], names: Sequence[str], files: Sequence[Path], preprocessing: Preprocessing,
    graphs: tuple[Path, Path],
) -> list[Tile]:  # fmt: skip
    sessions = [runtime("onnxruntime").load(Artifact("onnxruntime", graph), 1) for graph in graphs]
    tiles = []
    for film, finding in apart:
        read = read_film(files[film], preprocessing)
        for who, session in zip(("full precision", "compressed"), sessions, strict=True):
            outputs = session.run(read.image[None])
            chance = probabilities(outputs.logits[0].astype(np.float64))[finding]
            lines = name_of(files[film]), f"{plots.readable(names[finding])}: {chance:.2f}", who
            tiles.append(Tile(read, outputs.cam[0, finding], lines))
    for session in sessions:
        session.close()
    return tiles


def _pareto(rows: Sequence[Row]) -> str:
    """Latency against AUROC, one mark a row, its area the size of the file."""
    from matplotlib.ticker import MaxNLocator

    with plots.drawing(6.4, 3.4) as (figure, axes):
        ax = axes[0, 0]
        for number, each in enumerate(rows, 1):
            colour = plots.BLUE if each.engine == "onnxruntime" else plots.VERMILION
            ax.plot([each.milliseconds] * 2, [each.auroc.low, each.auroc.high], color=colour, lw=1)
            ax.scatter(each.milliseconds, each.auroc.value, s=12 * each.megabytes + 12, color=colour, alpha=0.7)
            ax.annotate(str(number), (each.milliseconds, each.auroc.value), xytext=(5, 5), textcoords="offset points")
        ax.set_xscale("log")
        # Plain milliseconds: a range this narrow has no power of ten in it.
        ax.xaxis.set_major_locator(MaxNLocator(6))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("")
        ax.set_xlabel("milliseconds a film, one thread")
        ax.set_ylabel("mean AUROC")
        return plots.svg(figure)
