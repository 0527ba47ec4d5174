"""What a network reaches on the validation films."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cxredge.errors import TooFewFilmsError
from cxredge.metrics import auroc
from cxredge.train.processes import Processes
from cxredge.train.sources import Films


@torch.no_grad()
def predict(
    network: nn.Module, planes: NDArray[np.uint8], rows: NDArray[np.intp], batch_size: int, on: Processes
) -> NDArray[np.float64]:
    """Logits of these rows, float64 [len(rows), L], in full precision; several processes share the work and all get the result.

    planes: uint8 [N, 1, H, W].
    """
    network.eval()
    mine = np.array_split(rows, on.count)[on.rank]
    parts = [
        network(torch.from_numpy(np.ascontiguousarray(planes[mine[i : i + batch_size]])).to(on.device))
        .double()
        .cpu()
        .numpy()
        for i in range(0, len(mine), batch_size)
    ]
    return np.concatenate([part for share in on.gather(parts) for part in share])


def validation_auroc(
    labels: NDArray[np.float32], logits: NDArray[np.float64], findings: tuple[str, ...], sources: NDArray[np.str_]
) -> dict[str, float]:
    """AUROC per finding; nan where the films hold no positive or no negative.

    sources: [N]. Where several label a finding, the mean of its AUROC within each: between them a network can tell the hospital
    and nothing of the disease.
    """
    per_source = [
        _aurocs(labels[sources == source], logits[sources == source], findings) for source in sorted(set(sources))
    ]
    return {
        finding: mean_auroc({str(i): scores[finding] for i, scores in enumerate(per_source)}) for finding in findings
    }


def _aurocs(labels: NDArray[np.float32], logits: NDArray[np.float64], findings: tuple[str, ...]) -> dict[str, float]:
    scores = {}
    for column, finding in enumerate(findings):
        try:
            scores[finding] = auroc(labels[:, column].astype(np.float64), logits[:, column])
        except TooFewFilmsError:
            scores[finding] = math.nan
    return scores


def mean_auroc(scores: dict[str, float]) -> float:
    """Mean over the findings that have one; nan when none has."""
    told = [score for score in scores.values() if not math.isnan(score)]
    return float(np.mean(told)) if told else math.nan


def means_by_source(films: Films, logits: NDArray[np.float64]) -> str:
    """Mean AUROC within each source, for a person watching. films: those the logits [N, L] are of."""
    means = {
        source: mean_auroc(
            _aurocs(films.labels[films.sources == source], logits[films.sources == source], films.findings)
        )
        for source in sorted(set(films.sources))
    }
    return ", ".join(f"{source} {mean:.4f}" for source, mean in means.items() if not math.isnan(mean))
