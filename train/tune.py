"""`train --tune N`: a search over recipes by their validation AUROC, never by test films (Akiba et al., Optuna, KDD 2019)."""

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxredge import __version__
from cxredge.errors import CxredgeError, DataError, DivergedError, RecipeError
from cxredge.report.files import atomic_write, drop_unfinished
from cxredge.train.fit import fit
from cxredge.train.lock import locked
from cxredge.train.recipe import Recipe, written
from cxredge.train.run_folder import check_free, data_hash, read_json, write_json
from cxredge.train.sources import join
from cxredge.train.tables import read_data
from cxredge.train.teacher import identity
from cxredge.train.unlabelled import add_unlabelled
from cxredge.train.validate import mean_auroc

if TYPE_CHECKING:
    from optuna import Study, Trial

BEST = "best.toml"
# Pruned before so many trials and epochs, a slow starter would be taken for a bad one.
TRIALS_BEFORE_PRUNING, EPOCHS_BEFORE_PRUNING = 4, 1


@dataclass(frozen=True)
class Tuned:
    """What a search found. score: mean validation AUROC of the best trial. recipe: its recipe as a file.

    trial: its run. counts: how many trials ended whole, and how many were pruned.
    """

    score: float
    recipe: Path
    trial: Path
    counts: tuple[int, int]


def tune(
    recipe: Recipe,
    data: Sequence[Path],
    run: Path,
    *,
    trials: int,
    cache: Path,
    teachers: Sequence[Path] = (),
    unlabelled: Sequence[Path] = (),
) -> Tuned:
    """Search learning rate, weight decay, dropout, EMA decay and loss around a recipe, `trials` in all, and write the best.

    run: holds `study.sqlite`, a folder per trial and `best.toml`. The same call goes on with a search that was killed, in the
    middle of its trial, or that shall have more trials; one process at a time. A trial whose mean validation AUROC lies below the
    median of the others at the same epoch is given up, and so is one that diverges. Raises DataError, RecipeError, OutputError;
    CxredgeError when Optuna is missing.
    """
    try:
        import optuna
    except ModuleNotFoundError:
        raise CxredgeError('`cxredge train --tune` needs Optuna: pip install "cxredge[train]"') from None
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError("--tune runs in one process; start it without torchrun")
    if not (run / "resolved.json").exists():
        check_free(run, "tuned.json")
    run.mkdir(parents=True, exist_ok=True)
    # An error that ends the search is said once, by whoever catches it.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with locked(run):
        drop_unfinished(run)
        _claim(run, recipe, data, teachers, unlabelled)
        return _search(recipe, data, run, trials, cache, teachers, unlabelled)


def _search(
    recipe: Recipe, data: Sequence[Path], run: Path, trials: int, cache: Path, teachers: Sequence[Path],
    unlabelled: Sequence[Path],
) -> Tuned:  # fmt: skip
    import optuna

    storage = f"sqlite:///{(run / 'study.sqlite').resolve()}"
    pruner = optuna.pruners.MedianPruner(
        n_startup_trials=TRIALS_BEFORE_PRUNING, n_warmup_steps=EPOCHS_BEFORE_PRUNING + 1
    )
    study = optuna.create_study(
        study_name="cxredge", storage=storage, direction="maximize", pruner=pruner, load_if_exists=True
    )
    _pick_up(study)

    def objective(trial: "Trial") -> float:
        tried = recipe.model_copy(update=_drawn(trial))

        def watch(epoch: int, score: float) -> None:
            if math.isnan(score):
                raise DataError("a search needs a finding with positive and negative validation films; there is none")
            trial.report(score, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        where = _folder(run, trial.params)
        try:
            fitted = fit(tried, data, where, cache=cache, teachers=teachers, unlabelled=unlabelled, watch=watch)
        except DivergedError:
            raise optuna.TrialPruned from None
        return mean_auroc(fitted.validation)

    while (missing := trials - len(_ended(study))) > 0:
        # A search that goes on must not draw again what its first seed drew.
        study.sampler = optuna.samplers.TPESampler(seed=recipe.seed + len(study.get_trials(deepcopy=False)))
        study.optimize(objective, n_trials=missing)
    if not (whole := [trial for trial in _ended(study) if trial.state.name == "COMPLETE"]):
        raise DataError(f"{run}: every trial was given up; ask for more of them")
    best, folder = study.best_trial, _folder(run, study.best_params)
    found = recipe.model_copy(update=best.params)
    header = (
        f"Best of {len(_ended(study))} trials of `cxredge train --tune` ({__version__}): mean validation AUROC"
        f" {best.value:.4f}.\nChosen on the validation films, which therefore flatter it; test films were not looked at."
    )
    with atomic_write(run / BEST) as out:
        out.write(written(found, header))
    return Tuned(float(best.value or 0), run / BEST, folder, (len(whole), len(_ended(study)) - len(whole)))


def _drawn(trial: "Trial") -> dict[str, Any]:
    """The keys that are searched, each by its name in a recipe."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-4, 1e-1, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.5, step=0.1),
        "ema_decay": trial.suggest_categorical("ema_decay", [0.98, 0.99, 0.995, 0.998]),
        "loss": trial.suggest_categorical("loss", ["bce", "focal", "asymmetric"]),
    }


def _folder(run: Path, drawn: dict[str, Any]) -> Path:
    """A trial's run, named by what was drawn, so that a killed trial finds its checkpoint under its new number."""
    return run / "trials" / hashlib.sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest()[:12]


def _ended(study: "Study") -> list[Any]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name in {"COMPLETE", "PRUNED"}]


def _pick_up(study: "Study") -> None:
    """What an interrupted trial had drawn is tried first: its run goes on at its checkpoint."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    trials = study.get_trials(deepcopy=False)
    settled = [trial.params for trial in _ended(study)]
    settled += [t.system_attrs.get("fixed_params") for t in trials if t.state == TrialState.WAITING]
    for trial in trials:
        if trial.state == TrialState.FAIL and trial.params and trial.params not in settled:
            study.enqueue_trial(trial.params)
            settled.append(trial.params)


def _claim(
    run: Path, recipe: Recipe, data: Sequence[Path], teachers: Sequence[Path], unlabelled: Sequence[Path]
) -> None:
    """A folder holds one search."""
    films = join([read_data(path, uncertain=recipe.uncertain) for path in data])
    films = add_unlabelled(films, unlabelled)
    said = {
        "recipe": recipe.model_dump(exclude={"checkpoint_minutes"}),
        "data": [path.name for path in data],
        "data_sha256": data_hash(films),
        "teachers": [identity(teacher) for teacher in teachers],
    }
    stored = run / "tuned.json"
    # Where no trial ran, a slip in the recipe ended it.
    if (run / "trials").exists() and read_json(stored) not in (None, said):
        raise DataError(
            f"{run} holds a search around another recipe or on other data; choose another --output or remove that folder"
        )
    if (run / "resolved.json").exists():
        raise DataError(f"{run} holds a run; choose another --output for the search")
    write_json(stored, said)
