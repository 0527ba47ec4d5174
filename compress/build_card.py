"""What a build adds to a model card: how it was chosen for the device, and what stands unmeasured."""

from cxredge.bundle.built import NOT_MEASURED, Build, Candidate
from cxredge.bundle.manifest import Manifest

_HEAD = "## Built for "
HEADINGS = ("candidate", "size", "latency p10 / median / p90, memory", "against full precision", "verdict")


def with_build(card: str, manifest: Manifest) -> str:
    """The card with the build's section at its end, in place of an earlier build's. manifest: with its `build`."""
    build = manifest.build
    assert build is not None  # noqa: S101 - the caller has just made it
    before = card.split(f"\n{_HEAD}")[0].rstrip("\n")
    return "\n".join([before, "", *_section(build, manifest), ""])


def _section(build: Build, manifest: Manifest) -> list[str]:
    return [
        f"{_HEAD}{build.target}",
        "",
        f"{build.title}. Engines in the order they are tried: {', '.join(manifest.runtimes)}.",
        "",
        f"| {' | '.join(HEADINGS)} |",
        f"|{'---|' * len(HEADINGS)}",
        *(f"| {' | '.join(cells(row))} |" for row in build.candidates),
        "",
        *(f"- {line}" for line in notes(build)),
        "",
        f"The gate: {build.gate}. Ranges of re-quantized graphs were set on {build.calibration}. Latency is of one film, memory of"
        f" a process that does nothing else; `{NOT_MEASURED}` means that it must be measured on the device, not that it is good.",
        f"Built on {build.machine['processor']} ({build.machine['architecture']}).",
        "",
        f"The accuracy at the top of this card is that of the portable {manifest.precision} model, measured through"
        f" {manifest.accuracy.runtime}; what was measured of the other graphs is in this table.",
    ]


def cells(row: Candidate) -> list[str]:
    """A candidate as a row of words: what, size, latency and memory, loss, verdict."""
    speed = ""
    if row.bytes is not None:
        speed = NOT_MEASURED
    if row.latency is not None:
        memory = f", {row.peak_memory_mb:.0f} MB" if row.peak_memory_mb is not None else ""
        latency = row.latency
        speed = f"{latency.p10_ms:.2f} / {latency.median_ms:.2f} / {latency.p90_ms:.2f} ms{memory}"
    return [
        f"{row.runtime} {row.precision}",
        f"{row.bytes / 1e6:.2f} MB" if row.bytes is not None else "",
        speed,
        loss(row),
        row.verdict,
    ]


def loss(row: Candidate) -> str:
    """What a candidate lost against full precision: AUROC where it was measured, agreement always."""
    parts = []
    if row.drift is not None:
        mean, findings = row.drift.mean, row.drift.findings
        worst = min(findings, key=lambda name: findings[name].value)
        parts.append(f"AUROC {mean.value:+.4f} ({mean.low:+.4f} to {mean.high:+.4f})")
        parts.append(f"worst {worst} {findings[worst].value:+.4f}")
        if row.drift.unjudged:
            parts.append(f"not judged, of films of one kind only: {', '.join(row.drift.unjudged)}")
    if row.agreement is not None:
        parts.append(f"p off by {row.agreement.mean:.4f}, {100 * row.agreement.flipped:.1f} % of flags")
    return ", ".join(parts)


def notes(build: Build) -> list[str]:
    """A line for each candidate whose numbers did not come from its own engine, or that was checked without being run."""
    return [
        f"{row.runtime} {row.precision}: {'; '.join(words)}"
        for row in build.candidates
        if (
            words := [f"numbers through {row.through}"] * row.through.endswith("same graph")
            + [row.checked] * bool(row.checked)
        )
    ]
