"""Is this model better than that one? Paired differences on the same films, with intervals."""

from dataclasses import dataclass

import numpy as np

from cxredge.errors import DataError
from cxredge.metrics import Floats, Interval, auroc_drift, mean_auroc_interval
from cxredge.train.engine import engine_version
from cxredge.train.judge import measurable
from cxredge.train.scores import Scores, Tick, score
from cxredge.train.sources import Films
from cxredge.train.subject import RUN_RUNTIME, Subject


@dataclass(frozen=True)
class Difference:
    """One finding. auroc: this model's minus the other's, paired (DeLong, by patient), within each source as in `Judged`. films:
    with a label; positives: with the finding."""

    finding: str
    films: int
    positives: int
    auroc: Interval


@dataclass(frozen=True)
class Against:
    """How far a model is from another one. mean_auroc: this one's minus the other's, over the findings that both look for and
    that have both kinds of film, paired, 95 % interval by bootstrap over patients. films: read by both."""

    model: dict[str, str]
    runtime: str
    films: int
    mean_auroc: Interval
    findings: list[Difference]


def compare_with(
    other: Subject, subject: Subject, films: Films, scores: Scores, runtime: str, *, threads: int, samples: int,
    tick: Tick | None = None,
) -> Against:  # fmt: skip
    """Score the films with the other model too. films: those that `subject` was scored on, `scores` what it said.

    A run is scored in PyTorch, anything else by `runtime`, or by ONNX Runtime where that is PyTorch. Each model reads the films at
    its own size. Raises DataError when the two share no finding that these films can tell of, and the errors of `score`.
    """
    engine = RUN_RUNTIME if other.kind == "run" else "onnxruntime" if runtime == RUN_RUNTIME else runtime
    other = other.on(engine)
    shared = [name for name in films.findings if name in other.findings]
    said = score(other, films.files, engine, threads=threads, tick=tick)
    both = scores.read & said.read
    labels = films.labels.astype(np.float64)[both][:, [films.findings.index(name) for name in shared]]
    patients, sources = films.patients[both], films.sources[both]
    kept = measurable(labels, sources=sources)
    if not kept:
        raise DataError(f"{subject.name} and {other.name} share no finding that these films hold with and without")
    names, labels = [shared[column] for column in kept], labels[:, kept]

    def told(by: Scores, whose: Subject) -> Floats:
        return by.probabilities[both][:, [whose.findings.index(name) for name in names]]

    ours, theirs = told(scores, subject), told(said, other)
    return Against(
        model={"name": other.name, "kind": other.kind, "precision": other.precision, "sha256": other.sha256},
        runtime=engine_version(engine),
        films=int(both.sum()),
        mean_auroc=mean_auroc_interval(labels, ours, patients, baseline=theirs, sources=sources, samples=samples),
        findings=[
            Difference(
                name,
                int((~np.isnan(labels[:, i])).sum()),
                int((labels[:, i] == 1).sum()),
                auroc_drift(labels[:, i], theirs[:, i], ours[:, i], patients, sources),
            )
            for i, name in enumerate(names)
        ],
    )
