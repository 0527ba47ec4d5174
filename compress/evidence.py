"""What a model card shows of the published test films: subgroups, calibration, and the surest mistakes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cxredge.bundle.evaluated import (
    Calibration,
    Failure,
    Failures,
    FindingCalibration,
    Kind,
    Subgroup,
    SubgroupAuroc,
    Subgroups,
)
from cxredge.bundle.manifest import Finding
from cxredge.errors import DataError
from cxredge.imaging import Film
from cxredge.imaging.sheet import Tile, contact_sheet
from cxredge.metrics import Floats, auroc_interval, mean_auroc_interval, proportion
from cxredge.runtimes import Outputs
from cxredge.train import plots
from cxredge.train.calibration import BINS, at_share, calibration_errors
from cxredge.train.curves import calibration_error
from cxredge.train.engine import engine_version
from cxredge.train.facts import Facts
from cxredge.train.judge import ENOUGH, ENOUGH_FILMS, comparable, judge_finding, measurable
from cxredge.train.scores import Scores, Tick, score
from cxredge.train.sources import Films, name_of
from cxredge.train.subject import Subject

RUNTIME = "onnxruntime"
SAMPLES = 2000
DIAGRAM, SHEET = "calibration.png", "failures.jpg"
# Data sets whose films may be passed on, with attribution; of others a bundle names films and shows none.
MAY_BE_SHOWN = frozenset({"chestxray14", "kermany"})
# Data sets whose names of films are public; of a lab's own table a name might be a patient's.
MAY_BE_NAMED = MAY_BE_SHOWN | {"chexpert"}


@dataclass(frozen=True)
class Evidence:
    """The manifest's records, and the pictures that they name: name in the bundle -> bytes. probabilities: float64 [N, L]."""

    subgroups: Subgroups
    calibration: Calibration
    failures: Failures
    pictures: dict[str, bytes]
    probabilities: Floats


def gather(
    subject: Subject, findings: Sequence[Finding], films: Films, facts: Facts, source: str,
    *, samples: int = SAMPLES, tick: Tick | None = None,
) -> Evidence:  # fmt: skip
    """Score the test films through ONNX Runtime, one at a time as a clinic does, and measure.

    subject: the portable graph. findings: the model's, in the order of its outputs. films: N test films of `source`, their labels
    [N, L] in that order. samples: draws of the bootstraps. Raises DataError when a film cannot be read, and the errors of `score`.
    """
    scores = score(subject, films.files, RUNTIME, tick=tick)
    if scores.unread:
        raise DataError(f"{len(scores.unread)} test film(s) cannot be read: {next(iter(scores.unread.values()))}")
    labels, told = films.labels.astype(np.float64), scores.probabilities
    failures, sheet = _failures(subject, findings, films, scores, source)
    judged = [judge_finding(f.name, labels[:, i], told[:, i], None, films.patients) for i, f in enumerate(findings)]
    return Evidence(
        subgroups=measure_subgroups(films, facts, told, source, samples=samples),
        calibration=measure_calibration(findings, films, told, source, samples=samples),
        failures=failures,
        pictures={DIAGRAM: plots.calibration_png(judged)} | ({SHEET: sheet} if sheet else {}),
        probabilities=told,
    )


def measure_subgroups(films: Films, facts: Facts, told: Floats, source: str, *, samples: int = SAMPLES) -> Subgroups:
    """AUROC by sex, age band and view. films: N labelled test films; facts: theirs; told: probabilities float64 [N, L].

    Per finding by DeLong with a patient's films together, means by bootstrap over patients; see the record for what is too few.
    """
    labels, groups, unknown = films.labels.astype(np.float64), [], {}
    for axis, named in facts.groups.items():
        present = {name: rows for name, rows in named.items() if rows.any()}
        unknown[axis] = int(len(films) - sum(rows.sum() for rows in present.values()))
        shared = comparable(labels, present)
        for name, rows in present.items():
            truth, own = labels[rows], told[rows]
            shown = measurable(truth, enough=ENOUGH)
            has_mean = bool(shared) and rows.sum() >= ENOUGH_FILMS
            groups.append(
                Subgroup(
                    axis=axis,
                    name=name,
                    films=int(rows.sum()),
                    patients=len(set(films.patients[rows])),
                    findings={
                        finding: SubgroupAuroc(
                            positives=int((truth[:, i] == 1).sum()),
                            negatives=int((truth[:, i] == 0).sum()),
                            auroc=auroc_interval(truth[:, i], own[:, i], films.patients[rows]) if i in shown else None,
                        )
                        for i, finding in enumerate(films.findings)
                    },
                    averaged=tuple(films.findings[i] for i in shared) if has_mean else (),
                    mean=mean_auroc_interval(truth[:, shared], own[:, shared], films.patients[rows], samples=samples)
                    if has_mean
                    else None,
                )
            )
    return Subgroups(
        source=f"{source} test",
        runtime=engine_version(RUNTIME),
        enough=ENOUGH,
        enough_films=ENOUGH_FILMS,
        unknown=unknown,
        groups=tuple(groups),
    )


def measure_calibration(
    findings: Sequence[Finding], films: Films, told: Floats, source: str, *, samples: int = SAMPLES
) -> Calibration:
    """Calibration error per finding and its mean. films: N labelled test films; told: probabilities float64 [N, L].

    findings: with the counts of the validation films. Raises TooFewFilmsError when no film is labelled for a finding.
    """
    labels = films.labels.astype(np.float64)
    errors, mean = calibration_errors(labels, told, films.patients, samples=samples)
    found = {}
    for i, finding in enumerate(findings):
        mask = ~np.isnan(labels[:, i])
        truth, own = labels[mask, i] > 0.5, told[mask, i]
        share = proportion(truth, films.patients[mask])
        known = finding.balanced.positives / (finding.balanced.positives + finding.balanced.negatives)
        found[finding.name] = FindingCalibration(
            error=errors[i].error,
            by_chance=errors[i].by_chance,
            predicted=float(own.mean()),
            share=share,
            known_share=known,
            at_this_share=calibration_error(truth, at_share(own, known, share.value)),
        )
    return Calibration(
        source=f"{source} test",
        runtime=engine_version(RUNTIME),
        films=len(films),
        bins=BINS,
        mean=mean.error,
        findings=found,
        diagram=DIAGRAM,
    )


def _failures(
    subject: Subject, findings: Sequence[Finding], films: Films, scores: Scores, source: str
) -> tuple[Failures, bytes | None]:
    """The films, and a sheet of them where they may be passed on."""
    looked_at = [i for i, f in enumerate(findings) if f.urgent] or list(range(len(findings)))
    reaches_a_reader = np.ones(len(films), bool)
    if subject.gate is not None and scores.atypicality is not None:
        reaches_a_reader = scores.atypicality <= subject.gate
    shown, rows = [], []
    for i in looked_at:
        truth, told, threshold = films.labels[:, i], scores.probabilities[:, i], findings[i].balanced.threshold
        alarms = reaches_a_reader & (truth == 0) & (told >= threshold)
        misses = reaches_a_reader & (truth == 1) & (told < threshold)
        sides: tuple[tuple[Kind, NDArray[np.bool_], Floats], ...] = (
            ("false alarm", alarms, -told),
            ("miss", misses, told),
        )
        for kind, mask, order in sides:
            if not mask.any():
                continue
            row = int(np.flatnonzero(mask)[np.argmin(order[mask])])
            rows.append((row, i))
            shown.append(
                Failure(
                    finding=findings[i].name,
                    kind=kind,
                    film=name_of(films.files[row]) if source in MAY_BE_NAMED else "",
                    labels=tuple(films.findings[c] for c in np.flatnonzero(films.labels[row] == 1)),
                    probability=float(told[row]),
                    threshold=threshold,
                )
            )
    sheet = _sheet(subject, films, rows, shown) if shown and source in MAY_BE_SHOWN else None
    record = Failures(
        source=f"{source} test",
        runtime=engine_version(RUNTIME),
        looked_at=tuple(findings[i].name for i in looked_at),
        shown=tuple(shown),
        sheet=SHEET if sheet else None,
    )
    return record, sheet


def _sheet(subject: Subject, films: Films, rows: list[tuple[int, int]], shown: list[Failure]) -> bytes:
    wanted = sorted({row for row, _ in rows})
    seen: dict[int, tuple[Film, Outputs]] = {}

    def keep(position: int, film: Film, outputs: Outputs) -> None:
        seen[wanted[position]] = (film, outputs)

    score(subject, [films.files[row] for row in wanted], RUNTIME, look=keep)
    return contact_sheet(
        [
            Tile(seen[row][0], seen[row][1].cam[0, column], caption(failure))
            for (row, column), failure in zip(rows, shown, strict=True)
        ]
    )


def caption(failure: Failure) -> tuple[str, str, str]:
    """What stands below the film: finding and kind with the probability, the labels, the film's name."""
    said = ", ".join(map(plots.readable, failure.labels)) or "none of the findings"
    return (
        f"{plots.readable(failure.finding)}: {failure.kind}, p {failure.probability:.2f}",
        f"labelled: {said}",
        failure.film,
    )


def labelled_as(films: Films, names: Sequence[str]) -> Films:
    """The films with the labels of a model's findings, in its order. Raises DataError when one is not among theirs."""
    if missing := [name for name in names if name not in films.findings]:
        raise DataError(f"the films are not labelled for {', '.join(missing)}")
    return replace(films, findings=tuple(names), labels=films.labels[:, [films.findings.index(name) for name in names]])
