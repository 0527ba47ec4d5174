"""From a bundle to a bundle for a device: made, measured where it can be, marked where it cannot, or not written at all."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from house import EXAMPLES, FILMS, Cli
from onnx import numpy_helper

from cxredge.bundle import Bundle, open_bundle
from cxredge.bundle.built import NOT_MEASURED, Agreement, AurocDrift, Build, Candidate, Latency
from cxredge.bundle.bundle import write_bundle
from cxredge.compress.build import OutsideGateError, build
from cxredge.compress.candidates import KEPT, LATER, SLOWER, Films, Table, choose, is_target
from cxredge.compress.graphs import Graphs, widest_weight
from cxredge.compress.legal import take
from cxredge.compress.measure import Job, Measured, measure
from cxredge.compress.verdict import Gate, outside
from cxredge.devices import profile_names, read_profile, this_machine
from cxredge.errors import DataError
from cxredge.metrics import Interval
from cxredge.runtimes import runtime
from cxredge.scan.engine import open_engine
from cxredge.scan.scanner import Scanner

OWN_PROFILE = """
name = "mine"
title = "Mine"
architecture = "any"
threads = 1
spinning = false
arena = true
latency_budget_ms = 100
memory_budget_mb = 500
[[engines]]
name = "openvino"
precisions = ["int8"]
activations = "unsigned"
weight_bits = 8
bias = "int32"
source = "test"
[sources]
"""


@pytest.fixture(scope="module")
def source() -> Bundle:
    """The shipped model; BUILD_FROM names another bundle, to try one before it is shipped."""
    opened = open_bundle(os.environ.get("BUILD_FROM", "chestxray14"))
    assert opened.full_model is not None, "the shipped model must carry its full-precision parent"
    return opened


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared, so that a graph that several devices take is made and measured once."""
    return tmp_path_factory.mktemp("cache")


def build_for(source: Bundle, target: str, out: Path, cache: Path, **more: object) -> Bundle:
    return build(source, read_profile(target), out, cache=cache, say=lambda _: None, **more)  # type: ignore[arg-type]


def record_of(bundle: Bundle) -> Build:
    assert bundle.manifest.build is not None
    return bundle.manifest.build


@pytest.mark.parametrize("target", profile_names())
def test_every_profile_builds_a_bundle_that_opens_here(
    source: Bundle, target: str, tmp_path: Path, cache: Path
) -> None:
    profile = read_profile(target)
    built = build_for(source, target, tmp_path / "built", cache)
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


def test_a_bundle_for_a_jetson_is_legal_signed_reproducible_and_scans_here(
    cli: Cli, source: Bundle, tmp_path: Path, cache: Path
) -> None:
    assert cli("keys", "lab.key").returncode == 0
    words = ("build", "--target", "jetson", "--model", source.folder, "--archive", "--sign", "lab.key")
    made = cli(*words, "-o", "first")
    assert made.returncode == 0, made.stderr
    assert NOT_MEASURED in made.stdout
    assert cli(*words, "-o", "second").returncode == 0
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()
    # Another cache, so everything was made and measured anew: the same but for the signature, which this one lacks.
    other = build_for(source, "jetson", tmp_path / "other", cache)
    for name in other.manifest.files:
        assert (other.folder / name).read_bytes() == (tmp_path / "first" / name).read_bytes(), name
    assert (other.folder / "manifest.json").read_bytes() == (tmp_path / "first" / "manifest.json").read_bytes()

    built = open_bundle(tmp_path / "first.zip", trust=tmp_path / "lab.pub")
    assert built.manifest.runtimes[0] == "tensorrt"
    taken, said = take(built.graph("tensorrt"), "8.7")
    assert taken, said
    assert "parsed and built" in said
    for model, out in (("first.zip", "jetson"), (source.folder, "shipped")):
        scanned = cli("scan", EXAMPLES, "--model", model, "-o", out)
        assert scanned.returncode == 0, scanned.stderr
    assert priorities(tmp_path / "jetson") == priorities(tmp_path / "shipped")


def priorities(out: Path) -> dict[str, str]:
    import csv

    with (out / "results.csv").open(newline="") as lines:
        return {row["file"]: row["priority"] for row in csv.DictReader(lines)}


def test_what_tensorrt_refuses_is_why_its_graphs_are_made_anew(source: Bundle, cache: Path) -> None:
    refused, why = take(source.model, None)
    assert not refused
    # What it meets first: activations around another zero, or a bias behind a DequantizeLinear.
    assert "zero point" in why.lower() or "bias_dq" in why.lower()
    engine = read_profile("jetson").engine("tensorrt")
    with np.load(source.reference) as stored:
        graphs = Graphs(source, stored["images"], cache)
    int8, fp16 = (graphs.make(engine, precision, read_profile("jetson")) for precision in ("int8", "fp16"))
    quantized = onnx.load(int8.onnx)  # type: ignore[union-attr]
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    nodes = [node for node in quantized.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(nodes) > 50
    for node in nodes:
        zero = values[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
        assert node.input[0] not in values or values[node.input[0]].dtype == np.int8
    assert widest_weight(int8.onnx) == 127  # type: ignore[union-attr]
    half = onnx.load(fp16.onnx)  # type: ignore[union-attr]
    assert {out.type.tensor_type.elem_type for out in half.graph.output} == {onnx.TensorProto.FLOAT}
    weights = [tensor for tensor in half.graph.initializer if len(tensor.dims) == 4]
    assert [tensor.data_type for tensor in weights].count(onnx.TensorProto.FLOAT) == 1  # the head


def test_with_labelled_films_the_drift_is_measured_on_the_test_split(
    source: Bundle, tmp_path: Path, cache: Path
) -> None:
    loose = Gate(max_drift=1, max_flipped=1)
    built = build_for(source, "jetson-nano", tmp_path / "built", cache, data=FILMS / "chestxray14", gate=loose)
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


def test_a_labels_table_of_ones_own_judges_too(source: Bundle, tmp_path: Path, cache: Path) -> None:
    loose = Gate(max_drift=1, max_flipped=1)
    built = build_for(source, "jetson-nano", tmp_path / "built", cache, data=EXAMPLES / "labels.csv", gate=loose)
    found = record_of(built).candidates[0].drift
    assert found is not None
    assert found.source == "labels test"
    assert found.films == len((EXAMPLES / "labels.csv").read_text().splitlines()) - 1
    assert "reference films" in record_of(built).calibration


def test_without_the_parent_there_is_no_drift_to_measure(source: Bundle, tmp_path: Path, cache: Path) -> None:
    files = {name: source.folder / name for name in source.manifest.files if name != source.manifest.full_model}
    orphan = write_bundle(
        tmp_path / "orphan",
        files,
        lambda hashes: source.manifest.model_copy(update={"files": hashes, "full_model": None}),
    )
    with pytest.raises(DataError, match="no full-precision parent"):
        build_for(orphan, "generic", tmp_path / "built", cache, data=FILMS / "chestxray14")
    built = build_for(orphan, "jetson", tmp_path / "built", cache)
    assert built.manifest.runtimes == ("onnxruntime",)
    verdicts = {row.verdict for row in record_of(built).candidates if row.runtime == "tensorrt"}
    assert len(verdicts) == 1
    assert "needs the full-precision parent" in verdicts.pop()


def test_outside_the_gate_nothing_is_written(cli: Cli, source: Bundle, tmp_path: Path, cache: Path) -> None:
    with pytest.raises(OutsideGateError) as raised:
        build_for(source, "generic", tmp_path / "built", cache, gate=Gate(max_disagreement=0))
    assert all(row.verdict.startswith("outside the gate") for row in raised.value.build.candidates)
    words = ("build", "--target", "generic", "--model", source.folder, "--max-disagreement", "0", "-o", "built")
    refused = cli(*words, "--archive")
    assert refused.returncode == 1
    assert "nothing was written" in refused.stderr
    assert "outside the gate" in refused.stdout
    assert not (tmp_path / "built").exists()
    assert not (tmp_path / "built.zip").exists()


def test_a_run_an_unknown_device_and_a_folder_of_films_are_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    (tmp_path / "mine.toml").write_text(OWN_PROFILE.replace("openvino", "abacus"))
    for words, says in (
        (("--target", "jetson", "--model", "run"), "cxredge compress run --data DATA -o run-bundle"),
        (("--target", "toaster"), "no device profile 'toaster'"),
        (("--target", "jetson", "--model", FILMS), "no bundle there"),
        (("--target", "generic", "-o", "run"), "exists and is not a bundle"),
        (("--target", "generic", "--sign", "absent.key"), "no private key there"),
        (("--target", "mine.toml"), "'abacus' is no engine"),
    ):
        refused = cli("build", *words)
        assert refused.returncode == 2
        assert says in refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_build_loads_no_torch(cli: Cli, source: Bundle) -> None:
    run = cli("build", "--target", "generic", "--model", source.folder, "-o", "built", python=("-X", "importtime"))
    assert run.returncode == 0, run.stderr[-2000:]
    loaded = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in run.stderr.splitlines() if "|" in line}
    assert "onnx" in loaded
    assert not loaded & {"torch", "torchvision", "nncf", "onnxscript"}


def test_a_profile_of_ones_own_gets_the_portable_model_too(source: Bundle, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "mine.toml").write_text(OWN_PROFILE)
    built = build_for(source, str(tmp_path / "mine.toml"), tmp_path / "built", cache)
    assert set(built.manifest.runtimes) == {"openvino", "onnxruntime"}
    assert all(row.latency is not None for row in record_of(built).candidates)
    rebuilt = build_for(built, "jetson-nano", tmp_path / "again", cache)
    assert not (rebuilt.folder / "openvino").exists()
    assert rebuilt.manifest.graphs == {}
    assert (rebuilt.folder / "MODEL_CARD.md").read_text().count("## Built for ") == 1


def test_an_engine_that_disagrees_with_onnx_runtime_is_not_kept(source: Bundle, cache: Path) -> None:
    profile = replace(read_profile("x86-vnni"), name="mine")
    with np.load(source.reference) as stored:
        images = stored["images"]
    films = Films(images, len(images), None, images, "")
    engine = profile.engine("openvino")
    plan = (engine, "int8", Graphs(source, images, cache).make(engine, "int8", profile))
    table = Table([plan], profile, this_machine(), {}, films, source)
    honest = dict(zip(table.jobs, measure(table.jobs, images), strict=True))
    gate = Gate(max_disagreement=1, max_flipped=1)
    assert table.candidate(plan, honest, gate).verdict == ""
    own = table.own(plan)
    assert own is not None
    faulty = honest[own]
    scaled = tuple((row[0], row[1] * 1.3, *row[2:]) for row in faulty.logits)
    verdict = table.candidate(plan, honest | {own: replace(faulty, logits=scaled)}, gate).verdict
    assert verdict.startswith("disagrees with onnxruntime on the same graph: logits")
    near = tuple(0.9 * far for far in faulty.atypicality)
    verdict = table.candidate(plan, honest | {own: replace(faulty, atypicality=near)}, gate).verdict
    assert "distances from the training films off by 1" in verdict


def test_an_engine_that_cannot_open_its_graph_is_a_row_and_not_an_end(source: Bundle, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    with np.load(source.reference) as stored:
        images = stored["images"][:2]
    jobs = [Job("onnxruntime", path, 1, False, True, timed=True) for path in (tmp_path / "broken.onnx", source.model)]
    broken, good = measure(jobs, images)
    assert broken.error
    assert broken == Measured(error=broken.error)
    assert len(good.logits) == len(images)
    assert len(good.milliseconds) >= 100
    assert good.peak_rss_mb is not None
    assert 30 < good.peak_rss_mb < 400


def row(name: str, milliseconds: float | None, verdict: str = "") -> Candidate:
    latency = Latency(p10_ms=milliseconds, median_ms=9.0, p90_ms=10.0, runs=10, threads=1) if milliseconds else None
    return Candidate(runtime=name, precision="int8", latency=latency, verdict=verdict)


@pytest.mark.parametrize(
    ("rows", "verdicts"),
    [
        ([row("a", 3.0), row("b", 2.0)], [SLOWER, KEPT]),
        ([row("a", 2.05), row("b", 2.0)], [KEPT, SLOWER]),  # equal: the profile's order
        ([row("a", None), row("b", None)], [KEPT, LATER]),
        ([row("a", None), row("b", 2.0)], [NOT_MEASURED, KEPT]),
        ([row("a", 1.0, "outside"), row("b", 2.0)], ["outside", KEPT]),
        ([row("a", 1.0, "outside")], ["outside"]),
    ],
)
def test_the_fastest_inside_the_gate_is_kept(rows: list[Candidate], verdicts: list[str]) -> None:
    assert [chosen.verdict for chosen in choose(rows)] == verdicts


def lost(mean: float, **findings: tuple[float, float]) -> AurocDrift:
    intervals = {name: Interval((low + high) / 2, low, high) for name, (low, high) in findings.items()}
    return AurocDrift(films=10, source="x", mean=Interval(mean, mean, mean), findings=intervals)


@pytest.mark.parametrize(
    ("drift", "agreement", "refused", "says"),
    [
        (lost(-0.004, a=(-0.02, 0.01)), 0.01, 0.0, ""),
        (lost(-0.006, a=(-0.02, 0.01)), 0.01, 0.0, "mean AUROC drift -0.0060"),
        (lost(0.001, a=(-0.02, -0.006), b=(-0.03, 0.0)), 0.01, 0.0, "a -0.0130"),
        (None, 0.021, 0.0, "mean |difference of probabilities| 0.0210"),
        (None, 0.01, 0.06, "refuses 6 % of the reference films"),
        (None, 0.01, 0.0, ""),
    ],
)
def test_the_gate(drift: AurocDrift | None, agreement: float, refused: float, says: str) -> None:
    agreed = Agreement(films=10, mean=agreement, largest=0.5, flipped=0.0)
    found = outside(Gate(), agreed, drift, refused)
    assert found == (f"outside the gate: {says}" if says else "")


def test_the_manifest_tells_where_each_number_came_from(source: Bundle, tmp_path: Path, cache: Path) -> None:
    said = json.loads((build_for(source, "raspberry-pi-5", tmp_path / "b", cache).folder / "manifest.json").read_text())
    for candidate in said["build"]["candidates"]:
        assert candidate["latency"] is None
        assert candidate["measured_on"] == NOT_MEASURED
        assert candidate["through"].startswith(candidate["runtime"])
    assert said["build"]["machine"]["architecture"] == this_machine().architecture
    assert said["software"]["onnxruntime"] == runtime("onnxruntime").version()


def test_what_runs_another_graph_is_named_and_its_accuracy_is_not_the_portable_models(
    source: Bundle, tmp_path: Path, cache: Path
) -> None:
    built = build_for(source, "gpu-server", tmp_path / "b", cache)
    assert built.manifest.accuracy == source.manifest.accuracy
    assert "onnxruntime runs model.fp32.onnx (fp32)" in built.manifest.caveat("onnxruntime")
    assert built.graph_sha256("onnxruntime") == built.manifest.files["model.fp32.onnx"]
    assert source.manifest.caveat("onnxruntime") == ""
    assert source.graph_sha256("onnxruntime") == source.model_sha256
    for film in sorted(EXAMPLES.glob("*.jpg")):
        with Scanner(built, runtime="onnxruntime") as scanner:
            assert scanner.read(film).model_sha256 == built.graph_sha256("onnxruntime")
