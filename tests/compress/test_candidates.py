"""What a candidate is made of and measured by, and which one is kept."""

import os
import shutil
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from cxredge.bundle import Bundle
from cxredge.bundle.built import NOT_MEASURED, Agreement, AurocDrift, Candidate, Latency
from cxredge.compress.build_card import loss
from cxredge.compress.candidate_graphs import Graphs, widest_weight
from cxredge.compress.candidates import KEPT, LATER, SLOWER, Films, Table, choose, is_target
from cxredge.compress.measure import Job, Measured, measure
from cxredge.compress.tensorrt_check import take
from cxredge.compress.verdict import BuildGate, drift, labelled, outside
from cxredge.devices import read_profile, this_machine
from cxredge.errors import CxredgeError, DataError
from cxredge.metrics import Interval
from cxredge.train.sources import Films as TrainFilms


def test_what_tensorrt_refuses_is_why_its_graphs_are_made_anew(source: Bundle, cache: Path) -> None:
    refused, why = take(source.model)
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


def test_an_engine_that_disagrees_with_onnx_runtime_is_not_kept(source: Bundle, cache: Path) -> None:
    profile = replace(read_profile("x86-vnni"), name="mine")
    with np.load(source.reference) as stored:
        images = stored["images"]
    films = Films(images, len(images), None, images, "")
    engine = profile.engine("openvino")
    plan = (engine, "int8", Graphs(source, images, cache).make(engine, "int8", profile))
    table = Table([plan], profile, this_machine(), {}, films, source)
    honest = dict(zip(table.jobs, measure(table.jobs, images), strict=True))
    gate = BuildGate(max_disagreement=1, max_flipped=1)
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
    jobs = [Job("onnxruntime", path) for path in (tmp_path / "broken.onnx", source.model)]
    broken, good = measure(jobs, images)
    assert broken.error
    assert broken == Measured(error=broken.error)
    assert len(good.logits) == len(images)
    assert len(good.milliseconds) >= 100
    assert good.peak_rss_mb is not None
    assert 30 < good.peak_rss_mb < 400


@pytest.mark.skipif(sys.platform != "linux", reason="finds its children below /proc")
def test_a_candidate_that_is_killed_while_others_are_measured_is_named(source: Bundle) -> None:
    """As the system does where memory runs out."""
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children")

    def kill_the_second(done: int, _: int) -> None:
        if done == 1:
            second = sorted(map(int, children.read_text().split()))[1]
            os.kill(second, signal.SIGKILL)
            os.waitid(os.P_PID, second, os.WEXITED | os.WNOWAIT)

    with np.load(source.reference) as stored:
        images = stored["images"][:1]
    jobs = [Job("onnxruntime", source.model, spinning=spinning) for spinning in (False, True)]
    with pytest.raises(
        CxredgeError, match=r"onnxruntime with model\.onnx ended while it was being measured \(exit -9\)"
    ):
        measure(jobs, images, tick=kill_the_second)


def test_16_bit_floats_that_overflow_are_a_row_and_not_an_end(source: Bundle, cache: Path, tmp_path: Path) -> None:
    """Full precision computes through numbers that 16 bits cannot hold, and gives the same logits as ever."""
    large = replace(source, folder=Path(shutil.copytree(source.folder, tmp_path / "large")))
    assert large.float_model is not None
    model = onnx.load(large.float_model)
    first = next(i for i, node in enumerate(model.graph.node) if node.op_type == "Conv")
    made = model.graph.node[first].output[0]
    model.graph.node[first].output[0] = "as_before"
    for name, by in (("up", 1e6), ("down", 1e-6)):
        model.graph.initializer.append(numpy_helper.from_array(np.float32(by), name))
    # A Relu between, or both would be folded away; the network has one there anyway.
    for i, (kind, given, out) in enumerate((
        ("Mul", ["as_before", "up"], "larger"), ("Relu", ["larger"], "kept"), ("Mul", ["kept", "down"], made),
    )):  # fmt: skip
        model.graph.node.insert(first + 1 + i, onnx.helper.make_node(kind, given, [out], f"added_{i}"))
    onnx.save(model, large.float_model)

    profile = replace(read_profile("jetson"), name="mine")
    with np.load(source.reference) as stored:
        images = stored["images"][:2]
        (large.folder / "reference.npz").unlink()
        np.savez(large.reference, images=images, full=stored["full"][:2])
    engine = profile.engine("tensorrt")
    plans = [
        (engine, precision, Graphs(large, images, cache).make(engine, precision, profile))
        for precision in ("fp16", "fp32")
    ]
    table = Table(plans, profile, this_machine(), {}, Films(images, len(images), None, images, ""), large)
    measured = dict(zip(table.jobs, measure(table.jobs, images), strict=True))
    verdicts = [table.candidate(plan, measured, BuildGate()).verdict for plan in plans]
    assert verdicts == ["gives numbers that are not finite", ""]


def row(name: str, milliseconds: float | None, verdict: str = "") -> Candidate:
    latency = Latency(p10_ms=milliseconds, median_ms=9.0, p90_ms=10.0, runs=10, threads=1) if milliseconds else None
    return Candidate(runtime=name, precision="int8", latency=latency, verdict=verdict)


@pytest.mark.parametrize(
    ("rows", "verdicts"),
    [
        ([row("a", 3.0), row("b", 2.0)], [SLOWER, KEPT]),
        ([row("a", 2.05), row("b", 2.0), row("c", None)], [KEPT, LATER, NOT_MEASURED]),  # equal: the profile's order
        ([row("a", None), row("b", None)], [KEPT, LATER]),
        ([row("a", None), row("b", 2.0)], [NOT_MEASURED, KEPT]),
        ([row("a", 1.0, "outside"), row("b", 2.0)], ["outside", KEPT]),
        ([row("a", 1.0, "outside")], ["outside"]),
    ],
)
def test_the_fastest_inside_the_gate_is_kept(rows: list[Candidate], verdicts: list[str]) -> None:
    assert [chosen.verdict for chosen in choose(rows)] == verdicts


def test_drift_of_several_data_sets_is_that_within_each() -> None:
    """Rounding that moves one hospital's logits as a whole changes no ranking within it, and so costs nothing."""
    rng = np.random.default_rng(0)
    labels = (rng.random(80) < 0.4).astype(np.float32)
    sources = np.repeat(["north", "south"], 40)
    numbers = np.arange(80).astype(str)
    files = tuple(Path(f"{number}.png") for number in numbers)
    films = TrainFilms(files, numbers, sources, np.repeat("test", 80), ("a",), labels[:, None])
    told = labelled(films, ["a"], "both test")
    full = (labels + rng.normal(size=80))[:, None].astype(np.float64)
    moved = full + np.where(sources == "south", 2.0, 0.0)[:, None]
    found = drift(told, full, moved).mean
    assert found.value == 0
    assert 0 < found.high < 0.01
    assert drift(told, full, full.copy()).mean == Interval(0, 0, 0)
    together = replace(told, sources=np.repeat("one", 80))
    assert abs(drift(together, full, moved).mean.value) > 0.01
    with pytest.raises(DataError, match="both kinds of film"):
        labelled(replace(films, labels=(sources == "north")[:, None].astype(np.float32)), ["a"], "both test")


def test_a_finding_with_films_of_one_kind_only_is_named_beside_the_drift() -> None:
    labels = np.array([[1, 0, 0], [0, 0, 1], [1, 0, np.nan], [np.nan] * 3], np.float32)
    numbers = np.arange(4).astype(str)
    files = tuple(Path(f"{number}.png") for number in numbers)
    films = TrainFilms(files, numbers, np.repeat("one", 4), np.repeat("test", 4), ("a", "b", "c"), labels)
    found = drift(labelled(films, ["a", "b", "c", "d"], "one test"), *np.random.default_rng(0).normal(size=(2, 4, 4)))
    assert (found.films, set(found.findings), found.unjudged) == (3, {"a", "c"}, ("b",))
    named = Candidate(runtime="r", precision="int8", drift=found, verdict=KEPT)
    assert "not judged, of films of one kind only: b" in loss(named)


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
    found = outside(BuildGate(), agreed, drift, refused)
    assert found == (f"outside the gate: {says}" if says else "")


def test_a_profile_of_ones_own_is_this_machine_only_where_all_it_says_is_true() -> None:
    here = this_machine()
    mine = replace(read_profile("generic"), name="mine")
    assert is_target(mine, here)
    true = {"architecture": here.architecture, "cores": here.cores, "memory_mb": here.memory_mb}
    assert is_target(replace(mine, **true), here)  # type: ignore[arg-type]
    for untrue in (
        {"architecture": "aarch64" if here.architecture == "x86_64" else "x86_64"},
        {"cores": here.cores + 2},
        {"memory_mb": 2 * (here.memory_mb or 4000)},
        {"boards": ("Some Board",)},
        {"extensions": ("no_such_flag",)},
        {"compute_capabilities": ("8.7",)},
    ):
        assert not is_target(replace(mine, **untrue), replace(here, nvidia="")), untrue  # type: ignore[arg-type]
    assert is_target(replace(mine, boards=("Some Board",)), replace(here, board="Some Board 5"))
    # As shipped it means any machine; changed under the same name, it means what it says.
    shipped = read_profile("generic")
    assert is_target(shipped, here)
    assert is_target(replace(shipped, threads=2), here)
    assert not is_target(replace(shipped, cores=here.cores + 2), here)
