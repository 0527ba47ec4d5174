"""Latency and memory: the measured process, and what the machine says of itself."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from house import FILMS
from onnx import TensorProto, helper

from cxredge.benchmarks import sensors
from cxredge.benchmarks.macs import count_macs
from cxredge.benchmarks.measure import Profile, Setting, job_for, measure, run_child
from cxredge.bundle import open_bundle
from cxredge.errors import CxredgeError
from cxredge.train.network import FilmNetwork
from cxredge.train.subject import open_subject

FEW = sorted((FILMS / "chestxray14" / "images").glob("*"))[:4]
BLINK = Profile("blink", 2, 0.4, 10, 0.2)
TIME = Path("/usr/bin/time")


@pytest.mark.skipif(not TIME.exists(), reason="needs GNU time (Debian: apt-get install time)")
def test_peak_memory_is_what_gnu_time_sees_of_the_same_process(tmp_path: Path) -> None:
    job = job_for(open_subject("chestxray14"), Setting(0, "onnxruntime", 1, 1), FEW, BLINK)
    ballast = np.ones(40_000_000)  # 320 MB in this process must not count for the child
    found = run_child(job, before=[str(TIME), "-v", "-o", str(tmp_path / "said")])
    assert ballast.sum() == 40_000_000
    seen = re.search(r"Maximum resident set size \(kbytes\): (\d+)", (tmp_path / "said").read_text())
    assert seen is not None
    assert found["rss_mb"]["peak"] == pytest.approx(int(seen[1]) * 1024 / 1e6, rel=0.05)
    assert found["rss_mb"]["peak"] < 250


def test_every_setting_is_measured_in_every_round_and_every_sample_is_kept() -> None:
    subject = open_subject("chestxray14")
    settings = [Setting(0, "onnxruntime", 1, 1), Setting(0, "onnxruntime", 1, 4)]
    said: list[str] = []
    measured, raw = measure([subject], settings, FEW, BLINK, say=said.append)
    assert len(said) == 4
    assert {line.split(":")[0] for line in said[:2]} == {"Round 1 of 2"}
    single, four = measured
    assert single.engine_only.queries == sum(
        len(raw[f"chestxray14/onnxruntime/1/1/{number}/engine_only"]) for number in range(2)
    )
    assert single.engine_only.p50 <= single.engine_only.p90 <= single.engine_only.p99
    assert single.film_to_result is not None
    assert single.film_to_result.p50 > single.engine_only.p50
    assert four.film_to_result is None
    assert four.engine_only.p50 > single.engine_only.p50
    assert len(single.cold_start_ms) == len(single.yardstick_ms) == 2
    assert min(single.cold_start_ms) > max(single.load_ms)
    assert 0 < single.model_rss_mb < single.peak_rss_engine_mb <= single.peak_rss_mb


def test_the_measured_process_holds_nothing_it_does_not_need() -> None:
    code = (
        "import sys; import cxredge.benchmarks.child, cxredge.train.engine as e; e.import_engine('onnxruntime');"
        "print(sorted({n.split('.')[0] for n in sys.modules} & {'torch', 'openvino', 'pydantic', 'matplotlib', 'typer', 'onnx'}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_process_that_fails_is_named_with_what_it_said(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    job = job_for(open_subject("chestxray14"), Setting(0, "onnxruntime", 1, 1), FEW, BLINK)
    with pytest.raises(CxredgeError, match=r"broken.onnx on onnxruntime could not be measured"):
        run_child(type(job)(**{**job.__dict__, "path": str(tmp_path / "broken.onnx")}))


def test_macs_of_a_graph_counted_by_hand(tmp_path: Path) -> None:
    """3 x 3 grouped convolution, 4 -> 8 channels at stride 2 on 10 x 10, then a product 8 -> 5."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
            helper.make_node("Conv", ["x", "first"], ["a"], pads=[1, 1, 1, 1]),
            helper.make_node("Conv", ["a", "second"], ["b"], strides=[2, 2], pads=[1, 1, 1, 1], group=2),
            helper.make_node("GlobalAveragePool", ["b"], ["c"]),
            helper.make_node("Flatten", ["c"], ["d"]),
            helper.make_node("MatMul", ["d", "third"], ["logits"]),
        ],
        "by hand",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 1, 10, 10])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5])],
        [
            helper.make_tensor(name, TensorProto.FLOAT, shape, np.zeros(shape, np.float32).tobytes(), raw=True)
            for name, shape in (("first", (4, 1, 3, 3)), ("second", (8, 2, 3, 3)), ("third", (8, 5)))
        ],
    )
    onnx.save(helper.make_model(graph), tmp_path / "hand.onnx")
    assert count_macs(tmp_path / "hand.onnx", 10) == 10 * 10 * 4 * 9 + 5 * 5 * 8 * 2 * 9 + 8 * 5


def test_work_that_cannot_be_counted_is_a_dash_and_loses_no_measurement(tmp_path: Path) -> None:
    """ONNX Runtime saves what it has optimized with operators of its own: fused, they are no convolutions by name."""
    asked = onnxruntime.SessionOptions()
    asked.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    asked.optimized_model_filepath = str(tmp_path / "fused.onnx")
    onnxruntime.InferenceSession(open_subject("chestxray14").path, asked, providers=["CPUExecutionProvider"])
    fused = open_subject(tmp_path / "fused.onnx", like="chestxray14")
    with pytest.raises(CxredgeError, match="cannot be counted"):
        count_macs(fused.path, 224)
    (found,), _ = measure([fused], [Setting(0, "onnxruntime", 1, 1)], FEW, BLINK, say=lambda _: None)
    assert found.mmacs is None
    assert found.engine_only.queries >= BLINK.queries


def test_macs_of_the_shipped_graph_are_those_of_its_architecture() -> None:
    """PyTorch's own layers, counted by their outputs, for each time that the graph reads a film."""
    subject = open_subject("chestxray14")
    readings = 1 + open_bundle("chestxray14").manifest.training.recipe["mirrored"]
    network, counted = FilmNetwork("mobilenet_v2", len(subject.findings)).eval(), []
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda own, _, out: counted.append(out.numel() * own.weight[0].numel()))
    size = subject.preprocessing.size
    with torch.inference_mode():
        network.head(network.maps(torch.zeros(1, 1, size, size, dtype=torch.uint8)))
    if "mobilenet" in open_architecture():
        # The gate's few products come on top.
        assert 1 <= count_macs(subject.path, size) / (readings * sum(counted)) <= 1.02


def open_architecture() -> str:
    from cxredge.bundle import open_bundle

    return open_bundle("chestxray14").manifest.architecture


def test_sensors_are_read_where_they_are_and_unknown_where_they_are_not(tmp_path: Path) -> None:
    files = {
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000",
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "2500000",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave",
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "7",
        "sys/class/thermal/thermal_zone0/temp": "41500",
        "sys/class/thermal/thermal_zone1/temp": "63250",
        "sys/class/powercap/intel-rapl:0/energy_uj": "2500000",
        "sys/class/powercap/intel-rapl:0/name": "package-0",
        "sys/class/powercap/intel-rapl:1/energy_uj": "9900000",
        "sys/class/powercap/intel-rapl:1/name": "psys",
        "sys/bus/i2c/drivers/ina3221x/6-0040/hwmon/hwmon2/in1_input": "5000",
        "sys/bus/i2c/drivers/ina3221x/6-0040/hwmon/hwmon2/curr1_input": "1200",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert sensors.sample(tmp_path) == sensors.Sample(2000, 63.25, 6.0, 7)
    assert sensors.governor(tmp_path) == "powersave"
    assert sensors.energy_joules(tmp_path) == 2.5
    nothing = tmp_path / "nothing"
    assert sensors.sample(nothing) == sensors.Sample(None, None, None, None)
    assert sensors.energy_joules(nothing) is None
    assert sensors.governor(nothing) is None
