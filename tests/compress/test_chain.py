"""A recipe of steps: prune, finetune, quantize, from a small real run to a bundle, with a report of what each step cost."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from house import EXAMPLES, FILMS, Cli

from cxredge.benchmarks.macs import count_macs
from cxredge.bundle import Bundle, open_bundle
from cxredge.compress.candidate_graphs import Graph, Graphs
from cxredge.compress.chain import run_chain
from cxredge.compress.parent import open_parent
from cxredge.compress.prune import prune, weighed
from cxredge.compress.recipe import read_recipe
from cxredge.compress.steps import Take
from cxredge.devices import read_profile
from cxredge.errors import CxredgeError, RecipeError
from cxredge.runtimes import Artifact, runtime
from cxredge.train.macs import macs_of
from cxredge.train.network import FilmNetwork, load_network

BUNDLE = """
name = "small"
title = "Small"
version = "0"
source = "kermany"
findings = ["Paediatric_Pneumonia", "Paediatric_Bacterial"]
urgent = ["Paediatric_Pneumonia"]
gate_films = 16
gate_components = 4
reference_films = 8
intended_use = "Tests; not a medical device."
population = "Children of 1-5 years."
licence = "CC BY 4.0"
"""
STEPS = """
[[steps]]
do = "prune"
macs = 0.6
films = 16
sensitivity = 8

[[steps]]
do = "finetune"
teachers = ["parent"]
training = { epochs = 1, batch_size = 8, cam_weight = 1.0 }
unlabelled = ["unlabelled.csv"]

[quantization_aware]
epochs = 1
batch_size = 8
calibration_films = 8

[sources]
kermany = "Twenty-four films."
"""
DATA = ("--data", FILMS / "chestxray14", "--data", FILMS / "chest_xray")


def test_a_chain_prunes_learns_on_and_quantizes_and_says_what_each_step_cost(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "train.toml").write_text(
        'weights = "none"\nsize = 64\nvalidation_share = 0.35\nepochs = 1\nbatch_size = 8\n'
    )
    (tmp_path / "chain.toml").write_text(BUNDLE + STEPS)
    # Films that no table labels, for the teacher to tell of.
    samples = sorted(EXAMPLES.glob("*.jp*g"))
    (tmp_path / "unlabelled.csv").write_text("file\n" + "".join(f"{file}\n" for file in samples))
    assert cli("train", *DATA, "--recipe", "train.toml", "-o", "run").returncode == 0
    # In another order than at training: so the findings come too.
    words = ("compress", "run", *DATA[2:], *DATA[:2], "--recipe", "chain.toml", "-o", "small")
    made = cli(*words)
    assert made.returncode == 0, made.stderr
    bundle = open_bundle(tmp_path / "small")
    _carries_parent_and_pruned_network(bundle)

    said = json.loads((tmp_path / "small-report" / "compression.json").read_text())
    rows = said["rows"]
    assert [(each["step"], each["engine"]) for each in rows] == [
        ("full precision", "onnxruntime"), ("full precision", "openvino"), ("prune", "onnxruntime"), ("finetune", "onnxruntime"),
        ("INT8, rounded only", "onnxruntime"), ("INT8", "onnxruntime"), ("INT8", "openvino"),
    ]  # fmt: skip
    whole, pruned = rows[0], rows[2]
    assert pruned["macs"] <= 0.6 * whole["macs"]
    # As `cxredge benchmark` counts them, the gate's product besides.
    for row, graph in ((whole, bundle.full_model), (pruned, bundle.float_model)):
        assert row["macs"] == pytest.approx(count_macs(graph, 64), rel=1e-3)
    assert pruned["parameters"] < whole["parameters"]
    assert pruned["megabytes"] < whole["megabytes"]
    assert rows[5]["fused"] == {
        "quantized": 51, "convolutions": 53, "in_float": ["trunk/features.0/features.0.0", "head"],
    }  # fmt: skip
    assert rows[0]["fused"]["quantized"] == 0
    # The shipped graph is the one in the table, and the parent is judged as the bundle carries it, to half-precision weights.
    accuracy = bundle.manifest.accuracy
    assert rows[5]["auroc"]["value"] == pytest.approx(accuracy.compressed.value)
    assert rows[5]["drift"]["value"] == pytest.approx(accuracy.drift.value, abs=1e-6)
    assert rows[5]["flipped"] == pytest.approx(accuracy.flipped)
    between = {each["between"]: each for each in said["parity"]}
    assert set(between) == {"ONNX Runtime and OpenVINO", "torch, rounding simulated, and ONNX Runtime"}
    assert all(each["mean_probability"] < 0.02 for each in between.values())
    assert len(said["furthest_apart"]) == 8
    (scanned,) = said["sensitivity"]
    assert scanned["step"] == "prune"
    assert {probe["group"] for probe in scanned["probes"]} >= {"features.18.0", "features.1.conv.0.0"}
    assert all(0 < probe["macs"] < 0.6 and probe["moved"] >= 0 for probe in scanned["probes"])
    (learned_on,) = (tmp_path / "runs" / "cache" / "steps").glob("2-finetune-*")
    assert json.loads((learned_on / "run.json").read_text())["sources"]["unlabelled-unlabelled"] == {
        "train": len(samples), "validation": 0,
    }  # fmt: skip
    page = (tmp_path / "small-report" / "compression.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 6
    assert "What each group of channels costs" in page
    assert "data:image/jpeg;base64," in page

    _wrote_every_form(said["graphs"], tmp_path / "small-report" / "graphs", bundle)

    # Again: every step is found done, the rounding alone is trained anew.
    (tmp_path / "small-report" / "graphs" / "mine.txt").write_text("not cxredge's")
    again = cli(*words)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("done before in") == 2
    assert open_bundle(tmp_path / "small").sha256 == bundle.sha256
    assert (tmp_path / "small-report" / "graphs" / "mine.txt").read_text() == "not cxredge's"
    # A device that computes in 16-bit floats gets the pruned network, not its parent.
    profile = read_profile("jetson")
    engine = next(each for each in profile.engines if each.name == "tensorrt")
    with np.load(bundle.reference) as stored:
        half = Graphs(bundle, stored["images"], tmp_path / "cache").make(engine, "fp16", profile)
    assert isinstance(half, Graph)
    assert half.onnx.stat().st_size < 0.8 * (bundle.folder / "model.fp32.onnx").stat().st_size
    _comes_out_of_the_bundle_again(bundle, tmp_path / "cache")


def _wrote_every_form(graphs: list[dict[str, Any]], folder: Path, bundle: Bundle) -> None:
    """Each for its engine, and of each how many convolutions it computes in 8 bits: all but the first ones and the head."""
    assert [(each["file"], each["engine"], each["quantized"], each["convolutions"]) for each in graphs] == [
        ("model.fp32.onnx", "onnxruntime", 0, 53),
        ("model.int8.onnx", "onnxruntime", 51, 53),
        ("model.int8.onnx", "openvino", 51, 53),
        ("openvino/model.xml", "openvino", 51, 53),
        ("model.int8.tensorrt.onnx", "tensorrt", 49, 53),
    ]
    assert (folder / "model.int8.onnx").read_bytes() == bundle.model.read_bytes()
    with np.load(bundle.reference) as stored:
        for each, said in zip(graphs, ("float", "logits", "logits", "logits", "logits"), strict=True):
            engine = "openvino" if each["engine"] == "openvino" else "onnxruntime"
            logits = runtime(engine).load(Artifact(engine, folder / each["file"]), 1).run(stored["images"]).logits
            assert np.abs(logits - stored[said]).max() < 0.1, each


def _comes_out_of_the_bundle_again(bundle: Bundle, cache: Path) -> None:
    """The pruned network, as another recipe's first step takes it."""
    data = [FILMS / "chestxray14", FILMS / "chest_xray"]
    parent = open_parent(bundle.folder, data, cache)
    _, taken = run_chain(bundle.folder, parent, data, [Take(do="take")], cache=cache, say=print)
    with np.load(bundle.reference) as stored, torch.no_grad():
        said = taken.network(torch.from_numpy(stored["images"])).numpy()
        columns = [parent.films.findings.index(name) for name in bundle.manifest.names]
        assert np.abs(said[:, columns] - stored["float"]).max() < 0.02
    assert macs_of(taken.network, parent.preprocessing.size) <= 0.6 * macs_of(parent.network, parent.preprocessing.size)


def _carries_parent_and_pruned_network(bundle: Bundle) -> None:
    assert bundle.manifest.names == ("Paediatric_Pneumonia", "Paediatric_Bacterial")
    assert bundle.full_model is not None
    assert bundle.float_model == bundle.folder / "model.float.onnx"
    sizes = [file.stat().st_size for file in (bundle.full_model, bundle.float_model, bundle.model)]
    assert sizes[1] < 0.8 * sizes[0]
    assert [step["do"] for step in bundle.manifest.training.recipe["steps"]] == ["prune", "finetune"]  # type: ignore[attr-defined]
    with np.load(bundle.reference) as stored:
        assert {"images", "logits", "full", "float"} <= set(stored.files)
    onnx.checker.check_model(str(bundle.float_model), full_check=True)


@pytest.fixture(scope="module")
def network() -> FilmNetwork:
    torch.manual_seed(0)
    return FilmNetwork("mobilenet_v2", 3).eval()


@pytest.mark.parametrize(("architecture", "importance"), [("mobilenet_v2", "taylor"), ("densenet121", "group-norm")])
def test_channels_leave_until_the_multiplications_asked_for_are_left(architecture: str, importance: str) -> None:
    torch.manual_seed(0)
    network = FilmNetwork(architecture, 3).eval()
    rng = np.random.default_rng(0)
    films = rng.integers(0, 256, (8, 1, 64, 64), dtype=np.uint8)
    labels = rng.integers(0, 2, (8, 3)).astype(np.float32)
    labels[:4, 1] = np.nan
    cut = prune(network, weighed(network, films, labels, importance), 64, macs=0.7)  # type: ignore[arg-type]
    whole, left = macs_of(network, 64), macs_of(cut, 64)
    assert 0.6 * whole < left <= 0.7 * whole
    before, after = (sum(each.numel() for each in net.parameters()) for net in (network, cut))
    assert after < before
    with torch.no_grad():
        assert cut(torch.from_numpy(films)).shape == (8, 3)
    widths = [layer.out_channels for layer in cut.features.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert all(width % 8 == 0 for width in widths)


def test_a_pruned_network_is_read_back_as_it_was(network: FilmNetwork, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    films = np.random.default_rng(0).integers(0, 256, (8, 1, 64, 64), dtype=np.uint8)
    groups = weighed(network, films, np.zeros((8, 3), np.float32), "group-norm")
    cut = prune(network, groups, 64, macs=0.5)
    save_file({key: value.contiguous() for key, value in cut.state_dict().items()}, tmp_path / "model.safetensors")
    (tmp_path / "run.json").write_text(json.dumps({"architecture": "mobilenet_v2", "findings": ["a", "b", "c"]}))
    read, _ = load_network(tmp_path)
    with torch.no_grad():
        assert torch.equal(read(torch.from_numpy(films)), cut(torch.from_numpy(films)))


def test_a_latency_is_what_the_engine_takes(network: FilmNetwork) -> None:
    films = np.zeros((8, 1, 64, 64), np.uint8)
    groups = weighed(network, films, np.zeros((8, 3), np.float32), "group-norm")
    cut = prune(network, groups, 64, latency=0.7)
    assert macs_of(cut, 64) < 0.95 * macs_of(network, 64)
    with pytest.raises(CxredgeError, match="would lose more than"):
        prune(network, groups, 64, macs=0.001)


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ('do = "prune"\nmacs = 0.5\nlatency = 0.5', "one of the two"),
        ('do = "prune"', "one of the two"),
        ('do = "finetune"\ntraining = { size = 64 }', "size is the parent's to say"),
        ('do = "finetune"\ntraining = { weights = "none" }', "leave out weights"),
        ('do = "distil"\ntraining = { learning_rate = -1 }', "learning_rate"),
        ('do = "melt"', "steps.0"),
        ('do = "prune"\nmacs = 0.5\n[[steps]]\ndo = "take"', "only the first step"),
    ],
)
def test_a_step_that_cannot_be_is_refused_by_name(tmp_path: Path, step: str, says: str) -> None:
    recipe = tmp_path / "bad.toml"
    recipe.write_text(f'{BUNDLE}\n[[steps]]\n{step}\n\n[sources]\nkermany = "Films."\n')
    with pytest.raises(RecipeError, match=says):
        read_recipe(str(recipe))
