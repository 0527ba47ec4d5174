"""Limits as data: a lab's CI fails when a model is larger, slower or worse than it may be.

[limits]                     # for every model, engine and setting
drift = -0.01                # mean AUROC against the reference, at least
worst_drift = -0.03          # of the worst finding, at least
p90_ms = 50                  # engine alone, one film at a time
peak_rss_mb = 200
size_mb = 5

[models.chestxray14]         # for one model, over the above
p90_ms = 20
"""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cxredge.benchmarks.accuracy import Accuracy
from cxredge.benchmarks.measure import Measured
from cxredge.errors import RecipeError


class Limits(BaseModel):
    """What a model must keep; what is not named is not checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    drift: float | None = None
    worst_drift: float | None = None
    p90_ms: Annotated[float, Field(gt=0)] | None = None
    peak_rss_mb: Annotated[float, Field(gt=0)] | None = None
    size_mb: Annotated[float, Field(gt=0)] | None = None


class LimitsFile(BaseModel):
    """A file of limits, parsed."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    limits: Limits = Limits()
    models: dict[str, Limits] = {}

    def for_model(self, name: str) -> Limits:
        """The general limits with the model's own over them."""
        own = self.models.get(name, Limits()).model_dump(exclude_none=True)
        return self.limits.model_copy(update=own)


def read_limits(file: Path) -> LimitsFile:
    """Raises RecipeError that names the file and every mistake in it."""
    try:
        return LimitsFile.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{file}: cannot be read as TOML ({error})") from None
    except ValidationError as error:
        mistakes = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise RecipeError(f"{file}: {mistakes}") from None


def violations(
    limits: LimitsFile,
    measured: Sequence[Measured],
    accuracy: Sequence[Accuracy],
    *,
    reference: str | None,
    added: bool,
) -> list[str]:
    """One line per broken limit, empty when all are kept. A figure that was not measured breaks its limit.

    reference: the full-precision model's name. added: nobody named it to be measured, it is there to be compared with; then it has
    no limits of its own, unless the file names it.
    """
    found = []
    exempt = reference if added and reference not in limits.models else None
    for one in measured:
        if one.model == exempt:
            continue
        own, where = (
            limits.for_model(one.model),
            f"{one.model} on {one.runtime}, {one.threads} threads, batch {one.batch}",
        )
        found += _above(f"{where}: peak memory", one.peak_rss_mb, own.peak_rss_mb, "MB")
        found += _above(f"{where}: file size", one.size_mb, own.size_mb, "MB")
        if one.batch == 1:
            found += _above(f"{where}: p90", one.engine_only.p90, own.p90_ms, "ms")
    single = {(one.model, one.runtime) for one in measured if one.batch == 1}
    for model, engine in sorted({(one.model, one.runtime) for one in measured} - single):
        if limits.for_model(model).p90_ms is not None and model != exempt:
            found.append(f"{model} on {engine}: p90 at batch 1 was not measured")
    for judged in accuracy:
        # On its first engine it is what the others are held against.
        if judged.model == exempt or (judged.model == reference and judged.drift is None):
            continue
        own, where = limits.for_model(judged.model), f"{judged.model} on {judged.runtime}"
        worst = min((one.drift.value for one in judged.findings if one.drift), default=None)
        found += _below(f"{where}: mean AUROC drift", judged.drift.value if judged.drift else None, own.drift)
        found += _below(f"{where}: worst finding's AUROC drift", worst, own.worst_drift)
        unshared = [one.finding for one in judged.findings if judged.drift and one.drift is None]
        for names, instead in (
            (judged.unjudged, "give films with it and without it"),
            (unshared, f"{reference} does not look for it; name another --reference"),
        ):
            if own.worst_drift is not None and names:
                found.append(f"{where}: {', '.join(names)} could not be judged, and may be the worst; {instead}")
    named = {one.model for one in measured} | {one.model for one in accuracy}
    return found + [f"{name}: has limits but was not measured" for name in limits.models if name not in named]


def _above(what: str, value: float, limit: float | None, unit: str) -> list[str]:
    return [] if limit is None or value <= limit else [f"{what} {value:.2f} {unit}, allowed {limit:g}"]


def _below(what: str, value: float | None, limit: float | None) -> list[str]:
    if limit is None:
        return []
    if value is None:
        return [f"{what} was not measured (no full-precision reference); name one with --reference"]
    return [] if value >= limit else [f"{what} {value:+.4f}, allowed {limit:+.4f}"]
