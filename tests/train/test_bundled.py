"""Training on from what a bundle holds."""

from pathlib import Path

import numpy as np
import torch
from house import FILMS, Cli

from cxredge.bundle import Bundle, open_bundle
from cxredge.imaging import Preprocessing, read_film
from cxredge.runtimes import Artifact, runtime
from cxredge.train.bundled import network_of


def test_the_network_of_a_bundle_says_what_the_bundle_says(bundle: Bundle) -> None:
    files = sorted((FILMS / "chestxray14" / "images").glob("*.jpg"))
    planes = np.stack([read_film(file, Preprocessing(size=224)).image for file in files])
    findings = ("Hernia", "Something_else", *bundle.manifest.names[:5])
    network = network_of(bundle, findings, planes).eval()
    graph = bundle.full_model or bundle.model
    session = runtime("onnxruntime").load(Artifact("onnxruntime", graph), 1)
    told = session.run(planes[:8]).logits
    # The shipped graph reads a film and its mirror image; the network is what reads it.
    assert bundle.manifest.training.recipe["mirrored"] is True
    with torch.no_grad():
        films = torch.from_numpy(planes[:8])
        said = ((network(films) + network(films.flip(3))) / 2).numpy()
    columns = [bundle.manifest.names.index(name) for name in findings if name != "Something_else"]
    assert np.abs(np.delete(said, 1, axis=1) - told[:, columns]).max() < (0.02 if bundle.full_model else 0.5)
    assert (said[:, 1] == 0).all()
    # Batch norms hold what these very films give, so in training mode the network says nearly the same.
    with torch.no_grad():
        training = network.train()(torch.from_numpy(planes)).numpy()
        resting = network.eval()(torch.from_numpy(planes)).numpy()
    own = [0, *range(2, len(findings))]
    assert np.corrcoef(training[:, own].ravel(), resting[:, own].ravel())[0, 1] > 0.9


def test_a_pruned_network_comes_back_out_of_its_bundle() -> None:
    bundle = open_bundle("chestxray14-small")
    with np.load(bundle.reference) as stored:
        planes, told = stored["images"], stored["float"]
    network = network_of(bundle, bundle.manifest.names, planes, compressed=True).eval()
    with torch.no_grad():
        said = network(torch.from_numpy(planes)).numpy()
    # The graph stores weights in half precision.
    assert np.abs(said - told).max() < 0.01
    assert told.std(axis=0).min() > 0.1


def test_a_bundle_validated_on_other_films_is_no_place_to_start(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text('weights = "chestxray14"\nsize = 224\nepochs = 1\n')
    run = cli("train", "--data", FILMS / "chestxray14", "--recipe", "small.toml", "-o", "run")
    assert run.returncode == 2
    assert "validated on other films" in run.stderr
    (tmp_path / "small.toml").write_text('weights = "chestxray14"\nsize = 96\nepochs = 1\n')
    run = cli("train", "--data", FILMS / "chestxray14", "--recipe", "small.toml", "-o", "other")
    assert run.returncode == 2
    assert "takes films of 224 pixels" in run.stderr
