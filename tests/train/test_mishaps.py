"""What befalls a training in a lab: full disks, power cuts, two at once, recipes that cannot be."""

import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from house import FILMS, Cli
from safetensors.torch import load_file, save_file

from cxredge.errors import DataError, OutputError, RecipeError
from cxredge.train.fit import Fitted, fit
from cxredge.train.network import FilmNetwork
from cxredge.train.planes import cached_planes
from cxredge.train.recipe import Recipe, read_recipe, written
from cxredge.train.sampling import epoch_batches
from cxredge.train.sources import carve_validation, join, list_source, read_source
from cxredge.train.subject import open_subject
from cxredge.train.tune import tune

DATA = [FILMS / "chestxray14", FILMS / "chest_xray"]
SMALL = Recipe(weights="none", size=64, validation_share=0.3, epochs=1, batch_size=8)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("films")


@contextmanager
def files_of_at_most(count: int) -> Iterator[None]:
    """No file may grow beyond so many bytes, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_without_room_for_decoded_films_is_said_and_holds_none(tmp_path: Path) -> None:
    films = read_source(DATA[0])
    cache = tmp_path / "cache"
    with files_of_at_most(10_000), pytest.raises(OutputError, match=r"cannot take 24 decoded films, 0 MB .* --cache"):
        cached_planes(films.files, SMALL.preprocessing, cache)
    assert list(cache.iterdir()) == []
    # What a killed process left is removed by the next one, and what one that lives is writing is not.
    dead = subprocess.Popen(["true"])
    dead.wait()
    left, living = (cache / f"planes-0123456789abcdef.npy.{process}" for process in (dead.pid, os.getppid()))
    left.touch()
    living.touch()
    assert cached_planes(films.files, SMALL.preprocessing, cache).shape == (24, 1, 64, 64)
    assert (left.exists(), living.exists()) == (False, True)
    assert len(list(cache.iterdir())) == 2


def test_a_disk_without_room_for_a_checkpoint_is_said_and_the_one_before_is_kept(cache: Path, tmp_path: Path) -> None:
    recipe, run = SMALL.model_copy(update={"epochs": 2}), tmp_path / "run"

    def stop(_: int, __: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(recipe, DATA, run, cache=cache, watch=stop)
    before = (run / "last.ckpt").read_bytes()
    with files_of_at_most(1_000_000), pytest.raises(OutputError, match="the checkpoint cannot be written"):
        fit(recipe, DATA, run, cache=cache)
    assert (run / "last.ckpt").read_bytes() == before
    assert not [file for file in run.iterdir() if file.name.startswith(".")]
    # One bit of a weight, as a worn disk flips it; and a part of the file, as a power cut leaves it.
    flipped = bytearray(before)
    flipped[len(flipped) // 2] ^= 64
    for damaged in (bytes(flipped), before[:100_000], b""):
        (run / "last.ckpt").write_bytes(damaged)
        with pytest.raises(DataError, match=r"last.ckpt is damaged, .* delete it"):
            fit(recipe, DATA, run, cache=cache)
    (run / "last.ckpt").write_bytes(before)
    assert (fit(recipe, DATA, run, cache=cache).run / "model.safetensors").is_file()


def test_a_run_goes_on_where_a_power_cut_emptied_its_files(cli: Cli, cache: Path, tmp_path: Path) -> None:
    run = fit(SMALL, DATA, tmp_path / "run", cache=cache).run
    kept = load_file(run / "model.safetensors")
    (run / "resolved.json").write_text("")
    (run / "run.json").write_text('{"findings": [')
    with pytest.raises(DataError, match=r"run\.json is cut off or empty, so the run did not end"):
        open_subject(run)
    said = cli("evaluate", "run", "--data", DATA[0])
    assert said.returncode == 2
    assert "Traceback" not in said.stderr
    fit(SMALL, DATA, run, cache=cache)
    assert json.loads((run / "resolved.json").read_text())["films"]
    assert open_subject(run).kind == "run"
    assert all(torch.equal(value, kept[key]) for key, value in load_file(run / "model.safetensors").items())


def test_two_processes_do_not_train_in_one_folder(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(written(SMALL.model_copy(update={"epochs": 500}), "test"))
    words = ("train", "--data", DATA[0], "--recipe", "small.toml", "-o", "run")
    first = subprocess.Popen(
        cli.command(*words), cwd=tmp_path, env=cli.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / "last.ckpt").exists() and first.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        second = cli(*words)
        assert first.poll() is None
        assert second.returncode == 2
        assert "run: another process trains there" in second.stderr
    finally:
        first.kill()
        first.wait()
    # A lock goes with the process that held it.
    (tmp_path / "small.toml").write_text(written(SMALL, "test"))
    assert "another recipe or other films" in cli(*words).stderr


def test_a_search_goes_on_when_a_trial_diverges(
    cli: Cli, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = FilmNetwork("mobilenet_v2", 1)
    network.features[0][0].weight.data.fill_(torch.inf)
    save_file(network.state_dict(), tmp_path / "broken.safetensors")
    broken = SMALL.model_copy(update={"weights": str(tmp_path / "broken.safetensors")})
    begun = []

    def fitted(recipe: Recipe, *given: object, **named: object) -> Fitted:
        """The second of three trials starts from weights that are no numbers."""
        begun.append(recipe.learning_rate)
        weights = broken.weights if len(begun) == 2 else recipe.weights
        return fit(recipe.model_copy(update={"weights": weights}), *given, **named)

    monkeypatch.setattr("cxredge.train.tune.fit", fitted)
    assert tune(SMALL, DATA, tmp_path / "found", trials=3, cache=cache).counts == (2, 1)
    (tmp_path / "broken.toml").write_text(written(broken, "test"))
    ended = cli("train", "--data", DATA[0], "--recipe", "broken.toml", "-o", "none", "--tune", "2")
    assert ended.returncode == 2
    assert "every trial was given up" in ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout


def test_another_network_than_the_recipe_asks_for_is_not_trained_on_in_silence(cache: Path, tmp_path: Path) -> None:
    alexnet = SMALL.model_copy(update={"architecture": "alexnet"})
    run = fit(alexnet, DATA, tmp_path / "run", cache=cache).run
    asked = Recipe(**SMALL.model_dump(exclude={"architecture", "weights"}), architecture="resnet50", weights=str(run))
    for recipe, says in (
        (asked, "asks for resnet50, and .*run is alexnet; give --arch alexnet"),
        (asked.model_copy(update={"weights": "chestxray14"}), "asks for resnet50, and chestxray14 is mobilenet_v2"),
        (SMALL.model_copy(update={"weights": str(run), "clahe": True}), "films without clahe"),
    ):
        with pytest.raises(RecipeError, match=says):
            fit(recipe, DATA, tmp_path / "on", cache=cache)
    # A search writes no architecture that nobody chose.
    chosen = SMALL.model_copy(update={"weights": str(run)})
    (tmp_path / "best.toml").write_text(written(chosen, "test"))
    fit(read_recipe(str(tmp_path / "best.toml")), DATA, tmp_path / "on", cache=cache)


def test_films_too_small_for_a_network_are_said_before_they_are_decoded(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="films of 32 pixels are too small for alexnet"):
        fit(
            SMALL.model_copy(update={"architecture": "alexnet", "size": 32}),
            DATA,
            tmp_path / "run",
            cache=tmp_path / "c",
        )
    assert not (tmp_path / "c").exists()


def test_no_batch_holds_a_single_film(cache: Path, tmp_path: Path) -> None:
    films = carve_validation(join([read_source(path) for path in DATA]), share=0.3, seed=0)
    trained = int((films.splits == "train").sum())
    odd = SMALL.model_copy(update={"size": 32, "batch_size": trained - 1})
    assert [len(batch) for batch in epoch_batches(films, odd, 0, pieces=1)] == [trained - 1]
    # At 32 pixels the last maps are of one pixel, of which a batch norm can make nothing.
    fit(odd, DATA, tmp_path / "run", cache=cache)


@pytest.mark.parametrize("share", [0.01, 0.8, 0.99])
def test_of_every_source_some_patient_trains_and_some_validates(share: float, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(next((DATA[0] / "images").glob("*.jpg")), tmp_path / name)
    (tmp_path / "own.csv").write_text("file,patient,split,Edema\na.jpg,1,train,0\nb.jpg,2,train,1\n")
    recipe = SMALL.model_copy(update={"validation_share": share})
    fit(recipe, [DATA[0], tmp_path / "own.csv"], tmp_path / "run", cache=tmp_path)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["sources"]["own"] == {"train": 1, "validation": 1}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"learning_rate = inf", "learning_rate: Input should be a finite number"),
        (b"weight_decay = inf", "weight_decay: Input should be a finite number"),
        (b"seed = 92233720368547758070", "seed: Input should be less than 4294967296"),
        (b"batch_size = 1", "batch_size: Input should be greater than or equal to 2"),
        ("# résumé\nepochs = 2".encode("latin-1"), "not UTF-8 text"),
    ],
)
def test_recipes_that_cannot_be_are_refused(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_bytes(content)
    with pytest.raises(RecipeError, match=says):
        read_recipe(str(tmp_path / "bad.toml"))


def test_a_recipe_from_a_windows_editor_is_read(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_bytes("epochs = 3\r\n".encode("utf-8-sig"))
    assert read_recipe(str(tmp_path / "own.toml")).epochs == 3


def test_pictures_beside_kermanys_splits_are_counted(tmp_path: Path) -> None:
    """Kaggle's copy has a `val/`."""
    folder = shutil.copytree(DATA[1], tmp_path / "chest_xray")
    assert list_source(folder).left_out == ()
    (folder / "val" / "NORMAL").mkdir(parents=True)
    shutil.copy(next((folder / "train" / "NORMAL").iterdir()), folder / "val" / "NORMAL")
    assert list_source(folder).left_out == (("pictures outside train/ and test/, as in Kaggle's val/", 1),)
