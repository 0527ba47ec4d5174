"""What was measured of the sessions is what profiles and README say of them."""

import json
import statistics

import pytest
from house import ROOT

from cxredge.devices import read_profile

RESULTS = ROOT / "benchmarks" / "results"
OVERHEAD = json.loads((RESULTS / "session-overhead.json").read_text(encoding="utf-8"))
OPTIONS = json.loads((RESULTS / "session-options.json").read_text(encoding="utf-8"))


def test_sessions_cost_at_most_five_in_a_hundred_more_than_the_engines() -> None:
    samples = OVERHEAD["samples_ms"]
    assert all(len(times) >= 1000 for times in samples.values())
    for name, times in samples.items():
        assert OVERHEAD["median_ms"][name] == pytest.approx(statistics.median(times), abs=0.002)
    median = OVERHEAD["median_ms"]
    assert median["onnxruntime session"] <= 1.05 * median["onnxruntime bare"]
    assert median["openvino session"] <= 1.05 * min(median["openvino bare"], median["openvino bare, caller's thread"])
    app = OVERHEAD["benchmark_app"]
    assert "-hint latency" in app["command"]
    assert len(app["ratios"]) >= 5
    assert statistics.median(app["ratios"]) <= 1.05


def test_the_readme_says_what_was_measured() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    one, two = (OVERHEAD[f"ratio_{name}_session_to_bare"] for name in ("onnxruntime", "openvino"))
    assert f"medians: ONNX Runtime, OpenVINO | {one:.2f}, {two:.2f} |" in readme
    assert f"median of pairs | {OVERHEAD['ratio_openvino_session_to_benchmark_app']:.2f} |" in readme


def test_the_faster_engine_comes_first_where_it_was_measured() -> None:
    faster = "openvino" if OVERHEAD["ratio_openvino_to_onnxruntime_undisturbed"] < 1 else "onnxruntime"
    assert read_profile("x86-vnni").runtimes[0] == faster


def test_profiles_keep_the_options_that_measured_best() -> None:
    """The arena costs no memory here, and spinning threads take several times the CPU time."""
    settings = OPTIONS["settings"]
    with_arena, without = settings["as scan runs it: 1 thread, arena"], settings["1 thread, no arena"]
    assert with_arena["median_ms"] <= 1.05 * without["median_ms"]
    assert with_arena["peak_rss_mb"] <= 1.05 * without["peak_rss_mb"]
    assert settings["2 threads, spinning"]["cpu_ms_per_film"] > 2 * settings["2 threads, sleeping"]["cpu_ms_per_film"]
    assert "XnnpackExecutionProvider" not in OPTIONS["providers"]
    profile = read_profile("x86-vnni")
    assert (profile.arena, profile.spinning, profile.threads) == (True, False, 1)
