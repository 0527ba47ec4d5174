"""Flags, the place on the worklist, and what lies so near to a threshold that it might as well be flagged."""

from dataclasses import replace

import pytest

from cxredge.bundle import Bundle
from cxredge.bundle.manifest import Finding, Manifest
from cxredge.scan.decide import decide, margin, nearness
from cxredge.scan.reading import Priority
from cxredge.scan.summarise import points_in_force

NEAR = 0.1


@pytest.fixture
def manifest(bundle: Bundle) -> Manifest:
    """The shipped one, with one urgent, one ordinary and one experimental finding, all moved by 0.1 at most."""
    kinds = [(True, False), (False, False), (True, True)]
    findings = tuple(
        finding.model_copy(update={"urgent": urgent, "experimental": experimental, "rounding": NEAR})
        for finding, (urgent, experimental) in zip(bundle.manifest.findings, kinds, strict=False)
    )
    return bundle.manifest.model_copy(update={"findings": findings})


def at(finding: Finding, log_odds: float) -> float:
    """A probability so far above the finding's threshold."""
    odds = finding.balanced.threshold / (1 - finding.balanced.threshold) * 2.718281828**log_odds
    return odds / (1 + odds)


def decided(manifest: Manifest, *log_odds: float) -> tuple[Priority, str, tuple[str, ...]]:
    said = {f.name: at(f, above) for f, above in zip(manifest.findings, log_odds, strict=True)}
    decision = decide(said, manifest)
    return decision.priority, decision.top_finding, decision.near


def test_far_below_every_threshold_is_routine(manifest: Manifest) -> None:
    assert decided(manifest, -1, -1, -1) == (Priority.ROUTINE, "", ())


def test_just_below_a_threshold_is_for_review_and_named_but_not_flagged(manifest: Manifest) -> None:
    name = manifest.names[1]
    assert decided(manifest, -1, -0.9 * NEAR, -1) == (Priority.REVIEW, "", (name,))
    assert decided(manifest, -1, -1.1 * NEAR, -1) == (Priority.ROUTINE, "", ())


def test_flagged_is_for_review_and_beyond_the_specific_point_urgent(manifest: Manifest) -> None:
    first, second = manifest.findings[0], manifest.findings[1]
    assert decided(manifest, 0.01, -1, -1)[:2] == (Priority.REVIEW, first.name)
    beyond = margin(first.specific.threshold, first) + 0.01
    assert decided(manifest, beyond, -1, -1)[:2] == (Priority.URGENT, first.name)
    assert decided(manifest, -1, margin(second.specific.threshold, second) + 5, -1)[0] is Priority.REVIEW


def test_nothing_is_urgent_that_is_not_flagged(manifest: Manifest) -> None:
    """A finding that ranks well reaches 95 % specificity below Youden's index; the table of points says where it counts."""
    first = manifest.findings[0]
    early = first.model_copy(update={"specific": replace(first.specific, threshold=at(first, -0.5))})
    manifest = manifest.model_copy(update={"findings": (early, *manifest.findings[1:])})
    assert decided(manifest, -0.4, -1, -1)[0] is Priority.ROUTINE
    assert decided(manifest, 0.01, -1, -1)[0] is Priority.URGENT
    assert [point.urgent_from for point in points_in_force(manifest)] == [first.balanced.threshold, None, None]


def test_an_experimental_finding_drives_no_priority_however_high(manifest: Manifest) -> None:
    assert decided(manifest, -1, -1, 5) == (Priority.ROUTINE, "", ())
    assert decided(manifest, -1, -1, -0.5 * NEAR)[2] == ()


def test_without_a_kept_figure_near_is_what_honest_engines_differ_by(bundle: Bundle) -> None:
    finding = bundle.manifest.findings[0].model_copy(update={"rounding": 0.0})
    assert nearness(finding, bundle.manifest) == bundle.manifest.tolerance.mean > 0
