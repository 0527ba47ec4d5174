"""What a recipe may ask for, on real films: which films validate, when to stop, what to freeze, several processes, a search."""

import csv
import json
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from house import FILMS, Cli
from safetensors.torch import load_file, save_file

from cxredge.errors import DataError, RecipeError
from cxredge.train.bundled import network_of
from cxredge.train.fit import Fitted, fit
from cxredge.train.planes import cached_planes
from cxredge.train.recipe import Recipe, read_recipe, written
from cxredge.train.run_folder import data_hash
from cxredge.train.sources import read_source
from cxredge.train.tune import tune

DATA = [FILMS / "chestxray14", FILMS / "chest_xray"]
WORDS = ["train", *(word for folder in DATA for word in ("--data", folder)), "--recipe", "small.toml"]
SMALL = Recipe(weights="none", size=64, validation_share=0.3, epochs=1, batch_size=8)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("films")


@pytest.fixture
def backbone(bundle, cache: Path, tmp_path: Path) -> Path:
    """The shipped network's weights: a backbone that knows chest films."""
    planes = cached_planes(read_source(FILMS / "chestxray14").files, Recipe().preprocessing, cache)
    network = network_of(bundle, ("Cardiomegaly",), planes)
    save_file(network.state_dict(), tmp_path / "backbone.safetensors")
    return tmp_path / "backbone.safetensors"


def said(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


def splits(run: Path) -> list[str]:
    return (run / "splits.csv").read_text().splitlines()


def log(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))


def test_seeds_share_one_validation_set_unless_split_seed_says_otherwise(cache: Path, tmp_path: Path) -> None:
    runs = {"0": {}, "5": {"seed": 5}, "split": {"split_seed": 5}}
    for name, changes in runs.items():
        fit(SMALL.model_copy(update=changes), DATA, tmp_path / name, cache=cache)
    assert splits(tmp_path / "0") == splits(tmp_path / "5")
    assert splits(tmp_path / "0") != splits(tmp_path / "split")
    assert (said(tmp_path / "5")["seed"], said(tmp_path / "5")["split_seed"]) == (5, 0)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("0", "5"))
    assert not torch.equal(one["head.weight"], other["head.weight"])
    hashes = [said(tmp_path / name)["data_sha256"] for name in runs]
    assert hashes[0] == hashes[1] != hashes[2]
    assert said(tmp_path / "0")["environment"]["torch"] == torch.__version__


def test_a_run_begun_by_a_version_without_split_seed_goes_on(cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit(SMALL, DATA, run, cache=cache)
    before = load_file(run / "model.safetensors")
    stored = json.loads((run / "resolved.json").read_text())
    old = ("architecture", "weights", "size", "clahe", "validation_share", "seed", "epochs", "batch_size", "dropout")
    stored = {k: stored[k] for k in ("films", "findings")} | {"recipe": {k: stored["recipe"][k] for k in old}}
    (run / "resolved.json").write_text(json.dumps(stored))
    saved = torch.load(run / "last.ckpt", weights_only=True)
    torch.save({k: saved[k] for k in ("network", "average", "optimiser", "schedule", "epoch")}, run / "last.ckpt")
    fitted = fit(SMALL, DATA, run, cache=cache)
    assert all(torch.equal(value, before[key]) for key, value in load_file(run / "model.safetensors").items())
    assert set(fitted.validation) == set(said(run)["findings"])
    stored["recipe"]["seed"] = 5
    (run / "resolved.json").write_text(json.dumps(stored))
    with pytest.raises(DataError, match="another recipe or other films"):
        fit(SMALL.model_copy(update={"seed": 5}), DATA, run, cache=cache)


def test_a_run_that_failed_before_its_first_checkpoint_may_be_corrected(cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(DataError, match="no such weights"):
        fit(SMALL.model_copy(update={"weights": "absent.safetensors", "seed": 3}), DATA, run, cache=cache)
    assert {file.name for file in run.iterdir()} == {"resolved.json", "run.lock", "splits.csv"}
    fit(SMALL, DATA, run, cache=cache)
    assert json.loads((run / "resolved.json").read_text())["recipe"] == SMALL.model_dump()
    # Once there is something to lose it stays refused.
    with pytest.raises(DataError, match="another recipe or other films"):
        fit(SMALL.model_copy(update={"seed": 5}), DATA, run, cache=cache)
    assert json.loads((run / "resolved.json").read_text())["recipe"]["seed"] == SMALL.seed


def test_the_data_hash_tells_other_labels_and_splits_but_not_another_order() -> None:
    films = read_source(FILMS / "chest_xray")
    labels, splits_ = films.labels.copy(), films.splits.copy()
    labels[3, 0], splits_[3] = 1 - labels[3, 0], "other"
    assert data_hash(films) == data_hash(films.take(np.arange(len(films))[::-1]))
    hashes = {data_hash(f) for f in (films, replace(films, labels=labels), replace(films, splits=splits_))}
    assert len(hashes) == 3


def test_patience_keeps_the_best_epoch_and_says_which(cache: Path, tmp_path: Path) -> None:
    recipe = SMALL.model_copy(update={"epochs": 12, "patience": 2, "ema_decay": 0.5, "learning_rate": 2e-3})
    fitted = fit(recipe, DATA, tmp_path / "run", cache=cache)
    rows = log(tmp_path / "run")
    findings = said(tmp_path / "run")["findings"]
    means = [np.nanmean([float(row[finding]) for finding in findings]) for row in rows]
    best = int(np.argmax(means)) + 1
    facts = said(tmp_path / "run")
    assert facts["kept_epoch"] == best
    assert facts["epochs_run"] == len(rows) == min(12, best + 2)
    told = [value for value in fitted.validation.values() if not np.isnan(value)]
    assert np.mean(told) == pytest.approx(max(means), abs=1e-5)
    kept = load_file(tmp_path / "run" / "model.safetensors")
    last = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert all(torch.equal(value, kept[key]) for key, value in last["best"].items())
    assert not torch.equal(last["average"]["module.head.weight"], kept["head.weight"])


def test_the_head_alone_is_trained_first(backbone: Path, cache: Path, tmp_path: Path) -> None:
    given, moved = load_file(backbone), []

    def watch(_: int, __: float) -> None:
        state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["network"]
        changed = {
            key for key, value in given.items() if key.startswith("features") and not torch.equal(state[key], value)
        }
        moved.append((changed, state["head.weight"].clone()))

    recipe = SMALL.model_copy(update={"weights": str(backbone), "epochs": 2, "head_epochs": 1})
    fit(recipe, DATA, tmp_path / "run", cache=cache, watch=watch)
    (first, head), (second, _) = moved
    assert not first
    torch.manual_seed(recipe.seed)
    assert float(head.abs().sum()) > 0
    assert {"features.0.0.weight", "features.0.1.running_mean"} <= second
    with pytest.raises(RecipeError, match="none is left for all layers"):
        read_recipe("joint", epochs=2, head_epochs=2)


# Augmentation is drawn by each process for itself, so it is left out where the rest must agree.
UNMOVED = """
import cxredge.train.loop
cxredge.train.loop.augment = lambda films, generator, mirror: films
from cxredge.cli import main
main()
"""


def test_two_processes_learn_what_one_does(cli: Cli, backbone: Path, tmp_path: Path) -> None:
    changes = {"weights": str(backbone), "epochs": 3, "head_epochs": 2, "size": 96, "dropout": 0.0, "ema_decay": 0.5}
    (tmp_path / "small.toml").write_text(written(SMALL.model_copy(update=changes), "test"))
    (tmp_path / "unmoved.py").write_text(UNMOVED)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    started = {"one": [sys.executable], "two": torchrun}
    for name, start in started.items():
        run = subprocess.run(
            [*start, "unmoved.py", *map(str, WORDS), "-o", name],
            capture_output=True, text=True, check=False, timeout=400, cwd=tmp_path, env=cli.environment,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        # One process says it, not both.
        assert run.stdout.count("epoch 1:") == 1
        assert run.stdout.count(f"cxredge compress {name}") == 1
    assert said(tmp_path / "two")["environment"]["processes"] == 2
    assert splits(tmp_path / "one") == splits(tmp_path / "two")
    one, two = log(tmp_path / "one"), log(tmp_path / "two")
    assert [row["learning_rate"] for row in one] == [row["learning_rate"] for row in two]
    # With the backbone frozen the two differ by rounding.
    findings = [name for name, value in one[0].items() if value != "nan" and name in said(tmp_path / "one")["findings"]]
    assert len(findings) == 4
    for epoch in (0, 1):
        assert float(one[epoch]["loss"]) == pytest.approx(float(two[epoch]["loss"]), rel=1e-3)
        for finding in findings:
            assert float(one[epoch][finding]) == pytest.approx(float(two[epoch][finding]), abs=0.05)
    # Then, on a processor, each normalises by its own four films.
    assert float(one[2]["loss"]) == pytest.approx(float(two[2]["loss"]), rel=0.15)


def test_films_of_a_labels_table_are_trained_on(cache: Path, tmp_path: Path) -> None:
    films = read_source(FILMS / "chest_xray")
    folder = shutil.copytree(FILMS / "chest_xray", tmp_path / "films")
    lines = ["file,patient,split,Pneumonia"]
    for file, patient, split, label in zip(films.files, films.patients, films.splits, films.labels[:, 0], strict=True):
        there = (folder / file.relative_to(FILMS / "chest_xray")).relative_to(tmp_path)
        lines.append(f"{there},{patient},{split},{label:.0f}")
    (tmp_path / "own.csv").write_text("\n".join(lines))
    fitted = fit(SMALL, [tmp_path / "own.csv"], tmp_path / "run", cache=cache)
    assert list(fitted.validation) == ["Pneumonia"]
    assert said(tmp_path / "run")["sources"]["own"]["train"] > 0
    (tmp_path / "own.csv").write_text("\n".join(line.replace(",train,", ",test,") for line in lines))
    with pytest.raises(DataError, match="column `split`"):
        fit(SMALL, [tmp_path / "own.csv"], tmp_path / "other", cache=cache)


def test_help_names_every_layout_that_can_be_trained_on(cli: Cli) -> None:
    shown = cli("train", "--help").stdout
    assert all(word in shown for word in ("ChestX-ray14", "Kermany", "CheXpert", ".csv", "--tune", "torchrun"))


def test_a_search_goes_on_to_the_trials_asked_for_and_writes_its_best_recipe(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small.toml").write_text(written(SMALL, "test"))
    monkeypatch.chdir(tmp_path)

    def interrupted(*given: object, **named: object) -> Fitted:
        if len(list(Path("found/trials").glob("*/run.json"))) == 1:
            named["watch"] = stop
        return fit(*given, **named)

    def stop(_: int, __: float) -> None:
        raise KeyboardInterrupt

    # The second trial is stopped after its epoch was saved.
    monkeypatch.setattr("cxredge.train.tune.fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune(read_recipe("small.toml"), DATA, Path("found"), trials=3, cache=Path("runs/cache"))
    begun = {folder.name for folder in Path("found/trials").iterdir()}
    assert len(begun) == 2
    ended = cli(*WORDS, "-o", "found", "--tune", "3")
    assert ended.returncode == 0, ended.stderr
    assert "3 trials, 0 more given up" in ended.stdout
    assert "cxredge train --recipe found/best.toml" in ended.stdout
    folders = {folder.name: folder for folder in Path("found/trials").iterdir()}
    assert begun < set(folders)
    assert len(folders) == 3
    with sqlite3.connect("found/study.sqlite") as study:
        states = [state for (state,) in study.execute("SELECT state FROM trials")]
    assert sorted(states) == ["COMPLETE"] * 3 + ["FAIL"]
    best = read_recipe("found/best.toml")
    scores = [np.mean([v for v in said(f)["validation_auroc"].values() if v is not None]) for f in folders.values()]
    assert f"{max(scores):.4f}" in Path("found/best.toml").read_text()
    assert (best.size, best.epochs) == (64, 1)
    assert best.loss in {"bce", "focal", "asymmetric"}
    for folder in folders.values():
        assert not any(line.endswith(",test") for line in splits(folder))
    with pytest.raises(DataError, match="search around another recipe"):
        tune(read_recipe("small.toml", epochs=2), DATA, Path("found"), trials=3, cache=Path("runs/cache"))


def test_a_search_gives_up_what_lies_below_the_median(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    epochs: list[int] = []

    def quick(_: Recipe, __: object, run: Path, *, watch, **___: object) -> Fitted:
        score = 0.9 if len(epochs) < 5 else 0.4
        epochs.append(0)
        for epoch in (1, 2, 3):
            epochs[-1] = epoch
            watch(epoch, score)
        return Fitted(run, {"Edema": score, "Hernia": float("nan")})

    monkeypatch.setattr("cxredge.train.tune.fit", quick)
    found = tune(SMALL, DATA, tmp_path / "found", trials=7, cache=tmp_path)
    assert epochs == [3] * 5 + [2] * 2
    assert found.counts == (5, 2)
    assert found.score == pytest.approx(0.9)
    assert read_recipe(str(found.recipe)).learning_rate != SMALL.learning_rate


def test_a_recipe_reads_back_as_it_was_written(tmp_path: Path) -> None:
    recipe = read_recipe("paediatric", loss="focal", patience=3)
    (tmp_path / "own.toml").write_text(written(recipe, "two\nlines"))
    assert read_recipe(str(tmp_path / "own.toml")) == recipe


def test_a_search_that_tried_nothing_may_be_corrected(tmp_path: Path) -> None:
    slip = SMALL.model_copy(update={"epochs": 1, "films_per_epoch": {"nobody": 4}})
    with pytest.raises(DataError, match="films_per_epoch names 'nobody'"):
        tune(slip, DATA, tmp_path / "found", trials=1, cache=tmp_path)
    mended = SMALL.model_copy(update={"epochs": 1})
    assert tune(mended, DATA, tmp_path / "found", trials=1, cache=tmp_path).counts == (1, 0)
    with pytest.raises(DataError, match="another recipe or on other data"):
        tune(slip, DATA, tmp_path / "found", trials=1, cache=tmp_path)
