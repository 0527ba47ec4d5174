"""What a candidate lost, and whether that is inside the gate."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxredge.bundle.built import Agreement, AurocDrift
from cxredge.bundle.manifest import Manifest
from cxredge.errors import DataError
from cxredge.metrics import auroc_drift, mean_auroc_interval
from cxredge.train.judge import measurable
from cxredge.train.sources import Films

Floats = NDArray[np.float64]
# Of the reference films, all of them chest films, that a candidate may turn away.
MOST_REFUSED = 0.05


@dataclass(frozen=True)
class BuildGate:
    """What a candidate must hold against full precision of the very network that the bundle quantizes.

    A build only rounds: what pruning or distilling cost before it was decided when the bundle was compressed, and stands in
    its card. max_drift: on labelled films the mean AUROC may be this much below full precision's; a finding is outside when
    its whole interval lies further below. max_disagreement: mean absolute difference of probabilities on the reference films;
    max_flipped: share of flags that differ there.
    """

    max_drift: float = 0.005
    max_disagreement: float = 0.02
    max_flipped: float = 0.06

    def text(self, *, labelled: bool, pruned: bool) -> str:
        """In words, for the manifest and the table. pruned: full precision is another network than the bundle's parent."""
        agreement = (
            f"mean |difference of probabilities| to full precision at most {self.max_disagreement:g} and at most"
            f" {100 * self.max_flipped:g} % of flags flipped, on the reference films"
        )
        drift = f"mean AUROC drift no worse than -{self.max_drift:g}, no finding's interval wholly below it"
        held = (
            f"{drift}; {agreement}"
            if labelled
            else f"{agreement} (no labels were given, so this is agreement, not AUROC)"
        )
        return held + (
            "; full precision is that of the network after pruning and training on, and what those cost stands at the top of the"
            " model card"
            if pruned
            else ""
        )


@dataclass(frozen=True)
class Labelled:
    """Labelled test films, those findings of the model that they label.

    columns: of the model's outputs. labels: float64 [N, len(columns)] in {0, 1, nan}. sources: [N], the data set of each film.
    source: what a report calls them. unjudged: findings that they label, all with it or all without it.
    """

    columns: tuple[int, ...]
    names: tuple[str, ...]
    labels: Floats
    patients: NDArray[np.str_]
    sources: NDArray[np.str_]
    source: str
    unjudged: tuple[str, ...] = ()


def labelled(films: Films, findings: Sequence[str], source: str) -> Labelled:
    """The labels that tell about the model's findings. Raises DataError when none does."""
    told, unjudged = [], []
    for column, name in enumerate(findings):
        if name in films.findings:
            values = films.labels[:, films.findings.index(name)].astype(np.float64)
            if measurable(values[:, None], sources=films.sources):
                told.append((column, name, values))
            elif not np.isnan(values).all():
                unjudged.append(name)
    if not told:
        raise DataError(
            f"{source}: its test films do not label any of the model's findings ({', '.join(findings)}) with both kinds of film;"
            " give the data set that the model was made for, or leave --data out"
        )
    columns, names, values_of = zip(*told, strict=True)
    labels = np.stack(values_of, axis=1)
    return Labelled(columns, names, labels, films.patients, films.sources, source, tuple(unjudged))


def agreement(full: Floats, logits: Floats, manifest: Manifest) -> Agreement:
    """Of a candidate with full precision on the same films. full, logits: [N, L]."""
    thresholds = np.array([finding.balanced.threshold for finding in manifest.findings])
    was, now = _probabilities(full), _probabilities(logits)
    off = np.abs(now - was)
    flipped = float(((was >= thresholds) != (now >= thresholds)).mean())
    return Agreement(films=len(full), mean=float(off.mean()), largest=float(off.max()), flipped=flipped)


def drift(told: Labelled, full: Floats, logits: Floats) -> AurocDrift:
    """Paired AUROC drift, within each data set. full, logits: [N, L], of the labelled films."""
    columns = list(told.columns)
    findings = {
        name: auroc_drift(told.labels[:, i], full[:, column], logits[:, column], told.patients, told.sources)
        for i, (name, column) in enumerate(zip(told.names, told.columns, strict=True))
    }
    mean = mean_auroc_interval(
        told.labels, logits[:, columns], told.patients, baseline=full[:, columns], sources=told.sources
    )
    some = int((~np.isnan(told.labels).all(1)).sum())
    return AurocDrift(films=some, source=told.source, mean=mean, findings=findings, unjudged=told.unjudged)


def outside(gate: BuildGate, agreed: Agreement, lost: AurocDrift | None, refused: float) -> str:
    """Why a candidate is outside the gate, or "". refused: share of the reference films that it would turn away."""
    reasons = []
    if agreed.mean > gate.max_disagreement:
        reasons.append(f"mean |difference of probabilities| {agreed.mean:.4f}")
    if agreed.flipped > gate.max_flipped:
        reasons.append(f"{100 * agreed.flipped:.1f} % of flags flipped")
    if refused > MOST_REFUSED:
        reasons.append(f"refuses {100 * refused:.0f} % of the reference films")
    if lost is not None:
        if lost.mean.value < -gate.max_drift:
            reasons.append(f"mean AUROC drift {lost.mean.value:+.4f}")
        worse = [name for name, interval in lost.findings.items() if interval.high < -gate.max_drift]
        reasons += [f"{name} {lost.findings[name].value:+.4f}" for name in worse]
    return f"outside the gate: {', '.join(reasons)}" if reasons else ""


def _probabilities(logits: Floats) -> Floats:
    return 1 / (1 + np.exp(-logits))
