"""From a bundle to a bundle for a device: made, measured where it can be and marked where it cannot."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from house import EXAMPLES, FILMS
from numpy.typing import NDArray

from cxredge.bundle import Bundle, open_bundle
from cxredge.bundle.built import NOT_MEASURED, Build
from cxredge.bundle.bundle import write_bundle
from cxredge.compress.build import OutsideGateError
from cxredge.compress.candidates import KEPT, is_target
from cxredge.compress.verdict import BuildGate
from cxredge.devices import profile_names, read_profile, this_machine
from cxredge.errors import DataError
from cxredge.metrics import Interval
from cxredge.runtimes import runtime
from cxredge.scan.engine import open_engine
from cxredge.scan.scanner import Scanner

BuildFor = Callable[..., Bundle]


def record_of(bundle: Bundle) -> Build:
    assert bundle.manifest.build is not None
    return bundle.manifest.build


@pytest.mark.parametrize("target", profile_names())
def test_every_profile_builds_a_bundle_that_opens_here(
    source: Bundle, target: str, tmp_path: Path, build_for: BuildFor
) -> None:
    profile = read_profile(target)
    built = build_for(source, target, tmp_path / "built")
    manifest, record = built.manifest, record_of(built)
    assert manifest.target == profile.name
    assert built.model_sha256 == source.model_sha256
    assert {(row.runtime, row.precision) for row in record.candidates} == {
        (engine.name, precision) for engine in profile.engines for precision in engine.precisions
    }
    kept = [row for row in record.candidates if row.verdict == KEPT]
    assert [row.runtime for row in kept] == [manifest.runtimes[0]]
    for row in record.candidates:
        assert row.agreement is not None
        assert row.drift is None
        measured_here = is_target(profile, this_machine()) and runtime(row.runtime).available() is True
        assert (row.latency is not None) == (row.peak_memory_mb is not None) == measured_here
        assert (row.measured_on == NOT_MEASURED) != measured_here
    assert "onnxruntime" in manifest.runtimes
    for name in manifest.runtimes:
        if runtime(name).available() is True:
            # Opens and passes the self-test, with what the bundle says it must give.
            open_engine(built, asked=name).session.close()
    card = (built.folder / "MODEL_CARD.md").read_text()
    assert card.count("## Built for ") == 1
    assert NOT_MEASURED in card


def test_with_labelled_films_the_drift_is_measured_on_the_test_split(
    source: Bundle, tmp_path: Path, build_for: BuildFor
) -> None:
    loose = BuildGate(max_drift=1, max_flipped=1)
    built = build_for(source, "jetson-nano", tmp_path / "built", data=[FILMS / "chestxray14"], gate=loose)
    by_precision = {row.precision: row for row in record_of(built).candidates}
    exact = by_precision["fp32"].drift
    assert exact is not None
    assert exact.films == len((FILMS / "chestxray14" / "test_list.txt").read_text().split())
    assert exact.source == "chestxray14 test"
    assert exact.mean == Interval(0.0, 0.0, 0.0)
    assert set(exact.findings) <= set(source.manifest.names)
    assert by_precision["int8"].drift is not None
    assert "AUROC" in record_of(built).gate
    assert "training films of chestxray14" in record_of(built).calibration


def test_a_labels_table_of_ones_own_judges_too(source: Bundle, tmp_path: Path, build_for: BuildFor) -> None:
    loose = BuildGate(max_drift=1, max_flipped=1)
    built = build_for(source, "jetson-nano", tmp_path / "built", data=[EXAMPLES / "labels.csv"], gate=loose)
    found = record_of(built).candidates[0].drift
    assert found is not None
    assert found.source == "labels test"
    assert found.films == len((EXAMPLES / "labels.csv").read_text().splitlines()) - 1
    assert "reference films" in record_of(built).calibration


def test_without_the_parent_there_is_no_drift_to_measure(source: Bundle, tmp_path: Path, build_for: BuildFor) -> None:
    files = {name: source.folder / name for name in source.manifest.files if name != source.manifest.full_model}
    orphan = write_bundle(
        tmp_path / "orphan",
        files,
        lambda hashes: source.manifest.model_copy(update={"files": hashes, "full_model": None}),
    )
    with pytest.raises(DataError, match="no full-precision network"):
        build_for(orphan, "generic", tmp_path / "built", data=[FILMS / "chestxray14"])
    built = build_for(orphan, "jetson", tmp_path / "built")
    assert built.manifest.runtimes == ("onnxruntime",)
    verdicts = {row.verdict for row in record_of(built).candidates if row.runtime == "tensorrt"}
    assert len(verdicts) == 1
    assert "needs the full-precision parent" in verdicts.pop()


def test_a_profile_of_ones_own_gets_the_portable_model_too(
    source: Bundle, tmp_path: Path, build_for: BuildFor, own_profile: Path
) -> None:
    built = build_for(source, str(own_profile), tmp_path / "built")
    assert set(built.manifest.runtimes) == {"openvino", "onnxruntime"}
    assert all(row.latency is not None for row in record_of(built).candidates)
    rebuilt = build_for(built, "jetson-nano", tmp_path / "again")
    assert not (rebuilt.folder / "openvino").exists()
    assert rebuilt.manifest.graphs == {}
    assert (rebuilt.folder / "MODEL_CARD.md").read_text().count("## Built for ") == 1


def test_where_rounding_is_outside_the_gate_the_bundle_still_opens_on_any_machine(
    tmp_path: Path, build_for: BuildFor, own_profile: Path
) -> None:
    source = open_bundle("chestxray14-small")
    text = own_profile.read_text().replace('"openvino"', '"tensorrt"').replace('"unsigned"', '"signed-symmetric"')
    own_profile.write_text(text.replace('["int8"]', '["fp16", "int8"]'))
    strict = BuildGate(max_disagreement=0.001)
    built = build_for(source, str(own_profile), tmp_path / "built", gate=strict)
    assert set(built.manifest.runtimes) == {"tensorrt", "onnxruntime"}
    assert built.manifest.graph_for("onnxruntime").precision == "fp32"
    open_engine(built, asked="onnxruntime").session.close()
    # A profile that knows of ONNX Runtime with the rounded model alone leaves nothing to open elsewhere.
    engine = text[text.index("[[engines]]") : text.index("[sources]")].replace('"tensorrt"', '"onnxruntime"')
    own_profile.write_text(
        text.replace('["int8"]', '["fp16"]').replace("[sources]", engine.replace('"signed-symmetric"', '"unsigned"'))
        + "[sources]\n"
    )
    with pytest.raises(OutsideGateError, match="no candidate through onnxruntime, which every machine has"):
        build_for(source, str(own_profile), tmp_path / "none", gate=strict)
    assert not (tmp_path / "none").exists()


def test_the_manifest_tells_where_each_number_came_from(source: Bundle, tmp_path: Path, build_for: BuildFor) -> None:
    said = json.loads((build_for(source, "raspberry-pi-5", tmp_path / "b").folder / "manifest.json").read_text())
    for candidate in said["build"]["candidates"]:
        assert candidate["latency"] is None
        assert candidate["measured_on"] == NOT_MEASURED
        assert candidate["through"].startswith(candidate["runtime"])
    assert said["build"]["machine"]["architecture"] == this_machine().architecture
    assert said["software"]["onnxruntime"] == runtime("onnxruntime").version()


def test_what_runs_another_graph_is_named_and_its_accuracy_is_not_the_portable_models(
    source: Bundle, tmp_path: Path, build_for: BuildFor, own_profile: Path
) -> None:
    text = own_profile.read_text().replace('"openvino"', '"onnxruntime"').replace('["int8"]', '["fp32"]')
    own_profile.write_text(text)
    built = build_for(source, str(own_profile), tmp_path / "b")
    assert built.manifest.accuracy == source.manifest.accuracy
    assert "onnxruntime runs model.fp32.onnx (fp32)" in built.manifest.caveat("onnxruntime")
    assert built.graph_sha256("onnxruntime") == built.manifest.files["model.fp32.onnx"]
    assert source.manifest.caveat("onnxruntime") == ""
    assert source.graph_sha256("onnxruntime") == source.model_sha256
    for film in sorted(EXAMPLES.glob("*.jpg")):
        with Scanner(built, runtime="onnxruntime") as scanner:
            assert scanner.read(film).model_sha256 == built.graph_sha256("onnxruntime")


def test_a_graph_that_rounds_more_sends_more_films_near_a_threshold_to_a_person(
    source: Bundle, tmp_path: Path, build_for: BuildFor, own_profile: Path
) -> None:
    text = own_profile.read_text().replace('"openvino"', '"tensorrt"').replace('"unsigned"', '"signed-symmetric"')
    own_profile.write_text(text.replace('"int32"', '"float"'))
    built = build_for(source, str(own_profile), tmp_path / "built")
    with np.load(built.reference) as stored:
        own, portable = (
            np.quantile(np.abs(stored[logits] - stored["full"]), 0.95)
            for logits in (built.manifest.graph_for("tensorrt").logits, "logits")
        )
    assert own > portable
    for before, after in zip(source.manifest.findings, built.manifest.findings, strict=True):
        assert after.rounding == pytest.approx(before.rounding + own - portable)


def test_a_pruned_model_is_held_against_itself_before_rounding(tmp_path: Path, build_for: BuildFor) -> None:
    pruned = open_bundle("chestxray14-small")
    built = build_for(pruned, "generic", tmp_path / "built", data=[FILMS / "chestxray14"], gate=BuildGate(max_drift=1))
    record = record_of(built)
    with np.load(pruned.reference) as stored:
        logits, rounded_from, parent = stored["logits"], stored["float"], stored["full"]

    def off(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
        return float(
            np.abs(1 / (1 + np.exp(-one.astype(np.float64))) - 1 / (1 + np.exp(-other.astype(np.float64)))).mean()
        )

    kept = next(row for row in record.candidates if row.runtime == "onnxruntime")
    assert kept.agreement is not None
    assert kept.agreement.mean == pytest.approx(off(logits, rounded_from), abs=1e-3)
    # Pruning moved it further than any gate would let rounding.
    assert off(logits, parent) > 5 * kept.agreement.mean
    assert "what those cost stands at the top of the model card" in record.gate
    assert kept.drift is not None
    assert abs(kept.drift.mean.value) < 0.05


def test_a_bundle_of_ones_own_profile_is_scanned_as_it_was_measured(
    source: Bundle, tmp_path: Path, build_for: BuildFor, own_profile: Path
) -> None:
    own_profile.write_text(
        own_profile.read_text().replace("threads = 1", "threads = 2").replace("arena = true", "arena = false")
    )
    built = build_for(source, str(own_profile), tmp_path / "built")
    settings = record_of(built).settings
    assert settings is not None
    assert (settings.threads, settings.spinning, settings.arena) == (2, False, False)
    # The profile stays in the lab.
    own_profile.unlink()
    opened = open_engine(open_bundle(built.folder))
    assert opened.threads == 2
    opened.session.close()
