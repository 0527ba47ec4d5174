"""Fitting: set-up, loop, save, in the order things happen. A killed run goes on where its checkpoint stands, to the step."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cxredge.errors import DataError
from cxredge.train.branch import offsets
from cxredge.train.checkpoint import Checkpoints, Progress, progress_of
from cxredge.train.facts import read_facts
from cxredge.train.loop import Loop, phase_of
from cxredge.train.losses import label_loss
from cxredge.train.metadata import encode
from cxredge.train.network import FilmNetwork
from cxredge.train.planes import cached_planes
from cxredge.train.processes import Processes, processes
from cxredge.train.recipe import Recipe
from cxredge.train.run_folder import Log, claim, describe, write_network
from cxredge.train.sampling import epoch_batches
from cxredge.train.sources import PUBLISHED, Films, carve_validation, join
from cxredge.train.start import check_start, network_to_start
from cxredge.train.tables import read_data
from cxredge.train.teacher import is_bundle, is_run, open_teacher
from cxredge.train.unlabelled import add_unlabelled
from cxredge.train.unseen import called_alike
from cxredge.train.validate import mean_auroc, means_by_source, predict, validation_auroc


@dataclass(frozen=True)
class Fitted:
    """Where a run lies and what it reached on validation: AUROC per finding, nan where it cannot be told.

    first: whether this process is the one that wrote it.
    """

    run: Path
    validation: dict[str, float]
    first: bool = True


def fit(
    recipe: Recipe, data: Sequence[Path], run: Path, *,
    cache: Path, teachers: Sequence[Path] = (), unlabelled: Sequence[Path] = (),
    watch: Callable[[int, float], None] | None = None,
) -> Fitted:  # fmt: skip
    """Train one network on one or more sources; the weights kept are the running average (EMA) at the end.

    data: folders in their published layout, or labels tables (.csv) with a column `split`. teachers: finished runs with the same
    findings, or bundles, whose mean logit the network learns besides the labels, on the same augmented films (Hinton et al. 2015;
    Beyer et al., CVPR 2022). They must not have seen this run's validation films. unlabelled: films that only the teachers tell of,
    see `add_unlabelled`. watch: called after each epoch with its number,
    counted from 1, and the mean validation AUROC; what it raises ends the run.

    Validation films are looked at and not chosen by, unless the recipe has `patience`: then the epoch with the best mean AUROC on
    them is kept, which `run.json` says. Test films are not even decoded. Under `torchrun` every process calls this; the first one
    alone writes. Raises DataError, RecipeError, DivergedError, and OutputError when the disk is full or another process trains in
    that folder.
    """
    with processes() as on, ExitStack() as held:
        return _fit(recipe, data, run, cache, teachers, unlabelled, watch, on, held)


def _fit(
    recipe: Recipe, data: Sequence[Path], run: Path, cache: Path, teachers: Sequence[Path], unlabelled: Sequence[Path],
    watch: Callable[[int, float], None] | None, on: Processes, held: ExitStack,
) -> Fitted:  # fmt: skip
    check_start(recipe)
    films = carve_validation(
        join([read_data(path, uncertain=recipe.uncertain) for path in data]),
        share=recipe.validation_share,
        seed=recipe.split_seed,
    )
    if unlabelled and not teachers:
        raise DataError("unlabelled films teach nothing by themselves; give a teacher that tells of them")
    if lost := [teacher for teacher in teachers if not is_bundle(teacher) and not is_run(teacher)]:
        raise DataError(
            f"{lost[0]}: neither a finished run, nor a bundle's folder, nor a shipped model's name; no teacher"
        )
    films = add_unlabelled(films, unlabelled)
    # A recipe for several published sets may be used with one of them; any other name is a slip that would go unnoticed.
    if unknown := sorted(set(recipe.films_per_epoch) - set(films.sources.tolist()) - set(PUBLISHED)):
        raise DataError(
            f"films_per_epoch names {unknown[0]!r}, which none of the data sets is called; they are"
            f" {', '.join(sorted(set(films.sources.tolist())))}"
        )
    films = films.take(films.splits != "test")
    if not (films.splits == "train").any():
        raise DataError("no training films; a labels table says which they are in its column `split`: train or test")
    metadata = encode(read_facts(data, films)) if recipe.metadata else None
    if on.first:
        held.enter_context(claim(run, recipe, films, teachers, metadata))
        cached_planes(films.files, recipe.preprocessing, cache)
    on.wait()
    planes = cached_planes(films.files, recipe.preprocessing, cache)
    taught_by = [open_teacher(teacher, films, planes, recipe, on.device) for teacher in teachers]
    validation = np.flatnonzero(films.splits == "validation")

    torch.manual_seed(recipe.seed)
    network = cast(FilmNetwork, on.prepared(network_to_start(recipe, films, planes)))
    network.to(on.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay), use_buffers=True)
    checkpoints, progress = Checkpoints(run, recipe.checkpoint_minutes, on), Progress()
    saved = checkpoints.read()
    if saved is not None:
        network.load_state_dict(saved["network"])
        average.load_state_dict(saved["average"])
        progress = progress_of(saved)

    steps = len(epoch_batches(films, recipe, 0, pieces=on.count * recipe.accumulate))
    phase = phase_of(recipe, network, progress.epoch, steps, on)
    # Where a phase begins, the checkpoint still holds the optimiser of the one before.
    if saved is not None and (progress.step or progress.epoch != recipe.head_epochs):
        phase.optimiser.load_state_dict(saved["optimiser"])
        phase.schedule.load_state_dict(saved["schedule"])
    log = Log(run, progress.epoch, progress.epoch * steps + progress.step) if on.first else None
    loss = label_loss(recipe, films.labels[films.splits == "train"], on.device)

    held_out = films.take(validation)

    def validate() -> tuple[dict[str, float], float | None, str]:
        """AUROC per finding, from the films alone as a clinic reads them; its mean with metadata where there is a branch; the
        means within each source, in words."""
        logits = predict(average.module, planes, validation, recipe.batch_size, on)
        branch, means = cast(FilmNetwork, average.module).metadata, means_by_source(held_out, logits)
        scores = validation_auroc(held_out.labels, logits, films.findings, held_out.sources)
        if metadata is None or branch is None:
            return scores, None, means
        logits = logits + offsets(branch, metadata[validation], on.device)
        return scores, mean_auroc(validation_auroc(held_out.labels, logits, films.findings, held_out.sources)), means

    with _progress(on) as bar:
        if log is not None:
            bar.console.print(log.where(), markup=False, soft_wrap=True)
            for said in _cautions(recipe, teachers, held_out):
                bar.console.print(f"Caution: {said}", markup=False, soft_wrap=True)
        loop = Loop(recipe, films, planes, network, average, loss, taught_by, checkpoints, log, bar, on, metadata)
        while progress.epoch < recipe.epochs and not _risen_no_more(recipe, progress):
            started = time.perf_counter()
            if progress.epoch == recipe.head_epochs and not progress.step:
                phase = phase_of(recipe, network, progress.epoch, steps, on)
            mean_loss, generator = loop.epoch(phase, progress, saved)
            saved, (scores, told, means) = None, validate()
            progress.epoch, progress.step, progress.loss = progress.epoch + 1, 0, 0.0
            _keep(recipe, progress, scores, average)
            if log is not None:
                rate, seconds = float(phase.schedule.get_last_lr()[0]), time.perf_counter() - started
                log.epoch(progress.epoch, progress.epoch * steps, mean_loss, rate, seconds, scores, told)
                more = "" if told is None else f"; with age, sex and view {told:.4f} in all"
                bar.console.print(f"epoch {progress.epoch}: loss {mean_loss:.4f}, validation mean AUROC {means}{more}")
            checkpoints.write(loop.parts(phase), progress, generator)
            if watch is not None:
                watch(progress.epoch, mean_auroc(scores))
    # A checkpoint of an older version has no scores.
    scores = progress.scores or validate()[0]
    if log is not None:
        log.close()
        write_network(run, progress.best or average.module.state_dict())
        kept = progress.best_epoch or progress.epoch
        own = cast(FilmNetwork, average.module).architecture
        describe(run, recipe, own, films, data, scores, epochs=(progress.epoch, kept), on=on)
    return Fitted(run, scores, on.first)


def _risen_no_more(recipe: Recipe, progress: Progress) -> bool:
    # The backbone has its turn first: a head alone soon rises no more.
    begun = max(progress.best_epoch, recipe.head_epochs)
    return bool(recipe.patience) and progress.epoch - begun >= recipe.patience


def _keep(recipe: Recipe, progress: Progress, scores: dict[str, float], average: AveragedModel) -> None:
    """Note what the weights to keep reach: the last epoch's, or with `patience` the best epoch's, which are set aside."""
    if not recipe.patience:
        progress.scores = scores
        return
    score = mean_auroc(scores)
    if math.isnan(score):
        raise DataError("patience needs a finding with positive and negative validation films; there is none")
    if score > progress.best_score:
        progress.scores, progress.best_score, progress.best_epoch = scores, score, progress.epoch
        progress.best = {key: value.clone() for key, value in average.module.state_dict().items()}


def _cautions(recipe: Recipe, teachers: Sequence[Path], held_out: Films) -> list[str]:
    """Of runs that this one learns from: a table under another name may hold the films that they were trained on."""
    learned = dict.fromkeys([*teachers, *([Path(recipe.weights)] if is_run(recipe.weights) else [])])
    return [said for where in learned for said in called_alike(where, where.name, held_out, "validation films")]


def _progress(on: Processes) -> Bar:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Bar(*columns, disable=not on.first)
