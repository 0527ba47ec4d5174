"""Is this model better than that one? Paired differences on the same films, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxredge.errors import DataError
from cxredge.metrics import Floats, Interval, auroc_drift, mean_auroc_interval
from cxredge.train.engine import engine_version
from cxredge.train.judge import measurable
from cxredge.train.scores import Scores, Tick, score
from cxredge.train.sources import Films
from cxredge.train.subject import RUN_RUNTIME, Subject
from cxredge.train.tables import learned_from


@dataclass(frozen=True)
class Difference:
    """One finding. auroc: this model's minus the other's, paired (DeLong, by patient). films: with a label; positives: with the
    finding."""

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


def check_unseen(other: Subject, data: Sequence[Path], films: Films) -> None:
    """Raise DataError when the other model was trained on some of these validation films: it would look better than it is."""
    if other.splits_of is not None and (seen := learned_from(other.splits_of, data, films)):
        raise DataError(
            f"{other.name} was trained on {len(seen)} of these {len(films)} validation films ({seen[0]} first), so it cannot be"
            " compared on them; compare on --split test, or with a model of the same split_seed and validation_share"
        )


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
    kept = measurable(labels)
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
        mean_auroc=mean_auroc_interval(labels, ours, films.patients[both], baseline=theirs, samples=samples),
        findings=[
            Difference(
                name,
                int((~np.isnan(labels[:, i])).sum()),
                int((labels[:, i] == 1).sum()),
                auroc_drift(labels[:, i], theirs[:, i], ours[:, i], films.patients[both]),
            )
            for i, name in enumerate(names)
        ],
    )
