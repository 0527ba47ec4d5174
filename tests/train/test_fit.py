"""Training on real films, small: the loop, its resumption, the network's contract."""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from house import FILMS, Cli
from safetensors.torch import load_file, save_file

from cxredge.errors import DataError, RecipeError
from cxredge.train.films import augment
from cxredge.train.network import FilmNetwork, load_network, load_weights
from cxredge.train.recipe import read_recipe
from cxredge.train.torchvision_guard import import_torchvision

RECIPE = """
architecture = "mobilenet_v2"
weights = "none"
size = 64
validation_share = 0.3
epochs = 3
batch_size = 8
learning_rate = 1e-3
"""


@pytest.fixture
def words(tmp_path: Path) -> list[str | Path]:
    (tmp_path / "small.toml").write_text(RECIPE)
    return ["train", "--data", FILMS / "chestxray14", "--data", FILMS / "chest_xray", "--recipe", "small.toml"]


def test_a_run_killed_in_mid_epoch_ends_with_the_same_weights(
    cli: Cli, words: list[str | Path], tmp_path: Path
) -> None:
    # Everything that draws from a generator, and a checkpoint at every step.
    drawing = 'mixup = 0.3\nsampling = "balanced"\nloss = "focal"\naccumulate = 2\ncheckpoint_minutes = 1e-6\n'
    (tmp_path / "small.toml").write_text(RECIPE.replace("batch_size = 8", "batch_size = 4") + drawing)
    whole = cli(*words, "-o", "whole")
    assert whole.returncode == 0, whole.stderr
    killed = subprocess.Popen(
        cli.command(*words, "-o", "killed"), cwd=tmp_path, env=cli.environment, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 200
    while not (tmp_path / "killed" / "last.ckpt").exists() and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    stands = torch.load(tmp_path / "killed" / "last.ckpt", weights_only=True)
    assert stands["step"] > 0
    again = cli(*words, "-o", "killed")
    assert again.returncode == 0, again.stderr
    runs = [tmp_path / "whole", tmp_path / "killed"]
    said, said_again = (json.loads((run / "run.json").read_text()) for run in runs)
    assert said == said_again
    one, other = (load_file(run / "model.safetensors") for run in runs)
    assert all(torch.equal(one[key], other[key]) for key in one)
    logs = [list(csv.DictReader((run / "metrics.csv").read_text().splitlines())) for run in runs]
    for row in logs[0] + logs[1]:
        del row["seconds"]
    assert logs[0] == logs[1]
    assert [row["epoch"] for row in logs[0]] == ["1", "2", "3"]
    assert list((tmp_path / "killed" / "tensorboard").glob("events*"))
    assert "tensorboard --logdir killed" in again.stdout
    other_recipe = cli(*words, "-o", "killed", "--seed", "5")
    assert other_recipe.returncode == 2
    assert "another recipe or other films" in other_recipe.stderr


def test_no_test_film_is_touched(cli: Cli, words: list[str | Path], tmp_path: Path) -> None:
    run = cli(*words, "-o", "run", "--epochs", "1")
    assert run.returncode == 0, run.stderr
    said = (tmp_path / "run" / "splits.csv").read_text()
    for name in (FILMS / "chestxray14" / "test_list.txt").read_text().split():
        assert Path(name).stem not in said
    network, findings = load_network(tmp_path / "run")
    assert len(findings) == 17
    assert not network.training


def test_a_run_learns_from_a_teacher_that_has_not_seen_its_validation_films(
    cli: Cli, words: list[str | Path], tmp_path: Path
) -> None:
    (tmp_path / "teacher.toml").write_text(RECIPE.replace("size = 64", "size = 96"))
    taught = [word if word != "small.toml" else "teacher.toml" for word in words]
    assert cli(*taught, "-o", "teacher", "--epochs", "1").returncode == 0
    alone, student = (
        cli(*words, "-o", "alone", "--epochs", "1"),
        cli(*words, "-o", "student", "--epochs", "1", "--teacher", "teacher"),
    )
    assert student.returncode == 0, student.stderr
    assert alone.returncode == 0
    one, other = (load_file(tmp_path / run / "model.safetensors") for run in ("alone", "student"))
    assert any(not torch.equal(one[key], other[key]) for key in one)
    (tmp_path / "leaking.toml").write_text(RECIPE + "split_seed = 9\n")
    leaking = cli(*[word if word != "small.toml" else "leaking.toml" for word in words], "--teacher", "teacher")
    assert leaking.returncode == 2
    assert "of this run's validation films" in leaking.stderr
    assert "same split_seed" in leaking.stderr
    other_films = cli(
        "train", "--data", FILMS / "chest_xray", "--recipe", "small.toml", "-o", "other", "--teacher", "teacher"
    )
    assert other_films.returncode == 2
    assert "teacher knows" in other_films.stderr


# Side of the last feature maps at 224 px.
SIDES = {
    "mobilenet_v2": 7, "densenet121": 7, "resnet50": 7, "efficientnet_b3": 7, "vgg19": 7, "inception_v3": 5, "alexnet": 6,
}  # fmt: skip


@pytest.mark.parametrize("architecture", SIDES)
def test_logits_are_the_mean_of_the_class_activation_maps(architecture: str) -> None:
    network = FilmNetwork(architecture, 3).eval()
    film = torch.randint(0, 256, (2, 1, 224, 224), dtype=torch.uint8)
    with torch.no_grad():
        maps = network.head(network.maps(film))
        logits = network(film)
        halfway, _ = network.both_maps(film)
    # Random weights give logits of any size: what counts is the difference beside it.
    size = float(logits.abs().max())
    assert 0 < size < float("inf")
    assert float((maps.mean((2, 3)) - logits).abs().max()) < 1e-5 * size
    assert maps.shape == (2, 3, SIDES[architecture], SIDES[architecture])
    assert halfway.shape[-1] >= SIDES[architecture]


@pytest.mark.parametrize("architecture", SIDES)
def test_rgb_weights_give_the_same_features_on_grey_films(architecture: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    # With weights of its own torchvision's Inception scales its input first.
    options = {"transform_input": True, "init_weights": True} if architecture == "inception_v3" else {}
    rgb = getattr(import_torchvision().models, architecture)(**options).eval()
    if architecture == "inception_v3":
        rgb.Conv2d_1a_3x3.bn.running_mean.normal_()
    save_file(rgb.state_dict(), tmp_path / "rgb.safetensors")
    network = FilmNetwork(architecture, 1).eval()
    load_weights(network, str(tmp_path / "rgb.safetensors"))
    film = torch.randint(0, 256, (1, 1, 96, 96), dtype=torch.uint8)
    grey = ((film.float() - 0.449 * 255) / (0.226 * 255)).expand(1, 3, 96, 96)
    last = {"resnet50": "layer4", "inception_v3": "Mixed_7c"}.get(architecture, "features")
    seen = []
    rgb.get_submodule(last).register_forward_hook(lambda *given: seen.append(given[2]))
    with torch.no_grad():
        rgb(grey)
        expected = torch.relu(seen[0]) if architecture == "densenet121" else seen[0]
        got = network.maps(film)
    # Random weights give features of any size: what counts is the difference beside it.
    size = float(expected.abs().max())
    assert 0 < size < float("inf")
    assert float((got - expected).abs().max()) < 1e-5 * size


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file({"features.0.weight": torch.zeros(1)}, tmp_path / "odd.safetensors")
    for given, says in (
        (tmp_path / "odd.safetensors", "not weights of mobilenet_v2"),
        (tmp_path / "none.safetensors", "no such"),
    ):
        with pytest.raises(DataError, match=says):
            load_weights(FilmNetwork("mobilenet_v2", 1), str(given))


def test_augmentation_is_seeded_moves_films_a_little_and_mirrors_them_only_when_asked() -> None:
    film = torch.zeros(64, 1, 96, 96, dtype=torch.uint8)
    film[:, :, 30:66, 10:40] = 200
    seeded = [augment(film, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*seeded)
    assert seeded[0].dtype == torch.uint8
    middle = seeded[0].float().mean((0, 1, 2))
    assert middle[:48].sum() > 5 * middle[48:].sum()
    assert (seeded[0] != film).flatten(1).any(1).all()
    mirrored = augment(film, torch.Generator().manual_seed(1), mirror=True).float().mean((1, 2))
    on_the_right = (mirrored[:, 48:].sum(1) > mirrored[:, :48].sum(1)).float().mean()
    assert 0.3 < on_the_right < 0.7


def test_a_recipe_lists_all_its_mistakes_at_once(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text('architecture = "vgg"\nepochs = 0\nspeed = "fast"\n')
    with pytest.raises(RecipeError, match=r"3 mistake") as raised:
        read_recipe(str(tmp_path / "bad.toml"))
    assert all(word in str(raised.value) for word in ("architecture", "epochs", "speed"))
    with pytest.raises(RecipeError, match="shipped ones: continued, densenet121-128, distilled, joint, joint-256"):
        read_recipe("absent")


def test_the_shipped_recipe_is_what_the_shipped_model_was_trained_with(bundle) -> None:
    said = bundle.manifest.training.recipe
    recipe = read_recipe("continued")
    assert (said["epochs"], said["seed"], said["validation_share"]) == (
        recipe.epochs,
        recipe.seed,
        recipe.validation_share,
    )


def test_without_the_labs_libraries_train_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    run = subprocess.run(
        [sys.executable, "-c", "from cxredge.cli import main; main()", "train", "--data", "x"],
        capture_output=True, text=True, check=False, env={"PYTHONPATH": str(tmp_path), "PATH": ""},
    )  # fmt: skip
    assert run.returncode == 2
    assert 'pip install "cxredge[train]"' in run.stderr
    assert "Traceback" not in run.stderr


def test_a_run_starts_from_a_network_that_does_not_know_every_finding(
    cli: Cli, words: list[str | Path], tmp_path: Path
) -> None:
    """As pruning leaves a bundle's network: the bias of what the bundle does not carry is no number."""
    assert cli(*words, "-o", "first", "--epochs", "1").returncode == 0
    state = load_file(tmp_path / "first" / "model.safetensors")
    state["head.bias"][:3] = torch.nan
    save_file(state, tmp_path / "first" / "model.safetensors")
    (tmp_path / "small.toml").write_text(RECIPE.replace('weights = "none"', 'weights = "first"'))
    on = cli(*words, "-o", "on", "--epochs", "1")
    assert on.returncode == 0, on.stderr
    assert all(values.isfinite().all() for values in load_file(tmp_path / "on" / "model.safetensors").values())


def test_training_that_leaves_the_numbers_stops_and_says_so(cli: Cli, words: list[str | Path], tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(RECIPE.replace("learning_rate = 1e-3", "learning_rate = 1e20"))
    run = cli(*words, "-o", "run")
    assert run.returncode == 2, run.stdout
    assert "is no number" in run.stderr
    assert "lower learning_rate" in run.stderr
    assert not (tmp_path / "run" / "model.safetensors").exists()
