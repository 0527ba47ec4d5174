"""The steps of a recipe, one after another: each takes a finished run and leaves one, so a chain that was killed goes on in it."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cxredge.bundle import open_bundle
from cxredge.compress.channels import Group
from cxredge.compress.parent import Parent
from cxredge.compress.prune import prune, weighed
from cxredge.compress.sensitivity import Probe, read, scan, write
from cxredge.compress.steps import Distil, Finetune, Prune, Step, Take
from cxredge.compress.to_int8 import check_float_layers
from cxredge.errors import CxredgeError, DataError, RecipeError
from cxredge.train.fit import fit
from cxredge.train.network import FilmNetwork, load_network
from cxredge.train.recipe import Recipe as Training
from cxredge.train.run_folder import data_hash, read_json, write_json, write_network, write_splits
from cxredge.train.start import check_start, network_to_start
from cxredge.train.teacher import identity, is_bundle, is_run, open_bundled, open_teacher, split_seed_of
from cxredge.train.unlabelled import add_unlabelled

Say = Callable[[str], None]


@dataclass(frozen=True)
class Stage:
    """A network, in evaluation mode, and the step that made it; the first one is the parent. probes: what it was pruned by."""

    name: str
    network: FilmNetwork
    probes: Sequence[Probe] = ()


@dataclass(frozen=True)
class Planned:
    """A step before the first one begins. run: where it leaves its network. teachers: what it learns from, or takes.

    training: of one that trains.
    """

    step: Step
    title: str
    run: Path
    teachers: tuple[Path, ...]
    training: Training | None

    @property
    def done(self) -> bool:
        """Whether it was done before."""
        return read_json(self.run / "run.json") is not None

    @property
    def unlabelled(self) -> tuple[Path, ...]:
        return tuple(map(Path, self.step.unlabelled)) if isinstance(self.step, Distil | Finetune) else ()


def run_chain(
    where: Path, parent: Parent, data: Sequence[Path], steps: Sequence[Step], *, cache: Path, say: Say, float_layers: int = 0
) -> list[Stage]:  # fmt: skip
    """The parent, then the network that each step made of the one before.

    where: the parent's run or bundle. Runs of the steps are kept in `cache`, under a name that says parent, films and every step
    so far: the same chain finds them again. float_layers: how many of the last network's convolutions will stay in float.
    Raises RecipeError, before the first step begins, for what any step names and cannot get; DataError, CxredgeError.
    """
    stages = [Stage("full precision", parent.network)]
    for planned in _plan(where, parent, steps, cache, float_layers):
        step, run = planned.step, planned.run
        if planned.done:
            say(f"{planned.title}, done before in {run}")
        else:
            say(f"{planned.title}, in {run}")
            if isinstance(step, Prune):
                _prune(stages[-1].network, parent, step, run, say)
            elif isinstance(step, Take):
                _take(planned.teachers[0], parent, step, run)
            else:
                assert planned.training is not None  # noqa: S101 - for the type checker: it is a step that trains
                fit(
                    planned.training,
                    data,
                    run,
                    cache=cache,
                    teachers=planned.teachers,
                    unlabelled=planned.unlabelled,
                )
        network, _ = load_network(run)
        stages.append(Stage(step.do, network, read(run)))
    return stages


def _plan(where: Path, parent: Parent, steps: Sequence[Step], cache: Path, float_layers: int) -> list[Planned]:
    """All steps, with what those to be done name opened once, so that a slip in the last one does not cost the others' hours.

    Raises RecipeError that tells every step's mistake at once.
    """
    said: list[object] = [identity(where), data_hash(parent.films)]
    split = {"validation_share": parent.facts["validation_share"], "split_seed": split_seed_of(parent.facts)}
    fixed = split | {"size": parent.preprocessing.size, "clahe": parent.preprocessing.clahe}
    fixed |= {"uncertain": parent.facts.get("uncertain", "ignore")}
    # A step goes on with the branch for metadata where the parent has one; its own recipe may say otherwise.
    fixed |= {"metadata": parent.network.metadata is not None}
    plan, mistakes, last, architecture = list[Planned](), list[str](), where, parent.network.architecture
    for number, step in enumerate(steps, 1):
        title = f"step {number} of {len(steps)}: {step.do}"
        named: tuple[str, ...] = ()
        training: Training | None = None
        if isinstance(step, Distil | Finetune):
            named = step.teachers
            goes_on = {} if isinstance(step, Distil) else {"weights": str(last)}
            training = Training(**fixed | goes_on | step.training)
        elif isinstance(step, Take):
            named = (step.bundle,)
        teachers = tuple(where if name == "parent" else Path(name) for name in named)
        try:
            _check_there(step, teachers)
            said.append([step.model_dump(), [identity(teacher) for teacher in teachers]])
            planned = Planned(step, title, cache, teachers, training)
            if planned.unlabelled:
                said.append(data_hash(add_unlabelled(parent.films, planned.unlabelled)))
            key = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12]
            planned = replace(planned, run=cache / "steps" / f"{number}-{step.do}-{key}")
            architecture = _opened(planned, where, parent, architecture)
            plan.append(planned)
            last = planned.run
        except (CxredgeError, OSError) as error:
            mistakes.append(f"{title}: {error}")
    if mistakes:
        raise RecipeError("\n".join(mistakes))
    with torch.device("meta"):
        check_float_layers(float_layers, FilmNetwork(architecture, 1))
    return plan


def _check_there(step: Step, teachers: Sequence[Path]) -> None:
    if isinstance(step, Take) and not is_bundle(teachers[0]):
        raise RecipeError(
            f"{teachers[0]} is no bundle: a step `take` takes the compressed network that a bundle carries"
        )
    if lost := [teacher for teacher in teachers if not is_bundle(teacher) and not is_run(teacher)]:
        raise DataError(
            f"{lost[0]}: neither a finished run, nor a bundle's folder, nor a shipped model's name; no teacher"
        )


def _opened(planned: Planned, where: Path, parent: Parent, architecture: str) -> str:
    """The architecture that a step leaves, of what it names, which is opened where the step is still to be done."""
    step, training = planned.step, planned.training
    if planned.done:
        return str(json.loads((planned.run / "run.json").read_text(encoding="utf-8"))["architecture"])
    if isinstance(step, Take):
        return open_bundle(planned.teachers[0]).manifest.architecture
    if training is None:
        return architecture
    if planned.unlabelled and not planned.teachers:
        raise DataError("unlabelled films teach nothing by themselves; give a teacher that tells of them")
    # What is drawn for networks that are only looked at takes nothing from the steps' draws.
    with torch.random.fork_rng(devices=[]):
        for teacher in planned.teachers:
            # The parent is open, with the very films.
            if teacher != where:
                open_teacher(teacher, parent.films, parent.planes, training, torch.device("cpu"))
        if isinstance(step, Finetune):
            return architecture
        check_start(training)
        return network_to_start(training, parent.films, parent.planes).architecture


def _prune(network: FilmNetwork, parent: Parent, step: Prune, run: Path, say: Say) -> None:
    """Prune and leave a run, so that the next step, or `cxredge evaluate`, finds the network as it finds any other."""
    films = parent.films
    rows = parent.rows("train")
    chosen = np.sort(np.random.default_rng(0).choice(rows, min(step.films, len(rows)), replace=False))
    groups = weighed(network, parent.planes[chosen], films.labels[chosen], step.importance)
    run.mkdir(parents=True, exist_ok=True)
    probes = _scanned(network, groups, parent.planes[chosen[: step.sensitivity]], step) if step.sensitivity else []
    cut = prune(
        network, groups, parent.preprocessing.size,
        macs=step.macs, latency=step.latency, engine=step.engine, round_to=step.round_to, probes=probes, say=say,
    )  # fmt: skip
    if probes:
        write(probes, run)
    _leave(run, cut, parent, {"pruned": step.model_dump()})


def _take(where: Path, parent: Parent, step: Take, run: Path) -> None:
    """Leave as a run the pruned network that a bundle carries."""
    carved_by = float(parent.facts["validation_share"]), int(cast(int, split_seed_of(parent.facts)))
    network = open_bundled(where, parent.films, parent.planes, parent.preprocessing, carved_by, compressed=True)
    run.mkdir(parents=True, exist_ok=True)
    _leave(run, network, parent, {"taken": step.model_dump()})


def _leave(run: Path, network: FilmNetwork, parent: Parent, made: dict[str, object]) -> None:
    """Keep a network that no training made as a finished run."""
    write_network(run, network.state_dict())
    write_splits(run, parent.films.take(parent.films.splits != "test"))
    facts = {key: value for key, value in parent.facts.items() if key not in {"validation_auroc", "epochs"}}
    facts["architecture"] = network.architecture
    # Last: a run is finished when this is there.
    write_json(run / "run.json", facts | made)


def _scanned(network: FilmNetwork, groups: Sequence[Group], planes: NDArray[np.uint8], step: Prune) -> list[Probe]:
    """A scan with its progress on the screen: of a DenseNet it takes a while. planes: uint8 [N, 1, H, W]."""
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("Sensitivity of groups of channels", total=None)
        return scan(
            network, groups, planes, round_to=step.round_to,
            tick=lambda done, tries: bar.update(task, completed=done, total=tries),
        )  # fmt: skip
