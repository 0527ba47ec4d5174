"""The README says what was measured, and its commands are the ones that run."""

import json
import re

from house import ROOT

from cxredge.benchmarks.macs import count_macs
from cxredge.bundle import Bundle, open_bundle
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
    assert again["model_sha256"] == bundle.model_sha256
    chest = json.loads((RESULTS / "gate-chest-films.json").read_text(encoding="utf-8"))["chest_films"]
    refused = ", ".join(f"{source} {100 * row['unscored']['value']:.1f} %" for source, row in chest.items())
    loops = json.loads((RESULTS / "session-overhead.json").read_text(encoding="utf-8"))
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
        f"| test chest films refused by mistake, all checks | {refused} |",
        f"| pictures that are no chest film, refused | {odd['refused']} of {odd['pictures']} |",
        f"| cold start to the first result, median | {cold['median_s']:.2f} s"
        f" ({cold['ratio_to_bare_imports']:.1f} times the bare imports) |",
        f"| heat maps' share of a scan's processor time, {maps['films']} films of 320 x 320, median of"
        f" {len(maps['samples'])} pairs | {100 * maps['processor_share']:.1f} % |",
        f"| a report of {page['films']} films opens in headless Chromium, median | {page['open_ms_median'] / 1000:.1f} s |",
        f"| peak memory of that process | {cold['peak_rss_mb']:.0f} MB |",
        "| `Session.run` over a bare loop of the engine, medians: ONNX Runtime, OpenVINO |"
        f" {loops['ratio_onnxruntime_session_to_bare']:.2f}, {loops['ratio_openvino_session_to_bare']:.2f} |",
        "| `Session.run` over `benchmark_app -hint latency`, median of pairs |"
        f" {loops['ratio_openvino_session_to_benchmark_app']:.2f} |",
    ]


def measured_of_children(children: Bundle) -> list[str]:
    """The rows of the README's table of the model for children."""
    accuracy = children.manifest.accuracy
    full, drift = accuracy.full, accuracy.drift
    again = json.loads((RESULTS / "recheck-paediatric-pneumonia.json").read_text(encoding="utf-8"))
    assert again["model_sha256"] == children.model_sha256
    unscored = again["films"] - again["statuses"]["ok"]
    return [
        *(
            f"| AUROC, {finding.name}, {finding.test_positives} of {accuracy.films} test films |"
            f" {finding.test_auroc.value:.3f} ({finding.test_auroc.low:.3f}-{finding.test_auroc.high:.3f}) |"
            for finding in children.manifest.findings
        ),
        f"| mean AUROC, INT8; full precision | {accuracy.compressed.value:.3f}; {full.value:.3f} |",
        f"| drift, paired | {drift.value:+.4f} ({drift.low:+.4f} to {drift.high:+.4f}) |",
        f"| flags that flip between the two | {100 * accuracy.flipped:.1f} % |",
        f"| test films refused by mistake, all checks | {unscored} of {again['films']} |",
    ]


def measured_of_small(small: Bundle, sibling: Bundle) -> list[str]:
    """The rows of the README's table of the pruned model beside the default."""
    accuracy = small.manifest.accuracy
    full, compressed, drift = accuracy.full, accuracy.compressed, accuracy.drift
    faster = [
        slow["milliseconds"] / fast["milliseconds"] for slow, fast in zip(_timed(sibling), _timed(small), strict=True)
    ]
    return [
        *pruned(small),
        f"| engine alone against `{sibling.manifest.name}`, ONNX Runtime, OpenVINO |"
        f" {faster[0]:.2f}, {faster[1]:.2f} times as fast |",
        f"| mean AUROC, INT8; unpruned full-precision parent | {compressed.value:.3f} ({compressed.low:.3f}-{compressed.high:.3f});"
        f" {full.value:.3f} |",
        f"| drift from that parent, paired | {drift.value:+.4f} ({drift.low:+.4f} to {drift.high:+.4f}) |",
        f"| flags that flip between these two | {100 * accuracy.flipped:.1f} % |",
    ]


def pruned(bundle: Bundle) -> list[str]:
    """The rows of a pruned model that tell its size and speed."""
    assert bundle.full_model is not None
    side = bundle.manifest.preprocessing.size
    left = count_macs(bundle.model, side) / count_macs(bundle.full_model, side)
    rows = _timed(bundle)
    return [
        f"| model file; multiplications left of its parent's | {bundle.model.stat().st_size / 1e6:.2f} MB; {100 * left:.0f} % |",
        *(
            f"| against {peer} in PyTorch, 32-bit floats: ONNX Runtime, OpenVINO |"
            f" {rows[0][key]:.1f}, {rows[1][key]:.1f} times as fast |"
            for peer, key in (
                ("MobileNetV2", "times_as_fast_as_mobilenet_v2"),
                ("DenseNet121", "times_as_fast_as_densenet121"),
            )
        ),
    ]


def _timed(bundle: Bundle) -> list[dict[str, float]]:
    """What `against_torch` measured of a shipped graph, in ONNX Runtime and in OpenVINO."""
    found = json.loads((RESULTS / "against-torch.json").read_text(encoding="utf-8"))
    assert found["models"][bundle.manifest.name] == bundle.model_sha256
    rows = {(row["engine"], row["model"]): row for row in found["rows"]}
    return [rows[engine, bundle.manifest.name] for engine in ("onnxruntime", "openvino")]


def without_vnni() -> list[str]:
    """The rows of the shipped models on a processor without instructions for 8-bit products."""
    found = json.loads((RESULTS / "build-x86-avx2.json").read_text(encoding="utf-8"))
    rows = []
    for name, measured_there in found["models"].items():
        assert measured_there["sha256"] == open_bundle(name).model_sha256
        rows_of = {(row["runtime"], row["precision"]): row["latency"] for row in measured_there["candidates"]}
        int8, full = (rows_of["onnxruntime", precision]["median_ms"] for precision in ("int8", "fp32"))
        rows.append(f"| `{name}` | {int8:.1f} ms | {full:.1f} ms |")
    return rows


def test_the_tables_of_measured_numbers_are_those_that_were_measured(bundle: Bundle) -> None:
    children, small = open_bundle("paediatric-pneumonia"), open_bundle("chestxray14-small")
    rows = measured(bundle) + measured_of_children(children) + pruned(children) + measured_of_small(small, bundle)
    for row in rows + without_vnni():
        assert row in README


def test_what_more_films_brought_is_what_was_measured() -> None:
    found = json.loads((RESULTS / "learning-curve.json").read_text(encoding="utf-8"))
    said = " ".join(README.split())
    for point in (point for point in found["points"] if point["seed"] == 0):
        assert f"{point['mean_auroc']['value']:.3f} from {point['films']:,}" in said
        if gain := point["gain"]:
            assert f"{gain['value']:+.4f} ({gain['low']:+.4f} to {gain['high']:+.4f})" in said


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
