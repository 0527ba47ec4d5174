"""From floats to 8 bits: quantized alone or trained through the rounding, with what measurement says had better stay in floats."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from cxredge.compress.accuracy_control import Controlled, Trial, control
from cxredge.compress.depthwise_padding import fill_lanes
from cxredge.compress.export import Contract, Trunk, export
from cxredge.compress.feature_distance import FeatureDistance
from cxredge.compress.integer_concat import share_grid
from cxredge.compress.preactivation import absorb_norms, is_preactivated
from cxredge.compress.quantize import quantize, quantized_convolutions
from cxredge.compress.quantize_aware import export_int8, train_quantized
from cxredge.compress.recipe import AccuracyControl, Recipe
from cxredge.compress.speedup import check_promise
from cxredge.errors import CxredgeError, RecipeError
from cxredge.report.files import atomic_write
from cxredge.train.branch import MetadataBranch
from cxredge.train.network import FilmNetwork

Say = Callable[[str], None]


@dataclass(frozen=True)
class Quantizable:
    """A network ready to be quantized. gate: for the standardised features, see `preactivation.standardized`.

    full: the graph of the network it all began with, which a promised speed-up is measured against.
    """

    network: FilmNetwork
    head: nn.Conv2d
    branch: MetadataBranch | None
    gate: FeatureDistance
    size: int
    graph: Path
    full: Path

    def contract(self, trunk: nn.Module, head: nn.Conv2d, recipe: Recipe) -> Contract:
        """The contract of this network with another trunk and head."""
        return Contract(trunk, head, self.gate, self.branch, mirrored=recipe.mirrored)


@dataclass(frozen=True)
class Int8:
    """graph: what is shipped. only: rounded and not trained, where training followed. simulated: the contract whose rounding torch
    simulates, likewise. controlled: what accuracy control tried. speedup: per engine that was promised, as measured."""

    graph: Path
    only: Path | None = None
    simulated: Contract | None = None
    controlled: Controlled | None = None
    speedup: dict[str, float] | None = None


def to_int8(
    floats: Quantizable, planes: NDArray[np.uint8], calibration: NDArray[np.uint8], recipe: Recipe, out: Path, *,
    checkpoint: Path, say: Say,
) -> Int8:  # fmt: skip
    """Quantize a network as its recipe says and write the graph to `out`.

    planes: training films, uint8 [N, 1, H, W]; calibration: of them, those that set ranges where nothing is trained. checkpoint:
    file that an interrupted training goes on from, until `forget`. Raises RecipeError and SlowerThanPromisedError before anything
    is trained, and CxredgeError when convolutions came out unquantized that should not have, or all of them.
    """
    first = (recipe.quantization_aware or recipe).float_layers
    check_float_layers(first, floats.network)
    made = (
        _trained(floats, planes, recipe, out, checkpoint, say)
        if recipe.quantization_aware
        else _rounded(floats, planes, calibration, recipe, out, say)
    )
    left = {*range(first), *(made.controlled.places if made.controlled else ())}
    done, convolutions = quantized_convolutions(out)
    if not done or done != convolutions - 1 - len(left):
        raise CxredgeError(f"only {done} of {convolutions} convolutions came out quantized")
    return made


def check_float_layers(wanted: int, network: FilmNetwork) -> None:
    """Raise RecipeError where a network's first `wanted` convolutions leave none to quantize: the head is in float in any case."""
    there = sum(isinstance(layer, nn.Conv2d) for layer in network.features.modules())
    if wanted >= there:
        raise RecipeError(
            f"float_layers = {wanted} leaves nothing to quantize: a {network.architecture} has {there} convolutions before its"
            f" head; give less than {there}"
        )


def forget(checkpoint: Path) -> None:
    """Remove what an interrupted training goes on from, once what came of it is written."""
    for kept in (checkpoint, _told(checkpoint)):
        kept.unlink(missing_ok=True)


def _told(checkpoint: Path) -> Path:
    """What accuracy control chose before the training that a checkpoint is of."""
    return checkpoint.with_suffix(".control.json")


def _trained(
    floats: Quantizable, planes: NDArray[np.uint8], recipe: Recipe, out: Path, checkpoint: Path, say: Say
) -> Int8:
    assert recipe.quantization_aware is not None  # noqa: S101 - for the type checker: the caller asked
    say(f"Training through the rounding, {recipe.quantization_aware.epochs} epochs of {len(planes)} films")
    only, alike, wide = (out.with_name(f"{name}.onnx") for name in ("rounded", "alike", "wide"))
    told = _told(checkpoint)
    speedup: dict[str, float] = {}

    def rounded(trunk: nn.Module, head: nn.Conv2d) -> None:
        export_int8(trunk, head, floats.gate, floats.size, only, floats.branch, mirrored=recipe.mirrored)
        # Training changes no layer: what is too slow now would be too slow after it.
        fill_lanes(only, wide)
        speedup.update(check_promise(recipe.speedup, floats.full, wide, planes))

    def choose(trunk: Trunk) -> Sequence[int]:
        if recipe.accuracy_control is None:
            return ()
        # The very weights that were rounded: equalized channels are not those of the network that came in.
        export(floats.contract(trunk, floats.head, recipe), floats.size, alike)
        found = _controlled(recipe.accuracy_control, alike, only, planes, say)
        told.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(told) as out_of:
            out_of.write(json.dumps(asdict(found)))
        return found.places

    aware = train_quantized(
        floats.network, floats.head, planes, recipe.quantization_aware,
        checkpoint=checkpoint, rounded=rounded, choose=choose, say=say,
    )  # fmt: skip
    export_int8(*aware, floats.gate, floats.size, out, floats.branch, mirrored=recipe.mirrored)
    for graph in (only, out):
        fill_lanes(graph, graph)
    # From the file, since a training that was interrupted chose before.
    controlled = _read(told) if recipe.accuracy_control else None
    return Int8(out, only, floats.contract(*aware, recipe).eval(), controlled, speedup)


def _rounded(
    floats: Quantizable, planes: NDArray[np.uint8], calibration: NDArray[np.uint8], recipe: Recipe, out: Path, say: Say
) -> Int8:
    say(f"Quantizing, {len(calibration)} calibration films")
    graph = floats.graph
    if is_preactivated(floats.network):
        graph = out.with_name("absorbed.onnx")
        export(floats.contract(Trunk(absorb_norms(floats.network)), floats.head, recipe), floats.size, graph)
    places, controlled = set(range(recipe.float_layers)), None
    quantize(graph, out, calibration, percentile=recipe.percentile, float_layers=sorted(places))
    if recipe.accuracy_control:
        controlled = _controlled(recipe.accuracy_control, graph, out, planes, say)
        places |= set(controlled.places)
        quantize(graph, out, calibration, percentile=recipe.percentile, float_layers=sorted(places))
    share_grid(out)
    fill_lanes(out, out)
    return Int8(out, controlled=controlled, speedup=check_promise(recipe.speedup, floats.full, out, planes))


def _controlled(limits: AccuracyControl, full: Path, int8: Path, planes: NDArray[np.uint8], say: Say) -> Controlled:
    """Accuracy control on some of the training films, with its progress on the screen."""
    rows = np.sort(np.random.default_rng(1).choice(len(planes), min(limits.films, len(planes)), replace=False))
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("Convolutions out of the rounding, one by one", total=None)
        found = control(
            full, int8, planes[rows], limits, tick=lambda done, tries: bar.update(task, completed=done, total=tries)
        )
    kept = [trial.layer for trial in found.trials if trial.kept]
    say(
        f"In floats by measurement: {', '.join(kept) or 'none'}; logits are {found.after:.3f} from full precision"
        f" instead of {found.before:.3f}, before training"
    )
    return found


def _read(told: Path) -> Controlled:
    said = json.loads(told.read_text(encoding="utf-8"))
    return Controlled(said["before"], said["after"], tuple(Trial(**trial) for trial in said["trials"]))
