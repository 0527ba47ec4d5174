"""The parts of a model card that the test films alone can fill: subgroups, calibration, known failures, what it took."""

from collections.abc import Sequence
from typing import Any

from cxredge.bundle.evaluated import Calibration, Failures, FindingCalibration, Subgroup, SubgroupAuroc, Subgroups
from cxredge.bundle.manifest import Manifest
from cxredge.metrics import Interval

# Above it the card says why; about what a reader of a probability would notice.
CALIBRATED_BELOW = 0.05
NOT_KNOWN = "not known"


def interval(x: Interval) -> str:
    """0.812 (0.780-0.841)."""
    return f"{x.value:.3f} ({x.low:.3f}-{x.high:.3f})"


def subgroup_lines(found: Subgroups | None) -> list[str]:
    """AUROC by sex, age band and view."""
    head = ["## Subgroups", ""]
    if found is None:
        return [*head, "Not measured for this model.", ""]
    axes = list(dict.fromkeys(group.axis for group in found.groups))
    untold = [axis for axis in found.unknown if axis not in axes]
    lines = [*head, f"AUROC of this model on the {found.source} films, through {found.runtime}, 95 % intervals.", ""]
    if axes:
        lines += [
            "Per finding by DeLong with a patient's films counted together (Obuchowski 1997), with the films that have it / have it"
            f" not; `too few` below {found.enough} of either. Means by bootstrap over patients, over the findings that"
            f" have {found.enough} of either in every group of {found.enough_films} films"
            " or more, and so over the same findings in each of them; smaller groups have none. Groups differ in more than"
            " their name, such as how ill their patients are: a difference tells where to look, not its cause.",
            "",
        ]
    for axis in axes:
        lines += _axis([group for group in found.groups if group.axis == axis], found.unknown[axis])
    if untold:
        lines += [
            f"The data set tells {_listed(untold)} of none of its films, so nothing could be measured by them: whether the"
            " model reads one group worse than another is not known.",
            "",
        ]
    return lines


def _axis(groups: Sequence[Subgroup], unknown: int) -> list[str]:
    axis = groups[0].axis
    heads = [f"{group.name}: {group.films} films, {group.patients} patients" for group in groups]
    averaged = max((group.averaged for group in groups), key=len)
    lines = [
        f"### By {axis}",
        "",
        f"| finding | {' | '.join(heads)} |",
        f"|---|{'---|' * len(groups)}",
        *(
            f"| {finding} | {' | '.join(_cell(group.findings[finding]) for group in groups)} |"
            for finding in groups[0].findings
        ),
        f"| **mean of {len(averaged)}** | {' | '.join(interval(g.mean) if g.mean else 'too few' for g in groups)} |",
        "",
    ]
    if 0 < len(averaged) < len(groups[0].findings):
        lines += [f"Not in the mean: {', '.join(f for f in groups[0].findings if f not in averaged)}.", ""]
    if unknown:
        lines += [f"Of {unknown} films the {axis} is not known or is none of these.", ""]
    return lines


def _cell(one: SubgroupAuroc) -> str:
    counted = f"{one.positives} / {one.negatives}"
    return f"too few ({counted})" if one.auroc is None else f"{interval(one.auroc)}, {counted}"


def calibration_lines(found: Calibration | None) -> list[str]:
    """How far the probabilities can be taken at their word, and why not where they cannot."""
    head = ["## Calibration", ""]
    if found is None:
        return [*head, "Not measured for this model.", ""]
    off = [(name, one) for name, one in found.findings.items() if one.error.value > CALIBRATED_BELOW]
    diagram = (
        [
            f"![Reliability diagram per finding: share of films with it against mean probability]({found.diagram})",
            "",
            "Bins with 95 % intervals; what is calibrated lies on the dotted line. Panels are zoomed to where probabilities lie.",
            "",
        ]
        if found.diagram
        else []
    )
    return [
        *head,
        f"Expected calibration error (ECE) of this model's probabilities on the {found.films} {found.source} films as they are,"
        f" through {found.runtime}: {found.bins} bins of equal numbers of films, 95 % intervals by bootstrap over patients."
        " `By chance`: what exactly right probabilities would show on so many films.",
        "",
        "| finding | ECE | by chance | mean probability | test films with it | validation films with it |",
        "|---|---|---|---|---|---|",
        *(
            f"| {name} | {interval(one.error)} | {one.by_chance:.3f} | {one.predicted:.3f} | {one.share.value:.3f} |"
            f" {one.known_share:.3f} |"
            for name, one in found.findings.items()
        ),
        f"| **mean of {len(found.findings)}** | {interval(found.mean)} | | | | |",
        "",
        *(
            [
                f"ECE above {CALIBRATED_BELOW:g}: take these as an order of films, not as chances. Why, as far as these films tell"
                " (moving a probability to another share: Saerens et al. 2002):",
                "",
                *(f"- {_why(name, one)}" for name, one in off),
                "",
            ]
            if off
            else [
                f"No finding's ECE is above {CALIBRATED_BELOW:g} on these films; at another prevalence it will be.",
                "",
            ]
        ),
        *diagram,
    ]


def _why(name: str, one: FindingCalibration) -> str:
    moved = (
        f"{100 * one.share.value:.0f} % of the test films have it, {100 * one.known_share:.0f} % of the validation films that the"
        f" probabilities were calibrated to; moved to the test films' share, ECE would be {one.at_this_share:.3f}"
    )
    if one.at_this_share <= CALIBRATED_BELOW:
        return f"{name}: {moved}: the share accounts for it."
    away = one.predicted - one.share.value
    if abs(away) > one.error.value / 2:
        how = f"probabilities are too {'high' if away > 0 else 'low'} on average ({one.predicted:.2f})"
    else:
        how = f"probabilities are right on average ({one.predicted:.2f}) but not film by film: see the diagram"
    part = "accounts for a part of it" if one.at_this_share < 0.75 * one.error.value else "does not account for it"
    return f"{name}: {moved}: the share {part}. {how[0].upper()}{how[1:]}."


def failure_lines(found: Failures | None) -> list[str]:
    """The surest mistakes, with their pictures where those may be shown."""
    head = ["## Known failures", ""]
    if found is None:
        return [*head, "Not looked for in this model.", ""]
    looked = ", ".join(found.looked_at)
    lines = [
        *head,
        f"Of the {found.source} films that the gate lets through, per finding ({looked}) the film without it that the model is"
        " surest of, and the film with it that it sees least of, at the balanced operating point. Some may be errors of the labels:"
        " read the films. The worst single films, not typical ones; how many there are, sensitivity and specificity tell.",
        "",
    ]
    if not found.shown:
        return [*lines, "There is none.", ""]
    lines += [
        "| finding | | film | labelled | probability | threshold |",
        "|---|---|---|---|---|---|",
        *(
            f"| {one.finding} | {one.kind} | {one.film or '(not named)'} | {', '.join(one.labels) or 'none of the findings'} |"
            f" {one.probability:.3f} | {one.threshold:.3f} |"
            for one in found.shown
        ),
        "",
    ]
    if found.sheet is None:
        return [*lines, "The films are not shown: their terms do not let them be passed on.", ""]
    return [
        *lines,
        f"![The films of the table, in its order, each with its heat map]({found.sheet})",
        "",
        "Each film shrunk, with the finding's heat map over it (yellow: the strongest quarter of the evidence); on a miss it shows"
        " where the little evidence lies. Their licence and whom to name: see above.",
        "",
    ]


def cost_lines(manifest: Manifest) -> list[str]:
    """Time and machine of the training, where the run kept them."""
    facts: dict[str, Any] = manifest.training.recipe
    seconds, machine, epochs = facts.get("training_seconds"), facts.get("environment"), facts.get("epochs_run")
    aware = facts.get("quantization_aware")
    how = f"trained through the rounding, {_epochs(aware['epochs'])}" if aware else "rounding alone, without training"
    return [
        "## What it took",
        "",
        f"- Last run of the full-precision network: {_epochs(epochs or facts.get('epochs'))}; time"
        f" {_duration(seconds) if seconds else NOT_KNOWN}; machine: {_machine(machine) if machine else NOT_KNOWN}.",
        f"- Quantization: {how}; time and machine {NOT_KNOWN}: a bundle does not keep what would differ each time it is made.",
        "",
    ]


def _machine(said: dict[str, Any]) -> str:
    """As a run describes it: `cpu, 2 threads, Linux x86_64`."""
    count = said.get("processes", 1)
    device = f"{count} x {said['device']}" if count > 1 else str(said["device"])
    return ", ".join([device, f"{said['threads']} thread{'' if said['threads'] == 1 else 's'}", said["platform"]])


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _epochs(count: int | None) -> str:
    return f"epochs {NOT_KNOWN}" if count is None else f"{count} epoch{'' if count == 1 else 's'}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than 1 min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
