"""What a bundle's manifest says of a model, from what it said of validation and test films."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from cxredge.bundle.manifest import Accuracy, Finding
from cxredge.compress.recipe import Recipe
from cxredge.errors import TooFewFilmsError
from cxredge.metrics import (
    auroc_drift,
    auroc_interval,
    mean_auroc_interval,
    sensitivity_point,
    specificity_point,
    youden_point,
)
from cxredge.runtimes import Artifact, runtime
from cxredge.train.labels import without_patients
from cxredge.train.sources import Films

EXPERIMENTAL_BELOW = 0.70


@dataclass(frozen=True)
class Scores:
    """What a graph says of N films through ONNX Runtime: logits float64 [N, L], atypicality float64 [N]."""

    logits: NDArray[np.float64]
    atypicality: NDArray[np.float64]

    @property
    def probabilities(self) -> NDArray[np.float64]:
        return 1 / (1 + np.exp(-self.logits))


def score(graph: Path, planes: NDArray[np.uint8], *, threads: int = 2) -> Scores:
    """Run films one at a time, as a clinic does. planes: uint8 [N, 1, H, W]."""
    engine = runtime("onnxruntime")
    session = engine.load(Artifact("onnxruntime", graph), threads)
    outputs = [session.run(np.ascontiguousarray(plane[None])) for plane in planes]
    session.close()
    logits = np.concatenate([output.logits for output in outputs]).astype(np.float64)
    far = np.concatenate([output.atypicality for output in outputs if output.atypicality is not None]).astype(
        np.float64
    )
    return Scores(logits, far)


def finding_records(
    names: tuple[str, ...], recipe: Recipe, known: NDArray[np.float64], on_validation: NDArray[np.float64],
    truth: NDArray[np.float64], full: NDArray[np.float64], small: NDArray[np.float64], moved: NDArray[np.float64], *,
    validated: NDArray[np.str_], tested: NDArray[np.str_],
) -> tuple[Finding, ...]:  # fmt: skip
    """What the bundle says of each finding. known, on_validation: labels and logits of the validation films, [N, L]; truth, full,
    small: of the test films. validated, tested: whose those films are. moved: see `Finding.rounding`."""
    records = []
    for i, name in enumerate(names):
        for split, labels in (("validation", known[:, i]), ("test", truth[:, i])):
            if not 0 < np.nansum(labels) < np.isfinite(labels).sum():
                raise TooFewFilmsError(f"{name}: the {split} films must hold some with and some without it")
        area = auroc_interval(known[:, i], on_validation[:, i], validated)
        records.append(
            Finding(
                name=name,
                urgent=name in recipe.urgent,
                experimental=area.low < EXPERIMENTAL_BELOW,
                validation_auroc=area,
                test_auroc=auroc_interval(truth[:, i], small[:, i], tested),
                test_positives=int((truth[:, i] == 1).sum()),
                drift=auroc_drift(truth[:, i], full[:, i], small[:, i], tested),
                sensitive=sensitivity_point(known[:, i], on_validation[:, i], patients=validated),
                balanced=youden_point(known[:, i], on_validation[:, i], validated),
                specific=specificity_point(known[:, i], on_validation[:, i], patients=validated),
                rounding=float(moved[i]),
            )
        )
    return tuple(records)


def accuracy_record(
    truth: NDArray[np.float64],
    full: Scores,
    small: Scores,
    patients: NDArray[np.str_],
    records: tuple[Finding, ...],
    source: str,
) -> Accuracy:
    thresholds = np.array([record.balanced.threshold for record in records])
    flipped = float(((full.probabilities >= thresholds) != (small.probabilities >= thresholds)).mean())
    return Accuracy(
        films=len(truth),
        patients=len(set(patients)),
        full=mean_auroc_interval(truth, full.logits, patients),
        compressed=mean_auroc_interval(truth, small.logits, patients),
        drift=mean_auroc_interval(truth, small.logits, patients, baseline=full.logits),
        flipped=flipped,
        source=f"{source} test",
        runtime=f"onnxruntime {onnxruntime.__version__}",
    )


def unnamed_patients(films: Films) -> list[str]:
    """A sentence of warning when a labels table names no patients; intervals are by patient, so by film there."""
    if not (alone := without_patients(films)):
        return []
    return [
        f"The table of {', '.join(alone)} names no patients: each film counts as a patient's only one, so that films of one patient"
        " may have trained and tested, and intervals are too narrow, if somebody has several."
    ]


def film_counts(films: Films) -> dict[str, dict[str, int]]:
    return {
        str(source): {
            split: int(((films.sources == source) & (films.splits == split)).sum())
            for split in ("train", "validation", "test")
        }
        for source in sorted(set(films.sources))
    }
