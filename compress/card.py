"""The model card, written from what was measured and nothing else (Mitchell et al., Model Cards, 2019)."""

from cxredge.bundle.manifest import Finding, Manifest
from cxredge.compress.card_evidence import (
    NOT_KNOWN,
    calibration_lines,
    cost_lines,
    failure_lines,
    interval,
    subgroup_lines,
)
from cxredge.metrics import Interval


def model_card(manifest: Manifest, full_bytes: int | None, small_bytes: int) -> str:
    """Markdown. full_bytes, small_bytes: size of the full-precision graph in 32-bit floats, where known, and of the shipped one."""
    full_size = NOT_KNOWN if full_bytes is None else f"{full_bytes / 1e6:.2f} MB"
    accuracy, training = manifest.accuracy, manifest.training
    films = "; ".join(
        f"{source}: {', '.join(f'{n} {split}' for split, n in counts.items())}"
        for source, counts in training.films.items()
    )
    refused = (
        ", ".join(f"{source} {_percent(share)}" for source, share in manifest.gate.refused.items())
        if manifest.gate
        else ""
    )
    experimental = [finding.name for finding in manifest.findings if finding.experimental]
    lines = [
        f"# {manifest.title}",
        "",
        "**Research use; not a medical device.**",
        "",
        f"`{manifest.name}` {manifest.version}: {manifest.architecture}, {manifest.precision},"
        f" {manifest.preprocessing.size} x {manifest.preprocessing.size} grey, {small_bytes / 1e6:.2f} MB"
        f" (full precision {full_size}).",
        "",
        "## Intended use",
        "",
        manifest.intended_use,
        "",
        "## Population and data",
        "",
        training.population,
        "",
        *(f"- **{source}**: {text}" for source, text in training.sources.items()),
        "",
        f"Films: {films}. Published test splits; validation was carved from the training splits by patient. Every choice"
        " (thresholds, calibration, gate) was made on training and validation films.",
        "",
        *([training.history, ""] if training.history else []),
        f"Licence: {training.licence}",
        "",
        "## Accuracy",
        "",
        f"Mean AUROC over {len(manifest.findings)} findings on {accuracy.films} films of {accuracy.patients} patients"
        f" ({accuracy.source}), through {accuracy.runtime}; 95 % intervals (per finding DeLong with a patient's films counted"
        " together, means by bootstrap over patients):",
        "",
        "| step | mean AUROC | drift from full precision, paired | size |",
        "|---|---|---|---|",
        f"| full precision (FP32) | {interval(accuracy.full)} | | {full_size} |",
        *(
            f"| {step.name} | {interval(step.auroc)} | {_signed(step.drift) if step.drift else ''} | {step.megabytes:.2f} MB |"
            for step in manifest.steps[1:-1]
        ),
        f"| as quantized ({manifest.precision.upper()}): this model | {interval(accuracy.compressed)} |"
        f" {_signed(accuracy.drift)} | {small_bytes / 1e6:.2f} MB |",
        "",
        f"Flags that flip between the two at the balanced operating point: {accuracy.flipped:.1%} of film and finding pairs.",
        "",
        "Per finding, rarest first. `experimental`: the validation AUROC interval reaches below 0.70, so the finding is shown"
        " but never drives a film's priority.",
        "",
        "| finding | test films with it | validation AUROC | test AUROC | drift (paired) | |",
        "|---|---|---|---|---|---|",
        *(
            f"| {f.name} | {f.test_positives} | {interval(f.validation_auroc)} | {interval(f.test_auroc)} | {_signed(f.drift)} |"
            f" {'experimental' if f.experimental else 'urgent' if f.urgent else ''} |"
            for f in sorted(manifest.findings, key=lambda finding: finding.test_positives)
        ),
        "",
        *subgroup_lines(manifest.subgroups),
        *calibration_lines(manifest.calibration),
        *failure_lines(manifest.failures),
        "## Operating points",
        "",
        "Chosen on validation films. A finding is flagged at `balanced` (Youden's index); an urgent finding makes a film urgent"
        " at `specific` (95 % specificity), or where it is flagged if that comes later.",
        "",
        "| finding | validation films with / without | balanced: threshold, sensitivity, specificity |"
        " specific: threshold, sensitivity |",
        "|---|---|---|---|",
        *(_points(finding) for finding in manifest.findings),
        "",
        "## Refusal gate",
        "",
        f"Films unlike the training films are refused. Share of test chest films refused by mistake: {refused}."
        if manifest.gate
        else "This model has no gate: it scores whatever it is given.",
        "",
        *cost_lines(manifest),
        "## Limits",
        "",
        "- Probabilities are calibrated to the share of findings in the validation films, which is not that of your patients:"
        " a score is for sorting, not the chance of disease.",
        "- One hospital's films, with labels that are not free of mistakes: other machines, ages and diseases may be read"
        " worse, and nobody has measured it.",
        "- Thresholds rest on few validation films for rare findings; the intervals above say how few.",
        *([f"- Experimental, evidence too thin: {', '.join(experimental)}."] if experimental else []),
        *([] if manifest.subgroups else ["- Subgroups (sex, age band, view) have not been measured for this model."]),
        "",
    ]
    return "\n".join(lines)


def _points(finding: Finding) -> str:
    balanced, specific = finding.balanced, finding.specific
    return (
        f"| {finding.name} | {balanced.positives} / {balanced.negatives} | {balanced.threshold:.3f},"
        f" {_percent(balanced.sensitivity)}, {_percent(balanced.specificity)} |"
        f" {specific.threshold:.3f}, {_percent(specific.sensitivity)} |"
    )


def _signed(x: Interval) -> str:
    return f"{x.value:+.4f} ({x.low:+.4f} to {x.high:+.4f})"


def _percent(x: Interval) -> str:
    return f"{100 * x.value:.1f} % ({100 * x.low:.1f}-{100 * x.high:.1f})"
