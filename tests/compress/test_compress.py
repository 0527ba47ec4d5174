"""From a small real run to a bundle that scans."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from house import FILMS, Cli
from numpy.typing import NDArray
from onnx import numpy_helper

from cxredge.bundle import Bundle, open_bundle
from cxredge.compress.calibrate import platt
from cxredge.compress.quantize import quantized_convolutions
from cxredge.compress.recipe import read_recipe
from cxredge.compress.run import compress
from cxredge.errors import CxredgeError
from cxredge.imaging import Preprocessing, read_film
from cxredge.train.tables import read_films

RECIPE = """
name = "small"
title = "Small"
version = "0"
source = "kermany"
urgent = ["Paediatric_Pneumonia"]
calibration_films = 12
gate_films = 16
gate_components = 4
reference_films = 8
intended_use = "Tests; not a medical device."
population = "Children of 1-5 years."
licence = "CC BY 4.0"
export = []
[sources]
kermany = "Twenty-four films."
"""
DATA = (FILMS / "chestxray14", FILMS / "chest_xray")


def test_a_run_becomes_a_bundle_that_scans(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "train.toml").write_text(
        'weights = "none"\nsize = 64\nvalidation_share = 0.35\nepochs = 2\nbatch_size = 8\n'
    )
    (tmp_path / "small.toml").write_text(RECIPE)
    data = [word for folder in DATA for word in ("--data", folder)]
    trained = cli("train", *data, "--recipe", "train.toml", "-o", "run")
    assert trained.returncode == 0, trained.stderr
    (tmp_path / "other.toml").write_text(RECIPE.replace('source = "kermany"', 'source = "mine"'))
    other = cli("compress", "run", *data, "--recipe", "other.toml", "-o", "other")
    assert other.returncode == 2
    assert "findings of mine, and the films given are of chestxray14, kermany" in other.stderr
    # A build from a run compresses it first.
    built = cli("build", "--target", "jetson-nano", "--model", "run", *data, "--recipe", "small.toml", "-o", "built")
    assert built.returncode == 0, built.stderr
    bundle = open_bundle(tmp_path / "run-bundle")
    manifest = bundle.manifest
    assert manifest.names == ("Paediatric_Pneumonia", "Paediatric_Bacterial", "Paediatric_Viral")
    assert manifest.accuracy.films == 12
    assert manifest.precision == "int8"
    assert quantized_convolutions(bundle.model) == (49, 53)
    assert bundle.full_model == tmp_path / "run-bundle" / "model.fp32.onnx"
    assert not any(tensor.external_data for tensor in onnx.load(bundle.model).graph.initializer)
    with np.load(bundle.reference) as stored:
        assert stored["images"].shape == (8, 1, 64, 64)
        assert np.abs(stored["logits"] - stored["full"]).max() < 1
    _check_evidence(bundle, cli)
    # Run and bundle mean the same validation films.
    names = [read_films(DATA, "validation", splits_of=each).files for each in (tmp_path / "run", bundle.folder)]
    assert names[0] == names[1]
    assert len(names[0]) == sum(split["validation"] for split in manifest.training.films.values())
    scanned = cli("scan", FILMS / "chest_xray" / "test", "--model", "run-bundle", "--output", "out")
    assert scanned.returncode == 0, scanned.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["films"] == 12
    assert summary["model"]["sha256"] == bundle.model_sha256
    for_device = open_bundle(tmp_path / "built")
    assert for_device.manifest.target == "jetson-nano"
    # The card travels with what it shows.
    assert for_device.manifest.pictures == manifest.pictures
    assert all(
        (for_device.folder / name).read_bytes() == (bundle.folder / name).read_bytes() for name in manifest.pictures
    )
    anew = subprocess.run(
        [sys.executable, "-m", "cxredge.compress.recard", "built", *data, "-o", "carded"],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=cli.environment,
    )  # fmt: skip
    assert anew.returncode == 0, anew.stderr
    # It was measured before, on the same films: the same bytes again, the build's part of the card too.
    assert (tmp_path / "carded" / "manifest.json").read_bytes() == (tmp_path / "built" / "manifest.json").read_bytes()
    (tmp_path / "aware.toml").write_text(
        "mirrored = true\n"
        + RECIPE
        + "[quantization_aware]\nepochs = 1\nbatch_size = 8\ncalibration_films = 8\nfloat_layers = 3\n"
        + "[accuracy_control]\nfilms = 8\nmost = 1\nslower = 9\n[speedup]\nonnxruntime = 0.01\n"
    )
    words = ("compress", "run", *data, "--recipe", "aware.toml", "-o", "aware")
    _kill_while_it_measures(cli, *words)
    assert len(list((tmp_path / "runs" / "cache").glob("aware-*"))) == 2
    aware = cli(*words)
    assert aware.returncode == 0, aware.stderr
    # Neither chosen nor trained again.
    assert "In floats by measurement" not in aware.stdout
    assert not list((tmp_path / "runs" / "cache").glob("aware-*"))
    trained_through = open_bundle(tmp_path / "aware")
    # The head and three of the first are in float, as the recipe has it, and what measurement picked.
    picked = trained_through.manifest.training.recipe["left_in_float"]
    assert isinstance(picked, list)
    assert quantized_convolutions(trained_through.model) == (49 - len(picked), 53)
    report = json.loads((tmp_path / "aware-report" / "compression.json").read_text())
    assert report["speedup"]["onnxruntime"] > 0.01
    control = report["accuracy_control"]
    assert len(control["trials"]) == 49
    assert [trial["layer"] for trial in control["trials"] if trial["kept"]] == picked
    assert control["after"] <= control["before"]
    assert set(picked) <= {f"{layer}/Conv" for layer in report["rows"][-1]["fused"]["in_float"]}
    assert "What stays in floats, by measurement" in (tmp_path / "aware-report" / "compression.html").read_text()
    assert trained_through.full_model is not None
    assert trained_through.manifest.training.recipe["quantization_aware"]["epochs"] == 1
    assert trained_through.manifest.training.recipe["mirrored"] is True
    (tmp_path / "on.toml").write_text(
        'weights = "aware"\nsize = 64\nvalidation_share = 0.35\nepochs = 1\nbatch_size = 8\nmirror = true\n'
    )
    trained_on = cli("train", *data, "--recipe", "on.toml", "--teacher", "aware", "--teacher", "run", "-o", "on")
    assert trained_on.returncode == 0, trained_on.stderr
    into_a_folder_of_films = cli("compress", "run", *data, "--recipe", "small.toml", "-o", tmp_path / "run")
    assert into_a_folder_of_films.returncode == 2
    assert "is not a bundle" in into_a_folder_of_films.stderr
    assert (tmp_path / "run" / "model.safetensors").exists()
    for report, says in (
        ("new", "lies in the bundle's own folder"),
        ("new/report", "lies in"),
        ("on.toml", "is a file"),
    ):
        nowhere = cli("compress", "run", *data, "--recipe", "small.toml", "-o", "new", "--report", report)
        assert nowhere.returncode == 2
        assert says in nowhere.stderr
    _refuses_before_it_trains(tmp_path)
    # The bundle carries its full-precision network, so it is enough to quantize from again.
    again = cli("compress", "run-bundle", *data, "--recipe", "small.toml", "-o", "again")
    assert again.returncode == 0, again.stderr
    second = open_bundle(tmp_path / "again")
    assert second.manifest.training.recipe == manifest.training.recipe
    assert second.manifest.training.films == manifest.training.films
    assert bundle.full_model is not None
    assert second.full_model is not None
    # The last kernel is the head's, into which each calibration is folded.
    once, twice = _kernels(bundle.full_model)[:-1], _kernels(second.full_model)[:-1]
    assert len(once) == 52
    assert all(np.allclose(a, b, rtol=2e-3, atol=1e-6) for a, b in zip(once, twice, strict=True))


def _kill_while_it_measures(cli: Cli, *words: str | Path) -> None:
    """As a power cut would, when everything is trained and nothing is written."""
    with subprocess.Popen(
        cli.command(*words), stdout=subprocess.PIPE, text=True, cwd=cli.folder,
        env=cli.environment | {"PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert any(line.startswith("Measuring on validation") for line in process.stdout)
        process.kill()


def _refuses_before_it_trains(folder: Path) -> None:
    """What cannot be compressed is refused at once, and nothing is written."""
    elsewhere = RECIPE.replace('"kermany"', '"chestxray14"').replace('["Paediatric_Pneumonia"]', "[]")
    # Broken on every processor: not as fast as promised, and next to nothing computes in 8 bits.
    slow = RECIPE.replace("export = []", "export = []\nfloat_layers = 51") + "[speedup]\nonnxruntime = 1000\n"
    cases = [
        ("run", DATA[1:], RECIPE, "was trained on findings"),
        (
            "run",
            DATA,
            RECIPE.replace('source = "kermany"', 'source = "padchest"'),
            "for the findings of padchest, and the films given are of",
        ),
        ("run", DATA, elsewhere, "films must hold some with and some without it; .* `findings`"),
        ("run-bundle", DATA, elsewhere, "run-bundle knows nothing of Atelectasis"),
        ("run", DATA, RECIPE.replace("Paed", "Pead"), "Peadiatric_Pneumonia urgent, which is none of the findings"),
        ("run", DATA, RECIPE.replace("nents = 4", "nents = 64"), "films for the 64 components of the gate"),
        ("run", DATA, slow, "times as fast as .* here, the recipe promises 1000"),
    ]
    for which, data, recipe, says in cases:
        (folder / "refused.toml").write_text(recipe)
        with pytest.raises(CxredgeError, match=says):
            compress(
                folder / which, list(data), read_recipe(str(folder / "refused.toml")), folder / "none",
                report=folder / "none-report", cache=folder / "runs" / "cache",
            )  # fmt: skip
        assert not (folder / "none").exists()


def _check_evidence(bundle: Bundle, cli: Cli) -> None:
    """Calibration and failures of the manifest against the films themselves, scored here."""
    manifest = bundle.manifest
    films = read_films([FILMS / "chest_xray"], "test")
    session = onnxruntime.InferenceSession(str(bundle.model))
    images = [read_film(file, Preprocessing(size=64)).image[None] for file in films.files]
    logits, _, far = (
        np.concatenate(o) for o in zip(*(session.run(None, {"image": image}) for image in images), strict=True)
    )
    told, truth = 1 / (1 + np.exp(-logits.astype(float))), films.labels
    assert manifest.calibration is not None
    for i, name in enumerate(manifest.names):
        order = np.argsort(told[:, i])
        bins = np.array_split(order, 10)
        by_hand = sum(abs((told[b, i] - truth[b, i]).sum()) for b in bins) / len(films)
        one = manifest.calibration.findings[name]
        assert one.error.value == pytest.approx(by_hand, abs=1e-4)
        assert one.predicted == pytest.approx(told[:, i].mean(), abs=1e-4)
        assert one.share.value == pytest.approx(truth[:, i].mean())
    found = manifest.failures
    assert found is not None
    assert manifest.gate is not None
    # The recipe calls one finding urgent.
    assert found.looked_at == ("Paediatric_Pneumonia",)
    names = [file.name for file in films.files]
    threshold = manifest.findings[0].balanced.threshold
    let_through = far <= manifest.gate.threshold
    wrong = {
        "false alarm": let_through & (truth[:, 0] == 0) & (told[:, 0] >= threshold),
        "miss": let_through & (truth[:, 0] == 1) & (told[:, 0] < threshold),
    }
    assert [one.kind for one in found.shown] == [kind for kind, films_of in wrong.items() if films_of.any()]
    for one in found.shown:
        row = names.index(one.film)
        assert wrong[one.kind][row]
        others = told[wrong[one.kind], 0]
        assert one.probability == pytest.approx(others.max() if one.kind == "false alarm" else others.min(), abs=1e-4)
        assert set(one.labels) == {name for i, name in enumerate(manifest.names) if truth[row, i] == 1}
    # Kermany's films come without sex, age and view.
    assert manifest.subgroups is not None
    assert manifest.subgroups.groups == ()
    assert manifest.subgroups.unknown == {"sex": 12, "age": 12, "view": 12}
    assert set(manifest.pictures) <= set(manifest.files)
    shown = cli("models", "show", "run-bundle")
    assert shown.returncode == 0, shown.stderr
    assert "tells sex, age and view of none of its films" in shown.stdout
    assert f"| **mean of 3** | {manifest.calibration.mean.value:.3f} (" in shown.stdout
    assert all(one.film in shown.stdout for one in found.shown)
    assert re.search(r"full-precision network: 2 epochs; time [\w ]+ min; machine: cpu, \d+ thread", shown.stdout)
    parent, *_, shipped = manifest.steps
    assert shipped.name == "INT8"
    assert shipped.auroc.value == pytest.approx(manifest.accuracy.compressed.value, abs=1e-6)
    assert parent.drift is None
    assert shipped.drift is not None
    assert shipped.drift.value == pytest.approx(shipped.auroc.value - parent.auroc.value)
    assert shipped.megabytes == pytest.approx(bundle.model.stat().st_size / 1e6, abs=0.01)
    assert manifest.training.recipe["training_seconds"] > 0


def _kernels(path: Path) -> list[NDArray[np.float16]]:
    """Of every convolution in the order of execution, as stored."""
    model = onnx.load(path)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return [stored[f"{node.input[1]}.half"] for node in model.graph.node if node.op_type == "Conv"]


def test_calibration_matches_the_label_frequencies_and_keeps_the_order() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(3000, 2)) - [0.0, 2.0]
    labels = (rng.random((3000, 2)) < 1 / (1 + np.exp(-truth))).astype(float)
    labels[:100, 0] = np.nan
    overconfident = 3 * truth + 1
    scale, bias = platt(labels, overconfident)
    assert scale == pytest.approx([1 / 3, 1 / 3], rel=0.15)
    probabilities = 1 / (1 + np.exp(-(scale * overconfident + bias)))
    assert np.nanmean(labels, 0) == pytest.approx(probabilities[100:].mean(0), abs=0.02)
