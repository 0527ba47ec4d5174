"""Fitting: set-up, loop, save, in the order things happen. A killed run goes on at the last whole epoch."""

import csv
import json
import math
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cxredge import __version__
from cxredge.errors import DataError, TooFewFilmsError
from cxredge.metrics import auroc
from cxredge.train.films import augment
from cxredge.train.network import FilmNetwork, load_weights
from cxredge.train.planes import cached_planes
from cxredge.train.recipe import Recipe
from cxredge.train.sources import Films, carve_validation, join, name_of, read_source
from cxredge.train.teacher import Teacher, identity, is_bundle, open_bundled, open_teacher


@dataclass(frozen=True)
class Fitted:
    """Where a run lies and what it reached on validation: AUROC per finding, nan where it cannot be told."""

    run: Path
    validation: dict[str, float]


def fit(recipe: Recipe, data: list[Path], run: Path, *, cache: Path, teachers: Sequence[Path] = ()) -> Fitted:
    """Train one network on one or more sources; the weights kept are the running average (EMA) at the end.

    teachers: finished runs with the same findings, or bundles, whose mean logit the network learns besides the labels, on the
    same augmented films (Hinton et al. 2015; Beyer et al., CVPR 2022). They must not have seen this run's validation films.

    Validation films are looked at, never chosen by: no epoch is picked. Test films are not even decoded.
    Raises DataError, RecipeError.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run.mkdir(parents=True, exist_ok=True)
    films = carve_validation(
        join([read_source(folder) for folder in data]), share=recipe.validation_share, seed=recipe.seed
    )
    films = films.take(films.splits != "test")
    _same_run(run, recipe, films, teachers)
    planes = cached_planes(films.files, recipe.preprocessing, cache)
    taught_by = [open_teacher(teacher, films, planes, recipe, device) for teacher in teachers]
    training, validation = np.flatnonzero(films.splits == "train"), np.flatnonzero(films.splits == "validation")

    torch.manual_seed(recipe.seed)
    network = _start(recipe, films, planes)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay), use_buffers=True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = math.ceil(len(_draw(films, training, recipe, 0)) / recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=recipe.epochs * steps, pct_start=recipe.warmup_share
    )
    last = run / "last.ckpt"
    begin = 0
    if last.exists():
        saved = torch.load(last, weights_only=True, map_location=device)
        for part, name in (
            (network, "network"),
            (average, "average"),
            (optimiser, "optimiser"),
            (schedule, "schedule"),
        ):
            part.load_state_dict(saved[name])
        begin = int(saved["epoch"])

    scores: dict[str, float] = {}
    with _progress() as bar:
        for epoch in range(begin, recipe.epochs):
            started = time.perf_counter()
            loss = _epoch(
                recipe, epoch, films, planes, training, network, average, optimiser, schedule, taught_by, bar, device
            )
            logits = predict(average.module, planes[validation], recipe.batch_size, device)
            scores = validation_auroc(films.labels[validation], logits, films.findings)
            _log(
                run / "metrics.csv",
                epoch,
                loss,
                float(schedule.get_last_lr()[0]),
                time.perf_counter() - started,
                scores,
            )
            bar.console.print(f"epoch {epoch + 1}: loss {loss:.4f}, validation mean AUROC {_means(films, scores)}")
            state = {"network": network, "average": average, "optimiser": optimiser, "schedule": schedule}
            torch.save({**{k: v.state_dict() for k, v in state.items()}, "epoch": epoch + 1}, last.with_suffix(".new"))  # type: ignore[attr-defined]
            last.with_suffix(".new").replace(last)
    if not scores:
        scores = validation_auroc(
            films.labels[validation],
            predict(average.module, planes[validation], recipe.batch_size, device),
            films.findings,
        )
    weights = {key: value.contiguous().cpu() for key, value in average.module.state_dict().items()}
    save_file(weights, run / "model.safetensors")
    _describe(run, recipe, films, data, scores)
    return Fitted(run, scores)


def masked_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy over the known labels. logits, labels: [N, L]; labels in {0, 1, nan}."""
    told = ~torch.isnan(labels)
    return nn.functional.binary_cross_entropy_with_logits(logits[told], labels[told])


@torch.no_grad()
def predict(
    network: nn.Module, planes: NDArray[np.uint8], batch_size: int, device: torch.device
) -> NDArray[np.float64]:
    """Logits, float64 [N, L], in full precision. planes: uint8 [N, 1, H, W]."""
    network.eval()
    parts = [
        network(torch.from_numpy(np.ascontiguousarray(planes[i : i + batch_size])).to(device)).double().cpu().numpy()
        for i in range(0, len(planes), batch_size)
    ]
    return np.concatenate(parts)


def validation_auroc(
    labels: NDArray[np.float32], logits: NDArray[np.float64], findings: tuple[str, ...]
) -> dict[str, float]:
    """AUROC per finding; nan where the films hold no positive or no negative."""
    scores = {}
    for column, finding in enumerate(findings):
        try:
            scores[finding] = auroc(labels[:, column].astype(np.float64), logits[:, column])
        except TooFewFilmsError:
            scores[finding] = math.nan
    return scores


def _epoch(
    recipe: Recipe, epoch: int, films: Films, planes: NDArray[np.uint8], training: NDArray[np.intp], network: FilmNetwork,
    average: AveragedModel, optimiser: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler,
    taught_by: list[Teacher], bar: Progress, device: torch.device,
) -> float:  # fmt: skip
    rows = _draw(films, training, recipe, epoch)
    generator = torch.Generator().manual_seed(recipe.seed * 100_003 + epoch)
    # Dropout draws from the global generator: seeded here, a resumed run drops what the undisturbed one would have.
    torch.manual_seed(recipe.seed * 100_003 + epoch)
    task = bar.add_task(f"Epoch {epoch + 1}/{recipe.epochs}", total=len(rows))
    network.train()
    total = 0.0
    for batch in np.split(rows, range(recipe.batch_size, len(rows), recipe.batch_size)):
        image = torch.from_numpy(np.ascontiguousarray(planes[np.sort(batch)]))
        image = augment(image, generator, mirror=recipe.mirror)
        labels = torch.from_numpy(films.labels[np.sort(batch)])
        image = image.to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            logits = network(image)
            taught = [teacher.logits(image) for teacher in taught_by]
        loss = masked_loss(logits.float(), labels.to(device))
        if taught:
            # A teacher that does not know a finding says nan of it.
            told = torch.stack(taught).nanmean(0)
            known = ~told.isnan()
            learned = nn.functional.binary_cross_entropy_with_logits(logits.float()[known], told[known].sigmoid())
            loss = recipe.teacher_share * learned + (1 - recipe.teacher_share) * loss
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        average.update_parameters(network)
        total += loss.item() * len(batch)
        bar.update(task, advance=len(batch))
    bar.remove_task(task)
    return total / len(rows)


def _draw(films: Films, training: NDArray[np.intp], recipe: Recipe, epoch: int) -> NDArray[np.intp]:
    """Rows of an epoch, shuffled; per source as many as the recipe asks, none twice before all were drawn once."""
    rng = np.random.default_rng((recipe.seed, epoch))
    rows = []
    for source in sorted(set(films.sources)):
        own = training[films.sources[training] == source]
        wanted = recipe.films_per_epoch.get(source, len(own))
        rounds = [rng.permutation(own) for _ in range(-(-wanted // len(own)))]
        rows.append(np.concatenate(rounds)[:wanted])
    return rng.permutation(np.concatenate(rows))


def _start(recipe: Recipe, films: Films, planes: NDArray[np.uint8]) -> FilmNetwork:
    if is_bundle(recipe.weights):
        carved_by = (recipe.validation_share, recipe.seed)
        network = open_bundled(recipe.weights, films, planes, recipe.preprocessing, carved_by)
        network.dropout.p = recipe.dropout
        # Findings the bundle does not carry come as nan.
        network.head.bias.data.nan_to_num_()  # type: ignore[union-attr]
        return network
    network = FilmNetwork(recipe.architecture, len(films.findings), dropout=recipe.dropout)
    load_weights(network, recipe.weights)
    _start_at_prevalence(network, films.labels[films.splits == "train"])
    return network


def _start_at_prevalence(network: FilmNetwork, labels: NDArray[np.float32]) -> None:
    """Bias of the head at the training prevalence, so that the first epochs do not go into learning it."""
    share = np.clip(np.nanmean(labels, axis=0), 1e-3, 1 - 1e-3)
    cast(Tensor, network.head.bias).data = torch.from_numpy(np.log(share / (1 - share))).float()


def _same_run(run: Path, recipe: Recipe, films: Films, teachers: Sequence[Path]) -> None:
    """A folder holds one run: going on with another recipe or other films would mix two."""
    said = {"recipe": recipe.model_dump(), "films": len(films), "findings": list(films.findings)}
    if teachers:
        said["teachers"] = [identity(teacher) for teacher in teachers]
    stored = run / "resolved.json"
    if stored.exists() and json.loads(stored.read_text(encoding="utf-8")) != said:
        raise DataError(
            f"{run} holds a run of another recipe or other films; choose another --output or remove that folder"
        )
    stored.write_text(json.dumps(said, indent=1), encoding="utf-8")
    with (run / "splits.csv").open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(["file", "source", "patient", "split"])
        table.writerows(zip(map(name_of, films.files), films.sources, films.patients, films.splits, strict=True))


def _describe(run: Path, recipe: Recipe, films: Films, data: list[Path], scores: dict[str, float]) -> None:
    known = {source: _count(films, source) for source in sorted(set(films.sources))}
    facts = {
        "architecture": recipe.architecture,
        "findings": list(films.findings),
        "preprocessing": {"size": recipe.size, "clahe": recipe.clahe},
        "validation_share": recipe.validation_share,
        "seed": recipe.seed,
        "epochs": recipe.epochs,
        "sources": known,
        "data": [folder.name for folder in data],
        "validation_auroc": {k: None if math.isnan(v) else round(v, 5) for k, v in scores.items()},
        "versions": {"cxredge": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    (run / "run.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _count(films: Films, source: str) -> dict[str, int]:
    return {
        split: int(((films.sources == source) & (films.splits == split)).sum()) for split in ("train", "validation")
    }


def _means(films: Films, scores: dict[str, float]) -> str:
    """Mean AUROC per source, for a person watching."""
    parts = []
    for source in sorted(set(films.sources)):
        labelled = ~np.isnan(films.labels[films.sources == source]).all(0)
        own = [scores[f] for f, has in zip(films.findings, labelled, strict=True) if has and not math.isnan(scores[f])]
        parts.append(f"{source} {np.mean(own):.4f}")
    return ", ".join(parts)


def _log(table: Path, epoch: int, loss: float, rate: float, seconds: float, scores: dict[str, float]) -> None:
    new = not table.exists()
    with table.open("a", newline="", encoding="utf-8") as out:
        rows = csv.writer(out)
        if new:
            rows.writerow(["epoch", "loss", "learning_rate", "seconds", *scores])
        rows.writerow(
            [epoch + 1, f"{loss:.5f}", f"{rate:.3e}", f"{seconds:.1f}", *(f"{v:.5f}" for v in scores.values())]
        )
        out.flush()
        os.fsync(out.fileno())


def _progress() -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
