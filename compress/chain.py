"""The steps of a recipe, one after another: each takes a finished run and leaves one, so a chain that was killed goes on in it."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cxredge.compress.channels import Group
from cxredge.compress.parent import Parent
from cxredge.compress.prune import prune, weighed
from cxredge.compress.sensitivity import Probe, read, scan, write
from cxredge.compress.steps import Distil, Finetune, Prune, Step, Take
from cxredge.errors import RecipeError
from cxredge.train.fit import fit
from cxredge.train.network import FilmNetwork, load_network
from cxredge.train.recipe import Recipe as Training
from cxredge.train.run_folder import data_hash, read_json, write_json, write_network, write_splits
from cxredge.train.teacher import identity, is_bundle, open_bundled, split_seed_of
from cxredge.train.unlabelled import add_unlabelled

Say = Callable[[str], None]


@dataclass(frozen=True)
class Stage:
    """A network, in evaluation mode, and the step that made it; the first one is the parent. probes: what it was pruned by."""

    name: str
    network: FilmNetwork
    probes: Sequence[Probe] = ()


def run_chain(
    where: Path, parent: Parent, data: Sequence[Path], steps: Sequence[Step], *, cache: Path, say: Say
) -> list[Stage]:
    """The parent, then the network that each step made of the one before.

    where: the parent's run or bundle. Runs of the steps are kept in `cache`, under a name that says parent, films and every step
    so far: the same chain finds them again. Raises DataError, RecipeError, CxredgeError.
    """
    stages = [Stage("full precision", parent.network)]
    said: list[object] = [identity(where), data_hash(parent.films)]
    split = {"validation_share": parent.facts["validation_share"], "split_seed": split_seed_of(parent.facts)}
    fixed = split | {"size": parent.preprocessing.size, "clahe": parent.preprocessing.clahe}
    fixed |= {"uncertain": parent.facts.get("uncertain", "ignore")}
    # A step goes on with the branch for metadata where the parent has one; its own recipe may say otherwise.
    fixed |= {"metadata": parent.network.metadata is not None}
    last: Path | None = None
    for number, step in enumerate(steps, 1):
        named: tuple[str, ...] = ()
        unlabelled: tuple[Path, ...] = ()
        if isinstance(step, Distil | Finetune):
            named, unlabelled = step.teachers, tuple(map(Path, step.unlabelled))
        elif isinstance(step, Take):
            named = (step.bundle,)
        teachers = [where if name == "parent" else Path(name) for name in named]
        said.append([step.model_dump(), [identity(teacher) for teacher in teachers]])
        if unlabelled:
            said.append(data_hash(add_unlabelled(parent.films, unlabelled)))
        key = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12]
        run = cache / "steps" / f"{number}-{step.do}-{key}"
        title = f"step {number} of {len(steps)}: {step.do}"
        if read_json(run / "run.json") is None:
            say(f"{title}, in {run}")
            if isinstance(step, Prune):
                _prune(stages[-1].network, parent, step, run, say)
            elif isinstance(step, Take):
                _take(teachers[0], parent, step, run)
            else:
                goes_on = {} if isinstance(step, Distil) else {"weights": str(last or where)}
                training = Training(**fixed | goes_on | step.training)
                fit(
                    training,
                    data,
                    run,
                    cache=cache,
                    teachers=teachers,
                    unlabelled=unlabelled,
                )
        else:
            say(f"{title}, done before in {run}")
        network, _ = load_network(run)
        stages.append(Stage(step.do, network, read(run)))
        last = run
    return stages


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
    if not is_bundle(where):
        raise RecipeError(f"{where} is no bundle: a step `take` takes the compressed network that a bundle carries")
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
