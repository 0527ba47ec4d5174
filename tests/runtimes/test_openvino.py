"""OpenVINO says what ONNX Runtime says of the same films, from one bundle, and keeps the engines' contract."""

import csv
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from house import EXAMPLES, Cli
from numpy.typing import NDArray

from cxredge.bundle import Bundle
from cxredge.bundle.manifest import Finding
from cxredge.devices import read_profile
from cxredge.runtimes import Artifact, EngineError, Session, Tuning, runtime
from cxredge.scan.decide import nearness

pytest.importorskip("openvino", reason="an extra: pip install cxredge[openvino]")


@pytest.mark.parametrize("error", ["ImportError", "OSError"])
def test_openvino_reads_where_onnx_runtime_does_not_load(cli: Cli, tmp_path: Path, error: str) -> None:
    """As on Windows without the C++ runtime, or where a library beside it is missing."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "onnxruntime.py").write_text(f'raise {error}("DLL load failed")')
    run = subprocess.run(
        cli.command("scan", EXAMPLES / "00000457_002.jpg", "--output", "out"),
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env=cli.environment | {"PYTHONPATH": str(tmp_path / "broken")},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "DLL load failed" in run.stderr
    engine = json.loads((tmp_path / "out" / "summary.json").read_text())["runtime"]
    assert engine["name"] == "openvino"
    assert "ONNX Runtime does not load" in engine["notice"]


def test_both_engines_agree_on_the_example_films(
    bundle: Bundle, films: NDArray[np.uint8], load: Callable[..., Session]
) -> None:
    one, two = load("onnxruntime"), load("openvino")
    off = np.concatenate([np.abs(one.run(film[None]).logits - two.run(film[None]).logits) for film in films])
    assert len(off) >= 8
    assert off.mean() <= bundle.manifest.tolerance.mean
    assert off.max() <= bundle.manifest.tolerance.largest


def test_scan_reads_the_same_with_either_engine_of_one_bundle(cli: Cli, tmp_path: Path, bundle: Bundle) -> None:
    tables = {}
    for name in ("onnxruntime", "openvino"):
        run = cli("scan", EXAMPLES, "--output", name, "--runtime", name)
        assert run.returncode == 0, run.stderr
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        assert summary["runtime"]["name"] == name
        assert "notice" not in summary["runtime"]
        with (tmp_path / name / "results.csv").open(newline="") as lines:
            tables[name] = {row["file"]: row for row in csv.DictReader(lines)}
    one, other = tables["onnxruntime"], tables["openvino"]
    assert one.keys() == other.keys()
    for film in one:
        assert one[film]["status"] == other[film]["status"]
        if one[film]["status"] != "ok":
            continue
        logits = [{f: logit_of(rows[film][f"p_{f}"]) for f in bundle.manifest.names} for rows in (one, other)]
        assert max(abs(logits[0][f] - logits[1][f]) for f in bundle.manifest.names) <= bundle.manifest.tolerance.largest
        # Engines round differently: a film may change its place only where a threshold lies between what the two say.
        same = one[film]["priority"] == other[film]["priority"]
        assert same or any(
            min(pair) <= border <= max(pair)
            for finding in bundle.manifest.findings
            if not finding.experimental
            for pair in [(logits[0][finding.name], logits[1][finding.name])]
            for border in borders_of(finding, bundle)
        )


def logit_of(probability: str) -> float:
    return math.log(float(probability) / (1 - float(probability)))


def borders_of(finding: Finding, bundle: Bundle) -> list[float]:
    """The logits at which this finding changes a film's priority."""
    balanced, specific = (logit_of(str(point.threshold)) for point in (finding.balanced, finding.specific))
    return [balanced - nearness(finding, bundle.manifest), balanced, specific]


def test_a_film_reads_the_same_alone_and_among_others(films: NDArray[np.uint8], load: Callable[..., Session]) -> None:
    session = load("openvino")
    together = session.run(films[:3])
    assert together.atypicality is not None
    for i in range(3):
        alone = session.run(films[i : i + 1])
        np.testing.assert_allclose(alone.logits[0], together.logits[i], atol=1e-4)
        np.testing.assert_allclose(alone.cam[0], together.cam[i], atol=1e-3)
        assert alone.atypicality is not None
        assert alone.atypicality[0] == pytest.approx(together.atypicality[i], rel=1e-4)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("threads", [1, 2])
def test_callers_in_several_threads_get_their_own_film(
    films: NDArray[np.uint8], load: Callable[..., Session], name: str, threads: int
) -> None:
    session = load(name, threads)
    expected = [session.run(film[None]).logits for film in films]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: session.run(films[i % len(films)][None]).logits, range(64)))
    for i, logits in enumerate(found):
        np.testing.assert_allclose(logits, expected[i % len(films)], atol=1e-4)
    assert not np.allclose(expected[0], expected[1], atol=1e-2)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_outputs_stay_as_they_are_when_the_next_film_is_read(
    films: NDArray[np.uint8], load: Callable[..., Session], name: str
) -> None:
    session = load(name)
    first = session.run(films[:1])
    before = first.logits.copy(), first.cam.copy()
    session.run(films[1:2])
    np.testing.assert_array_equal(first.logits, before[0])
    np.testing.assert_array_equal(first.cam, before[1])


def test_an_image_of_another_shape_or_type_is_refused(films: NDArray[np.uint8], load: Callable[..., Session]) -> None:
    session = load("openvino")
    with pytest.raises(ValueError, match="takes images of"):
        session.run(films[:1, :, :10, :10])
    with pytest.raises(TypeError, match="float32"):
        session.run(films[:1].astype(np.float32))  # type: ignore[arg-type]


def test_ir_holds_the_same_numbers_and_is_the_same_file_every_time(
    bundle: Bundle, films: NDArray[np.uint8], load: Callable[..., Session], tmp_path: Path
) -> None:
    engine, profile = runtime("openvino"), read_profile("x86-vnni")
    artifacts = [engine.compile(bundle.model, profile, tmp_path / name) for name in ("a", "b")]
    for name in ("model.xml", "model.bin"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a" / "model.bin").stat().st_size < 1.1 * bundle.model.stat().st_size
    np.testing.assert_array_equal(
        engine.load(artifacts[0], 1).run(films[:1]).logits, load("openvino").run(films[:1]).logits
    )


def test_a_device_that_is_not_there_is_named(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match=r"finds no NPU here, only .*CPU"):
        runtime("openvino").load(Artifact("openvino", bundle.model), 1, Tuning(device="NPU"))


def test_why_a_graph_cannot_be_opened_is_said_in_one_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    with pytest.raises(EngineError, match=r"^Unable to read the model[^\n]*$"):
        runtime("openvino").load(Artifact("openvino", tmp_path / "broken.onnx"), 1)
    said = cli("scan", EXAMPLES / "00000457_002.jpg", "--runtime", "openvino:CPU.7")
    assert said.returncode == 2
    assert "openvino:CPU.7" in said.stderr
    assert "Exception from" not in said.stderr


def test_what_was_compiled_is_kept_and_not_trusted_once_damaged(
    films: NDArray[np.uint8], load: Callable[..., Session], tmp_path: Path
) -> None:
    tuning = Tuning(cache=tmp_path)
    expected = load("openvino", tuning=tuning).run(films[:1]).logits
    (kept,) = (tmp_path / "openvino").iterdir()
    written = kept.stat().st_mtime_ns
    np.testing.assert_array_equal(load("openvino", tuning=tuning).run(films[:1]).logits, expected)
    assert kept.stat().st_mtime_ns == written
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 255
    kept.write_bytes(content)
    np.testing.assert_array_equal(load("openvino", tuning=tuning).run(films[:1]).logits, expected)
    assert kept.stat().st_mtime_ns != written
    assert kept.read_bytes() != bytes(content)
    # Other threads, another graph for this machine.
    load("openvino", 2, tuning=tuning)
    assert len(list((tmp_path / "openvino").iterdir())) == 2


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="x86's instructions can be left out on request"
)
def test_what_was_compiled_for_other_instructions_is_compiled_anew(tmp_path: Path, bundle: Bundle) -> None:
    """Virtual machines give processors of one name with other instructions, and OpenVINO refuses what it compiled for those."""
    opens = (
        "import sys; from pathlib import Path; from cxredge.runtimes import Artifact, Tuning, runtime;"
        "runtime('openvino').load(Artifact('openvino', Path(sys.argv[1])), 1, Tuning(cache=Path(sys.argv[2])))"
    )
    for instructions in ("SSE41", "DEFAULT", "DEFAULT"):
        opened = subprocess.run(
            [sys.executable, "-c", opens, str(bundle.model), str(tmp_path)],
            capture_output=True, text=True, check=False, env={**os.environ, "ONEDNN_MAX_CPU_ISA": instructions},
        )  # fmt: skip
        assert opened.returncode == 0, opened.stderr
        (stored,) = (tmp_path / "openvino").iterdir()
        assert (b"SSE" in stored.read_bytes()[:200]) == (instructions == "SSE41")


def test_nothing_is_reported_to_anybody(bundle: Bundle) -> None:
    """Importing OpenVINO would report the import; its telemetry package must not even be loaded."""
    script = (
        "import sys; from pathlib import Path; from cxredge.runtimes import Artifact, runtime;"
        f"runtime('openvino').load(Artifact('openvino', Path({str(bundle.model)!r})), 1);"
        "print(sorted(name for name in sys.modules if name.startswith('openvino_telemetry')))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_closed_session_reads_nothing(films: NDArray[np.uint8], load: Callable[..., Session], name: str) -> None:
    session = load(name)
    session.close()
    with pytest.raises((ValueError, AttributeError)):
        session.run(films[:1])
