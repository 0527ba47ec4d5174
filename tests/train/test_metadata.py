"""Age, sex and view as an optional input: learned, exported with a default, and never needed."""

import json
import subprocess
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from house import FILMS, Cli
from safetensors.torch import load_file

from cxredge.compress.export import Contract, Trunk, branch_for, export, fold_calibration, head_for
from cxredge.compress.feature_distance import FeatureDistance, fit_feature_distance
from cxredge.errors import CxredgeError, DataError
from cxredge.runtimes import Artifact, runtime
from cxredge.train.branch import MetadataBranch, forget
from cxredge.train.evaluate import evaluate
from cxredge.train.facts import Facts, read_facts
from cxredge.train.fit import fit
from cxredge.train.metadata import COLUMNS, encode
from cxredge.train.network import FilmNetwork, load_network
from cxredge.train.recipe import Recipe, written
from cxredge.train.sources import read_source
from cxredge.train.subject import open_subject

DATA = [FILMS / "chestxray14", FILMS / "chest_xray"]
RECIPE = Recipe(weights="none", size=64, validation_share=0.3, epochs=2, batch_size=8, ema_decay=0.5, metadata=True)
ALL_UNKNOWN = torch.zeros(1, len(COLUMNS))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("films")


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs with the branch."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    fit(RECIPE, DATA, folder, cache=cache)
    return folder


@pytest.fixture(scope="module")
def network(run: Path) -> FilmNetwork:
    return load_network(run)[0]


@pytest.fixture(scope="module")
def films() -> torch.Tensor:
    return torch.randint(0, 256, (3, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def told() -> torch.Tensor:
    facts = Facts(np.array(["F", "M", ""]), np.array([31.0, 70.0, np.nan]), np.array(["PA", "", "AP"]))
    return torch.from_numpy(encode(facts))


@pytest.fixture(scope="module")
def graph(network: FilmNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph of two of the findings, calibrated."""
    path = tmp_path_factory.mktemp("graphs") / "model.onnx"
    export(Contract(Trunk(network), head_for(network, [1, 3]), gate(), branch_for(network, [1, 3])), 64, path)
    return path


def gate() -> FeatureDistance:
    return fit_feature_distance(np.random.default_rng(0).normal(size=(64, 96)).astype(np.float32), 4)


def test_facts_are_encoded_with_a_state_for_unknown(told: torch.Tensor) -> None:
    assert told.tolist() == [
        [1, pytest.approx(0.31), 1, 0, 1, 0],
        [1, pytest.approx(0.7), 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    nothing = Facts(np.array([""]), np.array([np.nan]), np.array(["LATERAL"]))
    with pytest.raises(DataError, match="neither age, sex nor view"):
        encode(nothing)


def test_training_withholds_each_fact_and_sometimes_all() -> None:
    known = torch.tensor([[1, 0.5, 1, 0, 0, 1]]).repeat(4000, 1)
    left = forget(known, 0.3, torch.Generator().manual_seed(0))
    age, sex, view = (left[:, i : i + 2].any(1) for i in (0, 2, 4))
    for one in (age, sex, view):
        assert float(one.float().mean()) == pytest.approx(0.7 * 0.7, abs=0.03)
    assert float((~(age | sex | view)).float().mean()) == pytest.approx(0.3 + 0.7 * 0.3**3, abs=0.03)
    # What is left is left whole.
    assert torch.equal(left[age][:, :2], known[age][:, :2])


def test_the_gradient_reaches_both_layers_of_the_branch(network: FilmNetwork) -> None:
    branch = network.metadata
    assert branch is not None
    assert float(branch.offset.weight.detach().abs().max()) > 1e-3
    fresh = MetadataBranch(17)
    assert not fresh.offset.weight.any()
    with torch.no_grad():
        fresh.offset.weight.normal_()
    fresh(torch.ones(2, len(COLUMNS))).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in fresh.parameters())


def test_without_metadata_the_logits_are_those_of_unknown_metadata_and_the_mean_of_the_maps(
    network: FilmNetwork, films: torch.Tensor, told: torch.Tensor
) -> None:
    with torch.no_grad():
        alone, unknown, given = network(films), network(films, ALL_UNKNOWN), network(films, told)
        maps = network.head(network.maps(films)).mean((2, 3))
    assert torch.equal(alone, unknown)
    assert float((alone - maps).abs().max()) < 1e-5
    assert not torch.allclose(alone, given)
    with pytest.raises(ValueError, match="without metadata"):
        FilmNetwork("mobilenet_v2", 2)(films, told)


def test_a_recipe_without_metadata_trains_what_it_always_did(cache: Path, run: Path, tmp_path: Path) -> None:
    plain = RECIPE.model_copy(update={"metadata": False, "epochs": 1})
    fit(plain, DATA, tmp_path / "plain", cache=cache)
    assert not any(key.startswith("metadata.") for key in load_file(tmp_path / "plain" / "model.safetensors"))
    assert json.loads((run / "run.json").read_text())["metadata"] is True
    # And one that goes on from a run with a branch loses it.
    fit(plain.model_copy(update={"weights": str(run)}), DATA, tmp_path / "on", cache=cache)
    assert load_network(tmp_path / "on")[0].metadata is None


def test_the_log_says_what_metadata_brings(run: Path) -> None:
    head, *rows = (run / "metrics.csv").read_text().splitlines()
    assert head.endswith(",mean_with_metadata")
    assert len(rows) == 2
    assert all(0 <= float(row.rsplit(",", 1)[1]) <= 1 for row in rows)


def test_several_ways_of_going_through_a_batch_train_the_branch(cache: Path, tmp_path: Path) -> None:
    changes = {"accumulate": 2, "mixup": 0.4, "epochs": 2, "head_epochs": 1}
    fit(RECIPE.model_copy(update=changes), DATA, tmp_path / "run", cache=cache)
    branch = load_network(tmp_path / "run")[0].metadata
    assert branch is not None
    assert float(branch.offset.weight.detach().abs().max()) > 1e-3


def test_onnx_runtime_takes_metadata_and_does_without(
    network: FilmNetwork, graph: Path, films: torch.Tensor, told: torch.Tensor
) -> None:
    with torch.no_grad():
        alone, given = network(films)[:, [1, 3]].numpy(), network(films, told)[:, [1, 3]].numpy()
    session = runtime("onnxruntime").load(Artifact("onnxruntime", graph), 1)
    assert session.takes_metadata
    without, with_it = session.run(films.numpy()), session.run(films.numpy(), told.numpy())
    np.testing.assert_allclose(without.logits, alone, atol=1e-4)
    np.testing.assert_allclose(with_it.logits, given, atol=1e-4)
    np.testing.assert_array_equal(without.cam, with_it.cam)
    np.testing.assert_allclose(session.run(films.numpy(), told[:1].numpy()).logits[0], given[0], atol=1e-4)
    plain = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    assert [one.name for one in plain.get_inputs()] == ["image"]


def test_openvino_reads_the_film_alone(graph: Path, films: torch.Tensor) -> None:
    expected = runtime("onnxruntime").load(Artifact("onnxruntime", graph), 1).run(films.numpy())
    session = runtime("openvino").load(Artifact("openvino", graph), 1)
    assert not hasattr(session, "takes_metadata")
    np.testing.assert_allclose(session.run(films.numpy()).logits, expected.logits, atol=1e-3)


def test_tensorrts_parser_takes_the_graph_for_one_input(graph: Path) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    log = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(log).create_network(0)
    assert trt.OnnxParser(network, log).parse(graph.read_bytes())
    assert [network.get_input(i).name for i in range(network.num_inputs)] == ["image"]


def test_calibration_moves_offsets_with_the_logits(
    graph: Path, films: torch.Tensor, told: torch.Tensor, tmp_path: Path
) -> None:
    calibrated = tmp_path / "calibrated.onnx"
    calibrated.write_bytes(graph.read_bytes())
    before = runtime("onnxruntime").load(Artifact("onnxruntime", graph), 1).run(films.numpy(), told.numpy()).logits
    scale, bias = np.array([0.5, 2.0]), np.array([-1.0, 0.25])
    fold_calibration(calibrated, scale, bias)
    after = runtime("onnxruntime").load(Artifact("onnxruntime", calibrated), 1).run(films.numpy(), told.numpy()).logits
    np.testing.assert_allclose(after, before * scale + bias, atol=1e-4)


def test_a_run_is_evaluated_with_metadata_and_without(run: Path, bundle) -> None:
    subject = open_subject(run)
    without, _ = evaluate(subject, DATA[:1], runtime="torch", samples=20, examples=0)
    with_it, _ = evaluate(subject, DATA[:1], runtime="torch", samples=20, examples=0, metadata=True)
    assert without.model["metadata"] == "none"
    assert with_it.model["metadata"] == "age, sex and view, from the tables"
    assert without.findings != with_it.findings
    with pytest.raises(CxredgeError, match="leave --metadata out"):
        evaluate(open_subject(bundle.folder), DATA[:1], samples=20, examples=0, metadata=True)
    assert encode(read_facts(DATA, read_source(FILMS / "chestxray14"))).any(0).all()


def test_a_killed_run_with_metadata_ends_with_the_same_weights(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(
        written(RECIPE.model_copy(update={"checkpoint_minutes": 1e-6, "mixup": 0.3, "batch_size": 4}), "test")
    )
    words = ["train", *(word for folder in DATA for word in ("--data", folder)), "--recipe", "small.toml"]
    assert cli(*words, "-o", "whole").returncode == 0
    killed = subprocess.Popen(
        cli.command(*words, "-o", "killed"), cwd=tmp_path, env=cli.environment, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 200
    while not (tmp_path / "killed" / "last.ckpt").exists() and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    again = cli(*words, "-o", "killed")
    assert again.returncode == 0, again.stderr
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert "with age, sex and view" in again.stdout
