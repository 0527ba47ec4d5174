"""Which engine reads: the first that is here, opens the graph and gives the right numbers; never one that does not."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from house import EXAMPLES, Cli
from tamper import rewrite

from cxredge.bundle import Bundle
from cxredge.errors import RuntimeMissingError, SelfTestError
from cxredge.runtimes import MODULES, Artifact, Outputs, Session, Tuning, runtime
from cxredge.scan.engine import open_engine
from cxredge.scan.reading import Status
from cxredge.scan.scanner import Scanner

FILM = EXAMPLES / "00000457_002.jpg"


class Faulty:
    """A real session whose third output is scaled, as a broken accelerator's might be."""

    def __init__(self, session: Session, factor: float) -> None:
        self.session, self.factor, self.closed = session, factor, False

    def run(self, image: np.ndarray) -> Outputs:
        if self.factor == 0:
            raise RuntimeError("device lost")
        outputs = self.session.run(image)
        logits, cam = outputs.logits.copy(), outputs.cam.copy()
        logits[:, 2] *= self.factor
        cam[:, 2] *= self.factor
        return replace(outputs, logits=logits, cam=cam)

    def close(self) -> None:
        self.closed = True
        self.session.close()


Plant = Callable[..., ModuleType]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Plant:
    """Make an engine called "planted" known: ONNX Runtime underneath, with what is wrong with it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def make(*, missing: str = "", refuses: str = "", factor: float = 1.0) -> ModuleType:
        module = ModuleType("planted_engine")

        def load(artifact: Artifact, threads: int, tuning: Tuning) -> Session:
            if refuses:
                raise RuntimeError(refuses)
            beneath = runtime("onnxruntime").load(artifact, threads, replace(tuning, device=""))
            module.session = Faulty(beneath, factor)
            return module.session

        module.NAME, module.available, module.version = "planted", lambda: missing or True, lambda: "1"
        module.load = load
        monkeypatch.setitem(sys.modules, "planted_engine", module)
        monkeypatch.setitem(MODULES, "planted", "planted_engine")
        return module

    return make


def with_engines(bundle: Bundle, *names: str) -> Bundle:
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"runtimes": names}))


def test_the_first_engine_is_used_when_nothing_is_wrong_with_it(bundle: Bundle, plant: Plant) -> None:
    plant()
    engine = open_engine(with_engines(bundle, "planted", "onnxruntime"))
    assert (engine.name, engine.text, engine.notices) == ("planted", "planted 1", ())


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"missing": "Planted is not there; install it: apt install planted"}, "apt install planted"),
        ({"refuses": "no kernel for this GPU\nat line 3"}, "planted 1 cannot open model.onnx: no kernel for this GPU"),
        ({"factor": 1.3}, "planted 1 failed the self-test on this machine: the engine's logits differ"),
        ({"factor": float("nan")}, "not finite"),
        ({"factor": 0.0}, "it broke down (RuntimeError: device lost)"),
    ],
)
def test_an_engine_that_cannot_be_trusted_is_passed_over_and_said_so(
    bundle: Bundle, plant: Plant, wrong: dict[str, object], says: str
) -> None:
    module = plant(**wrong)
    said: list[str] = []
    with Scanner(with_engines(bundle, "planted", "onnxruntime"), say=said.append) as scanner:
        assert scanner.runtime == "onnxruntime"
        (notice,) = scanner.notices
        assert says in notice
        assert "\n" not in notice
        assert said == [f"{notice}. Reading with {scanner.engine} instead."]
        with Scanner(bundle) as plain:
            assert scanner.read(FILM).probabilities == plain.read(FILM).probabilities
    if "factor" in wrong:
        assert module.session.closed
    # The same engine, asked for by name, is an error, not a substitute.
    error = SelfTestError if "factor" in wrong else RuntimeMissingError
    with pytest.raises(error, match="nothing may be read") as raised:
        Scanner(with_engines(bundle, "planted", "onnxruntime"), runtime="planted")
    assert says in str(raised.value)


def test_nothing_is_read_when_no_engine_is_left(bundle: Bundle, plant: Plant) -> None:
    plant(factor=1.3)
    with pytest.raises(SelfTestError, match="nothing may be read") as raised:
        Scanner(with_engines(bundle, "unheard-of", "planted"))
    assert "'unheard-of' is no engine of this cxredge" in str(raised.value)
    assert "logits differ" in str(raised.value)


@pytest.mark.parametrize("name", ["planted:GPU", "tensorrt", "tensorrt_rtx"])
def test_a_fault_that_comes_later_is_not_hidden_by_an_earlier_pass(
    bundle: Bundle, plant: Plant, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A pass is remembered for one version of an engine on one processor, and an accelerator is tried every time."""
    monkeypatch.setitem(MODULES, name.partition(":")[0], "planted_engine")
    plant()
    both = with_engines(bundle, name, "onnxruntime")
    assert open_engine(both).text == f"{name} 1"
    plant(factor=1.3)
    assert open_engine(both).name == "onnxruntime"


@pytest.mark.parametrize("asked", ["onnxruntime:GPU", "openvino:TPU", "abacus"])
def test_a_device_that_an_engine_does_not_have_is_not_taken_for_another(bundle: Bundle, asked: str) -> None:
    with pytest.raises(RuntimeMissingError, match=asked.split(":")[0]):
        open_engine(bundle, asked=asked)


def test_threads_are_the_profiles_unless_told(bundle: Bundle) -> None:
    assert open_engine(bundle).threads == 1
    assert open_engine(bundle, threads=2).threads == 2


def test_scan_says_which_engine_it_did_without(cli: Cli, tmp_path: Path, bundle: Bundle) -> None:
    absent = next(name for name in ("tensorrt", "tensorrt_rtx") if runtime(name).available() is not True)
    copy = Path(shutil.copytree(bundle.folder, tmp_path / "copy"))
    rewrite(copy, lambda said: said.update(runtimes=[absent, "onnxruntime"]))
    run = cli("scan", FILM, "--model", copy, "--output", "out", "--threads", "2")
    assert run.returncode == 0, run.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    reason = runtime(absent).available()
    assert isinstance(reason, str)
    assert summary["runtime"]["notice"] == reason
    assert (summary["runtime"]["name"], summary["runtime"]["threads"]) == ("onnxruntime", "2")
    assert f"{reason}. Reading with onnxruntime" in run.stderr
    assert f"not used: {reason[:40]}" in run.stdout
    assert "Not used: TensorRT" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    asked = cli("scan", FILM, "--model", copy, "--output", "other", "--runtime", absent)
    assert asked.returncode == 2
    assert reason in asked.stderr
    assert len(asked.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "other" / "results.csv").exists()


def test_a_film_is_ok_with_the_engine_asked_for(bundle: Bundle) -> None:
    with Scanner(bundle, runtime="onnxruntime", threads=2) as scanner:
        assert scanner.read(FILM).status is Status.OK
