"""The README says what was measured, and its commands are the ones that run."""

import json
import re

from house import ROOT

from cxredge.bundle import Bundle
from cxredge.cli import VERBS

README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"


def measured(bundle: Bundle) -> list[str]:
    """The rows of the README's table, from the manifest and the kept results."""
    accuracy = bundle.manifest.accuracy
    full, small, drift = accuracy.full, accuracy.compressed, accuracy.drift
    worst = min(bundle.manifest.findings, key=lambda finding: finding.drift.value)
    cold = json.loads((RESULTS / "cold-start.json").read_text(encoding="utf-8"))
    again = json.loads((RESULTS / "recheck-chestxray14.json").read_text(encoding="utf-8"))
    odd = json.loads((RESULTS / "gate-odd-pictures.json").read_text(encoding="utf-8"))
    maps = json.loads((RESULTS / "explain-cost.json").read_text(encoding="utf-8"))["folders"][0]
    page = json.loads((RESULTS / "report-page.json").read_text(encoding="utf-8"))["reports"][-1]
    gate = bundle.manifest.gate
    assert gate is not None
    refused = ", ".join(f"{source} {100 * share.value:.1f} %" for source, share in gate.refused.items())
    mean = sum(row["auroc"]["value"] for row in again["findings"].values()) / len(again["findings"])
    return [
        f"| model file | {bundle.model.stat().st_size / 1e6:.2f} MB |",
        f"| mean AUROC, {len(bundle.manifest.findings)} findings, {accuracy.films} test films, INT8 |"
        f" {small.value:.3f} ({small.low:.3f}-{small.high:.3f}) |",
        f"| the same, full precision | {full.value:.3f} ({full.low:.3f}-{full.high:.3f}) |",
        f"| drift, paired | {drift.value:+.4f} ({drift.low:+.4f} to {drift.high:+.4f}) |",
        f"| worst finding's drift: {worst.name} | {worst.drift.value:+.4f} ({worst.drift.low:+.4f} to {worst.drift.high:+.4f}) |",
        f"| flags that flip between the two | {100 * accuracy.flipped:.1f} % |",
        f"| mean AUROC again, through `Scanner` from the files | {mean:.3f} |",
        f"| test chest films refused by mistake | {refused} |",
        f"| pictures that are no chest film, refused | {odd['refused']} of {odd['pictures']} |",
        f"| cold start to the first result, median | {cold['median_s']:.2f} s"
        f" ({cold['ratio_to_bare_imports']:.1f} times the bare imports) |",
        f"| heat maps' share of a scan's processor time, {maps['films']} films of 320 x 320, median of"
        f" {len(maps['samples'])} pairs | {100 * maps['processor_share']:.1f} % |",
        f"| a report of {page['films']} films opens in headless Chromium, median | {page['open_ms_median'] / 1000:.1f} s |",
        f"| peak memory of that process | {cold['peak_rss_mb']:.0f} MB |",
    ]


def test_the_table_of_measured_numbers_is_the_one_that_was_measured(bundle: Bundle) -> None:
    for row in measured(bundle):
        assert row in README


def test_every_command_in_the_readme_is_one_that_exists() -> None:
    named = set(re.findall(r"^(?:.*&& )?cxredge (\w+)", README, flags=re.MULTILINE))
    assert named == set(VERBS)


def test_links_and_pictures_of_the_readme_are_there() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_cold_start_and_memory_were_measured_below_their_limits() -> None:
    cold = json.loads((RESULTS / "cold-start.json").read_text(encoding="utf-8"))
    assert cold["median_s"] <= 1.0
    assert cold["peak_rss_mb"] <= 160
    assert len(cold["samples"]) >= 10


def test_heat_maps_cost_less_than_a_tenth_of_a_scan() -> None:
    assert (
        json.loads((RESULTS / "explain-cost.json").read_text(encoding="utf-8"))["folders"][0]["processor_share"] <= 0.1
    )
