"""One epoch, step by step: draw, augment, learn, average; a checkpoint where one is due."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress as Bar
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel

from cxredge.errors import DivergedError
from cxredge.train.attention import WithMaps, cam_total
from cxredge.train.branch import forget
from cxredge.train.checkpoint import Checkpoints, Progress
from cxredge.train.films import augment, mixup
from cxredge.train.losses import LabelLoss, teacher_total
from cxredge.train.network import FilmNetwork
from cxredge.train.precision import autocast
from cxredge.train.processes import Processes
from cxredge.train.recipe import Recipe
from cxredge.train.run_folder import Log
from cxredge.train.sampling import epoch_batches
from cxredge.train.sources import Films
from cxredge.train.teacher import Teacher


@dataclass
class Phase:
    """What trains some layers for some epochs. replica: the network as several processes train it."""

    optimiser: Optimizer
    schedule: LRScheduler
    replica: nn.Module


def phase_of(recipe: Recipe, network: FilmNetwork, epoch: int, steps: int, on: Processes) -> Phase:
    """The phase that an epoch belongs to, from its beginning: the head alone, or all layers. steps: optimiser steps an epoch."""
    alone = epoch < recipe.head_epochs
    network.features.requires_grad_(not alone)
    epochs = recipe.head_epochs if alone else recipe.epochs - recipe.head_epochs
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = OneCycleLR(optimiser, recipe.learning_rate, total_steps=epochs * steps, pct_start=recipe.warmup_share)
    return Phase(optimiser, schedule, on.replica(WithMaps(network) if recipe.cam_weight else network))


@dataclass(frozen=True)
class Loop:
    """What stays the same from epoch to epoch.

    planes: uint8 [N, 1, H, W], of all films. average: the running average of the network. log: None but in the first process.
    metadata: float32 [N, 6], of all films, where the network has a branch for it.
    """

    recipe: Recipe
    films: Films
    planes: NDArray[np.uint8]
    network: FilmNetwork
    average: AveragedModel
    loss: LabelLoss
    taught_by: Sequence[Teacher]
    checkpoints: Checkpoints
    log: Log | None
    bar: Bar
    on: Processes
    metadata: NDArray[np.float32] | None = None

    def batches(self, epoch: int) -> list[NDArray[np.intp]]:
        """Rows of each optimiser step of an epoch, over all processes."""
        return epoch_batches(self.films, self.recipe, epoch, pieces=self.on.count * self.recipe.accumulate)

    def parts(self, phase: Phase) -> dict[str, Any]:
        """What a checkpoint holds the state of."""
        return {
            "network": self.network,
            "average": self.average,
            "optimiser": phase.optimiser,
            "schedule": phase.schedule,
        }

    def epoch(self, phase: Phase, progress: Progress, saved: dict[str, Any] | None) -> tuple[float, torch.Generator]:
        """Train from where `progress` stands to the end of its epoch; returns the mean loss of a film, and the generator.

        saved: the checkpoint that the run goes on from, in the epoch that it stands in. Raises DivergedError.
        """
        recipe, on = self.recipe, self.on
        batches = self.batches(progress.epoch)
        # The first process's seed is that of a run alone; the others' films and dropout must differ from its own.
        seed = recipe.seed * 100_003 + progress.epoch + on.rank * 6_700_417
        generator = torch.Generator().manual_seed(seed)
        # Dropout draws from the global generator: seeded here, a resumed run drops what the undisturbed one would have.
        torch.manual_seed(seed)
        if saved is not None and progress.step:
            self.checkpoints.restore_generators(saved, generator)
        self.network.train()
        if progress.epoch < recipe.head_epochs:
            # A frozen backbone's batch norms must not follow the films either.
            self.network.features.eval()
        done = sum(map(len, batches[: progress.step]))
        total = sum(map(len, batches))
        task = self.bar.add_task(f"Epoch {progress.epoch + 1}/{recipe.epochs}", total=total, completed=done)
        for rows in batches[progress.step :]:
            loss = self._step(phase, rows, generator)
            if not math.isfinite(loss):
                raise DivergedError(
                    f"the loss of epoch {progress.epoch + 1}, step {progress.step + 1} is no number; what the last checkpoint holds"
                    " is kept. Train anew, into another folder, with a lower learning_rate"
                )
            progress.step += 1
            progress.loss += loss * len(rows)
            self.bar.update(task, advance=len(rows))
            if self.log is not None:
                number = progress.epoch * len(batches) + progress.step
                self.log.step(number, loss, float(phase.schedule.get_last_lr()[0]))
            if self.checkpoints.due():
                self.checkpoints.write(self.parts(phase), progress, generator)
        self.bar.remove_task(task)
        return progress.loss / total, generator

    def _step(self, phase: Phase, rows: NDArray[np.intp], generator: torch.Generator) -> float:
        """One optimiser step on a batch; returns its loss, over all processes."""
        recipe, on = self.recipe, self.on
        mine = on.share(rows)
        # Augmented where it is trained on: a processor would keep a GPU waiting.
        image = torch.from_numpy(np.ascontiguousarray(self.planes[mine])).to(on.device)
        image = augment(image, generator, mirror=recipe.mirror)
        labels = torch.from_numpy(self.films.labels[mine])
        findings = labels.shape[1]
        if self.metadata is not None:
            # Columns beside the labels, so that whatever is done to the films of a batch is done to both.
            said = forget(torch.from_numpy(self.metadata[mine]), recipe.metadata_dropout, generator)
            labels = torch.cat([labels, said], dim=1)
        if recipe.mixup:
            image, labels = mixup(image, labels, self.films.sources[mine], recipe.mixup, generator)
        cut = [slice(i, None, recipe.accumulate) for i in range(recipe.accumulate)]
        images = [image[part].to(on.device, memory_format=torch.channels_last) for part in cut]
        beside = [labels[part].to(on.device) for part in cut]
        told = [columns[:, :findings] for columns in beside]
        metadata = [columns[:, findings:] if self.metadata is not None else None for columns in beside]
        with autocast(on.device):
            seen = [[self._look(teacher, piece) for teacher in self.taught_by] for piece in images]
        taught = [[logits for logits, _ in of] for of in seen]
        # Every piece divides by the labels known in the whole batch: its mean is the same in however many pieces.
        known = on.sum(torch.stack([_known(told), _known([torch.stack(of).nanmean(0) for of in taught if of])]))
        known = known.to(on.device).clamp_min(1)
        phase.optimiser.zero_grad(set_to_none=True)
        reached = torch.zeros((), device=on.device)
        for i, piece in enumerate(images):
            last = i == len(images) - 1
            with nullcontext() if last or on.count == 1 else cast(Any, phase.replica).no_sync():
                with autocast(on.device):
                    made = phase.replica(piece, metadata[i])
                    logits, cams = made if recipe.cam_weight else (made, None)
                loss = self.loss.total(logits.float(), told[i]) / known[0]
                if taught[i]:
                    learned = teacher_total(logits.float(), taught[i], recipe.temperature)
                    loss = recipe.teacher_share * learned / known[1] + (1 - recipe.teacher_share) * loss
                    if cams is not None:
                        loss = loss + recipe.cam_weight * cam_total(cams, [maps for _, maps in seen[i]]) / known[1]
                # Gradients are averaged over the processes, and this loss is already a part of the mean.
                (loss * on.count).backward()
            reached += loss.detach()
        phase.optimiser.step()
        phase.schedule.step()
        on.average_statistics(self.network)
        self.average.update_parameters(self.network)
        return float(on.sum(reached).item())

    def _look(self, teacher: Teacher, image: Tensor) -> tuple[Tensor, Tensor]:
        """A teacher's logits and, where they are learned too, its maps; else an empty tensor."""
        return teacher.logits_and_cams(image) if self.recipe.cam_weight else (teacher.logits(image), torch.empty(0))


def _known(values: Sequence[Tensor]) -> Tensor:
    """How many are not nan, a scalar."""
    return torch.stack([(~value.isnan()).sum() for value in values]).sum() if values else torch.tensor(0)
