"""TensorRT as far as it goes without a GPU: its parser and its builder, and what is said where it is missing."""

import sys
from pathlib import Path

import pytest

from cxredge.bundle import Bundle
from cxredge.compress.half import to_half
from cxredge.compress.tensorrt_check import take
from cxredge.devices import read_profile
from cxredge.runtimes import Artifact, EngineError, runtime, tensorrt_
from cxredge.runtimes.cuda import Cuda, CudaError
from cxredge.runtimes.tensorrt_build import build_engine, check_graph

LIBRARY = "tensorrt_rtx"
trt = pytest.importorskip(LIBRARY, reason="an extra: pip install cxredge[tensorrt-rtx]")


def test_a_symmetric_graph_is_parsed_and_built_for_the_jetsons_nearest_relative(legal: Path) -> None:
    checked = check_graph(legal, read_profile("jetson").compute_capabilities)
    assert checked is not None
    assert checked.legal, checked.refused
    assert checked.library.startswith(LIBRARY)
    assert checked.convolutions["int8"] >= 40
    assert checked.covered == 1
    assert checked.operators["convolution"] == sum(checked.convolutions.values())
    # The library knows no 8.7; the next lower of the same generation is said to be what it is.
    assert checked.built == {"8.7": "8.6"}
    assert any("stay in FP32" in line for line in checked.warnings)


def test_a_half_precision_graph_runs_in_half_precision(float_graph: Path, tmp_path: Path) -> None:
    to_half(float_graph, tmp_path / "half.onnx")
    checked = check_graph(tmp_path / "half.onnx", ["8.6"])
    assert checked is not None
    assert checked.legal, checked.refused
    assert checked.built == {"8.6": "8.6"}
    assert checked.convolutions["fp16"] >= 50


def test_the_portable_graph_is_refused_with_the_node_and_the_reason(bundle: Bundle, tmp_path: Path) -> None:
    checked = check_graph(bundle.model, ["8.7"])
    assert checked is not None
    assert not checked.legal
    assert "quantizelinear" in checked.refused[0].lower()
    assert (checked.built, checked.failed) == ({}, {})
    with pytest.raises(EngineError, match="refuses the graph"):
        runtime(LIBRARY).compile(bundle.model, read_profile("jetson"), tmp_path)
    with pytest.raises(EngineError, match="cxredge build --target jetson"):
        build_engine(LIBRARY, bundle.model.read_bytes(), timing_cache=None)


def test_engines_are_built_ahead_of_time_for_every_card_but_those_of_turing(legal: Path) -> None:
    """Where this fails because Turing builds too, the profile and the module may say so."""
    checked = check_graph(legal, read_profile("gpu-server").compute_capabilities, LIBRARY)
    assert checked is not None
    assert checked.legal
    assert set(checked.built) == {"8.6", "8.9", "12.0"}
    assert "FP32 GEMM is not supported" in checked.failed["7.5"]
    only = check_graph(legal, ["7.5"], LIBRARY)
    assert only is not None
    assert not only.legal
    said = take(legal, ["8.6", "7.5"])
    assert said[0]
    assert "no engine for 7.5: Cannot compile operation" in said[1]
    assert "codeGenerator" not in said[1]


@pytest.mark.filterwarnings("ignore:.*[Tt]iming cache:DeprecationWarning")
def test_timings_of_kernels_are_handed_to_the_builder_and_come_back(
    legal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT's calls, on the library that has them too and ignores them: that they are right, not what they save."""
    if _installed("tensorrt"):
        pytest.skip("the real one is here, which does not build without a GPU")
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    plan, learned = build_engine("tensorrt", legal.read_bytes(), timing_cache=None)
    assert len(plan) > 100_000
    assert learned
    for earlier in (learned, b"not what a builder learned"):
        again, _ = build_engine("tensorrt", legal.read_bytes(), timing_cache=earlier)
        assert len(again) > 100_000


def test_compile_hands_on_a_graph_that_the_parser_takes(legal: Path, tmp_path: Path) -> None:
    artifact = runtime(LIBRARY).compile(legal, read_profile("jetson"), tmp_path / "out")
    assert artifact == Artifact(LIBRARY, tmp_path / "out" / "model.onnx")
    assert artifact.path.read_bytes() == legal.read_bytes()


def test_an_engine_is_built_with_a_line_of_progress(legal: Path) -> None:
    said: list[str] = []
    plan, _ = build_engine(LIBRARY, legal.read_bytes(), timing_cache=None, say=said.append)
    assert len(plan) > 100_000
    assert said
    assert all(line.startswith("Building the engine: ") and line.endswith(" %") for line in said)


def test_a_missing_library_or_gpu_is_one_line_that_says_what_to_do() -> None:
    if _has_gpu():
        pytest.skip("this machine has a GPU")
    reason = runtime(LIBRARY).available()
    assert isinstance(reason, str)
    assert "no NVIDIA GPU can be used" in reason
    missing = tensorrt_.available("tensorrt") if not _installed("tensorrt") else "pip install"
    assert isinstance(missing, str)
    assert "pip install" in missing
    assert "\n" not in reason + missing


@pytest.mark.parametrize(
    ("release", "says", "leaves_out"),
    [
        ("# R32 (release), REVISION: 7.1", "JetPack 4 has it for Python 3.6 only", "nvidia-jetpack"),
        ("# R35 (release), REVISION: 6.0", "JetPack 5 has it for Python 3.8 only", "nvidia-jetpack"),
        ("# R36 (release), REVISION: 4.3", "JetPack 6 has it for Python 3.10 only", "nvidia-jetpack"),
        ("# R36 (release), REVISION: 4.3", "the CPU reads, through ONNX Runtime", "pip install"),
        ("# R36 (release), REVISION: 4.3", "needs JetPack 7.2 or newer", "pip install"),
        ("# R39 (release), REVISION: 2.0", "sudo apt install nvidia-jetpack", "pip install"),
        ("", "--system-site-packages", "pip install"),
    ],
)
def test_a_jetson_is_told_what_its_jetpack_can_do(
    release: str, says: str, leaves_out: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "release").write_text(release)
    monkeypatch.setattr(tensorrt_, "JETSON", tmp_path / "release")
    # As if it were not installed: None makes an import fail.
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, LIBRARY, None)
    told = tensorrt_.available("tensorrt")
    assert isinstance(told, str)
    assert says in told
    assert leaves_out not in told
    assert "\n" not in told
    assert "a Jetson takes TensorRT" in str(tensorrt_.available(LIBRARY))


def _has_gpu() -> bool:
    try:
        Cuda()
    except CudaError:
        return False
    return True


def _installed(library: str) -> bool:
    try:
        __import__(library)
    except ImportError:
        return False
    return True
