"""A run that takes age, sex and view becomes a bundle whose graphs take them too, and need none of them."""

from pathlib import Path

import numpy as np
import torch
from house import FILMS, Cli

from cxredge.bundle import open_bundle
from cxredge.compress.half import to_half
from cxredge.compress.symmetric import quantize_symmetric
from cxredge.runtimes import Artifact, runtime
from cxredge.train.bundled import network_of
from cxredge.train.sources import read_source

RECIPE = """
name = "small"
title = "Small"
version = "0"
source = "films"
urgent = ["Pneumonia"]
calibration_films = 12
gate_films = 16
gate_components = 4
reference_films = 8
intended_use = "Tests; not a medical device."
population = "Children of 1-5 years."
licence = "CC BY 4.0"
[sources]
films = "Twenty-four films."
[quantization_aware]
epochs = 1
batch_size = 8
calibration_films = 8
"""
# A woman of fifty, PA.
TOLD = np.array([[1, 0.5, 1, 0, 1, 0]], np.float32)


def test_a_run_with_metadata_becomes_a_bundle_that_takes_it_and_does_without(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "train.toml").write_text(
        'weights = "none"\nsize = 64\nvalidation_share = 0.35\nepochs = 1\nbatch_size = 8\nmetadata = true\n'
    )
    (tmp_path / "aware.toml").write_text(RECIPE)
    _with_facts(tmp_path / "films.csv")
    data = ["--data", "films.csv"]
    assert cli("train", *data, "--recipe", "train.toml", "-o", "run").returncode == 0
    made = cli("compress", "run", *data, "--recipe", "aware.toml", "-o", "aware")
    assert made.returncode == 0, made.stderr
    bundle = open_bundle(tmp_path / "aware")
    assert bundle.manifest.training.recipe["metadata"] is True
    assert bundle.full_model is not None
    with np.load(bundle.reference) as stored:
        images, expected = stored["images"], {bundle.model: stored["logits"], bundle.full_model: stored["full"]}
    for graph, logits in expected.items():
        session = runtime("onnxruntime").load(Artifact("onnxruntime", graph), 1)
        assert session.takes_metadata
        alone, told = session.run(images), session.run(images, TOLD)
        np.testing.assert_allclose(alone.logits, logits, atol=1e-5)
        np.testing.assert_array_equal(alone.cam, told.cam)
        moved = told.logits - alone.logits
        # The same for every film, and not nothing.
        assert np.ptp(moved, axis=0).max() < 1e-5
        assert np.abs(moved).max() > 1e-4
        if graph == bundle.full_model:
            # Trained on from, or compressed again, a bundle keeps it.
            branch = network_of(bundle, bundle.manifest.names, images).metadata
            assert branch is not None
            np.testing.assert_allclose(branch(torch.from_numpy(TOLD)).detach().numpy()[0], moved[0], atol=1e-4)
        there = runtime("openvino").load(Artifact("openvino", graph), 1).run(images)
        np.testing.assert_allclose(there.logits, alone.logits, atol=0.2)
    scanned = cli("scan", FILMS / "chest_xray" / "test", "--model", "aware", "--output", "out")
    assert scanned.returncode == 0, scanned.stderr
    words = ("evaluate", "aware", *data, "--split", "all", "--examples", "0", "-o", "told", "--metadata")
    assert cli(*words).returncode == 0
    refused = cli(*words, "--runtime", "openvino")
    assert refused.returncode == 2
    assert "leave --metadata out" in refused.stderr
    # What a build makes of it for other engines.
    full = open_bundle(tmp_path / "aware").full_model
    assert full is not None
    folded = runtime("onnxruntime").compile(full, None, tmp_path / "folded").path  # type: ignore[arg-type]
    to_half(folded, tmp_path / "half.onnx")
    quantize_symmetric(folded, tmp_path / "signed.onnx", images[:4], weight_bits=8, quantize_bias=False)
    for graph in ("half.onnx", "signed.onnx"):
        session = runtime("onnxruntime").load(Artifact("onnxruntime", tmp_path / graph), 1)
        assert session.takes_metadata
        np.testing.assert_allclose(session.run(images).logits, expected[full], atol=0.3)


def _with_facts(table: Path) -> None:
    """The children's films as a table that tells some of their ages and sexes."""
    films = read_source(FILMS / "chest_xray")
    lines = ["file,patient,split,age,sex,view,Pneumonia"]
    for row, (file, patient, split, label) in enumerate(
        zip(films.files, films.patients, films.splits, films.labels[:, 0], strict=True)
    ):
        lines.append(f"{file},{patient},{split},{row % 7},{'FM'[row % 2]},AP,{label:.0f}")
    table.write_text("\n".join(lines))
