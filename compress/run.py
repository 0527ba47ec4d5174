"""From a finished run to a bundle: export, quantize, calibrate, measure, write."""

import hashlib
import io
import json
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from cxredge import __version__
from cxredge.bundle import Bundle, Manifest, open_bundle, write_bundle
from cxredge.bundle.bundle import check_output
from cxredge.bundle.manifest import Gate, PreprocessingRecord, Training
from cxredge.compress.accuracy_control import Controlled
from cxredge.compress.calibrate import platt
from cxredge.compress.chain import run_chain
from cxredge.compress.costs import Films, report_costs
from cxredge.compress.export import Contract, Trunk, branch_for, export, fold_calibration, head_for, store_half
from cxredge.compress.family import for_tensorrt, write_family
from cxredge.compress.feature_distance import features, fit_feature_distance
from cxredge.compress.parent import open_parent
from cxredge.compress.preactivation import standardized
from cxredge.compress.recard import recard
from cxredge.compress.recipe import Recipe
from cxredge.compress.records import accuracy_record, film_counts, finding_records, score, unnamed_patients
from cxredge.compress.steps import Take
from cxredge.compress.to_int8 import Quantizable, forget, to_int8
from cxredge.compress.tolerance import MOVED_LESS, tolerance
from cxredge.devices import read_profile
from cxredge.errors import DataError, TooFewFilmsError
from cxredge.imaging.preprocess import describe
from cxredge.metrics import proportion
from cxredge.train import sources
from cxredge.train.network import FilmNetwork
from cxredge.train.run_folder import data_hash

# Chest films of validation that the network's distance alone may turn away; the other checks take their share too.
GATE_REFUSES = 0.0025
# Of validation films, those that leave no doubt, and those that look typical.
BEYOND_DOUBT, TYPICAL = 0.95, 0.5
Say = Callable[[str], None]


def compress(
    run: Path, data: list[Path], recipe: Recipe, out: Path, *, report: Path, cache: Path, say: Say = print
) -> Bundle:
    """Take the network of a run, or a bundle's full-precision one, through the recipe's steps and to INT8; write a bundle with
    what was measured of both, and into `report` what each step cost.

    Everything chosen is chosen on training and validation films; the test films are only looked at, once, at the end.
    Raises OutputError where no bundle may be written to `out`, DataError when data and run do not belong together, CxredgeError
    when the graph came out unquantized.
    """
    # What would only fail at the end, after hours, fails at once.
    check_output(out)
    parent = open_parent(run, data, cache)
    films, planes, rows = parent.films, parent.planes, parent.rows
    own = films.take(films.sources == recipe.source)
    if not len(own.names):
        raise DataError(
            f"recipe {recipe.name} makes a bundle for the findings of {recipe.source}, and the films given are of"
            f" {', '.join(sorted(set(films.sources)))}; give a --recipe whose `source` is one of these"
        )
    for split in ("train", "validation", "test"):
        own.split(split)  # each is needed; raises DataError, with its name, where the data given hold none
    carried = _carried(own, recipe)
    if unknown := [films.findings[i] for i in carried if cast(Tensor, parent.network.head.bias)[i].isnan()]:
        raise DataError(f"{run} knows nothing of {', '.join(unknown)}, which {recipe.source} is labelled with")
    _check_judgeable(own, carried)
    rng = np.random.default_rng(0)
    typical = np.concatenate(
        [_some(rng, rows("train", source), recipe.gate_films) for source in sorted(set(films.sources))]
    )
    if len(typical) <= recipe.gate_components:
        raise TooFewFilmsError(
            f"{len(typical)} training films for the {recipe.gate_components} components of the gate; give more films, or in the"
            " recipe more `gate_films` or fewer `gate_components`"
        )
    first = (recipe.quantization_aware or recipe).float_layers
    stages = run_chain(run, parent, data, recipe.steps, cache=cache, say=say, float_layers=first)
    network = stages[-1].network

    with tempfile.TemporaryDirectory() as scratch:
        fp32, int8 = Path(scratch) / "fp32.onnx", Path(scratch) / "model.onnx"
        stored_full, stored_float = Path(scratch) / "model.fp32.onnx", Path(scratch) / "model.float.onnx"
        say("Fitting the gate on training films")
        gate = fit_feature_distance(features(network, planes[typical]), recipe.gate_components)
        head, branch = head_for(network, carried), branch_for(network, carried)
        size, mirrored = parent.preprocessing.size, recipe.mirrored
        floats = [Path(scratch) / f"stage-{i}.onnx" for i in range(len(stages) - 1)] + [fp32]
        for stage, graph in zip(stages[:-1], floats, strict=False):
            net = stage.network
            # Only the logits of these are looked at, so a gate of few films will do.
            its_gate = fit_feature_distance(
                features(net, planes[typical[: 4 * recipe.gate_components]]), recipe.gate_components
            )
            its_branch = branch_for(net, carried)
            export(Contract(Trunk(net), head_for(net, carried), its_gate, its_branch, mirrored=mirrored), size, graph)
        export(Contract(Trunk(network), head, gate, branch, mirrored=mirrored), size, fp32)
        taught = rows("train", recipe.source)
        # Where training sets the ranges too, it draws its own films.
        calibrating = taught[:0] if recipe.quantization_aware else _some(rng, taught, recipe.calibration_films)
        tensorrt = Path(scratch) / "tensorrt.onnx" if "tensorrt" in recipe.export else None
        if tensorrt:
            # Before hours of training: a graph that TensorRT refuses is refused now.
            say("Writing the graph for TensorRT")
            wanted = (recipe.quantization_aware or recipe).calibration_films
            its_films = _some(np.random.default_rng(2), taught, wanted)
            for_tensorrt(fp32, tensorrt, planes[its_films])
        checkpoint = cache / f"aware-{_key(network, recipe, films, carried)}.ckpt"
        made = to_int8(
            Quantizable(network, head, branch, standardized(network, gate), size, fp32, floats[0]),
            planes[taught], planes[calibrating], recipe, int8,
            checkpoint=checkpoint, say=say,
        )  # fmt: skip
        graphs = [*floats, *([made.only] if made.only else []), int8]

        names = tuple(films.findings[i] for i in carried)
        validation, test = rows("validation", recipe.source), rows("test", recipe.source)
        # What nobody labelled is not measured on, and not counted as if it were.
        test = test[~np.isnan(films.labels[test][:, carried]).all(1)]
        known, truth = (films.labels[which][:, carried].astype(np.float64) for which in (validation, test))
        for graph in [*([tensorrt] if tensorrt else []), *graphs]:
            calibration = platt(known, score(graph, planes[validation]).logits)
            fold_calibration(graph, *calibration)
        # What is measured as the parent is the very file that the bundle carries.
        store_half(floats[0], stored_full)
        store_half(fp32, stored_float)
        say("Measuring on validation and test films through ONNX Runtime")
        on_validation = score(int8, planes[validation])
        full, small = score(stored_full, planes[test]), score(int8, planes[test])
        everyone = score(int8, planes[rows("validation")]).atypicality
        typical_far, doubt, threshold = np.quantile(everyone, (TYPICAL, BEYOND_DOUBT, 1 - GATE_REFUSES)).tolist()
        moved = np.abs(on_validation.logits - score(stored_full, planes[validation]).logits)
        refused = {}
        for source in sorted(set(films.sources[films.splits == "test"])):
            there = rows("test", source)
            refused[source] = proportion(score(int8, planes[there]).atypicality > threshold, films.patients[there])
        stored = io.BytesIO()
        images = planes[_some(rng, validation, recipe.reference_films)]
        built = score(int8, images)
        np.savez_compressed(
            stored,
            images=images,
            logits=built.logits.astype(np.float32),
            atypicality=built.atypicality.astype(np.float32),
            full=score(stored_full, images).logits.astype(np.float32),
            float=score(stored_float, images).logits.astype(np.float32),
        )

        records = finding_records(
            names,
            recipe,
            known,
            on_validation.probabilities,
            truth,
            full.logits,
            small.logits,
            np.quantile(moved, MOVED_LESS, axis=0),
            validated=films.patients[validation],
            tested=films.patients[test],
        )
        accuracy = accuracy_record(truth, full, small, films.patients[test], records, recipe.source)

        def described(hashes: dict[str, str]) -> Manifest:
            return Manifest(
                schema_version=1,
                name=recipe.name,
                title=recipe.title,
                version=recipe.version,
                architecture=network.architecture,
                precision="int8",
                findings=records,
                preprocessing=PreprocessingRecord(**describe(parent.preprocessing)),
                target="generic",
                runtimes=read_profile("generic").runtimes,
                model="model.onnx",
                full_model="model.fp32.onnx",
                float_model="model.float.onnx" if recipe.steps else None,
                files=hashes,
                accuracy=accuracy,
                gate=Gate(threshold=threshold, typical=typical_far, doubt=doubt, refused=refused),
                population_ages=recipe.population_ages,
                tolerance=tolerance(int8, images, built.logits.astype(np.float32)),
                training=Training(
                    sources=recipe.sources,
                    licence=recipe.licence,
                    history=recipe.history,
                    population=" ".join([recipe.population, *unnamed_patients(films)]),
                    films=film_counts(films),
                    recipe=parent.facts | _compressed_how(run, recipe, made.controlled),
                ),
                software={
                    "cxredge": __version__,
                    "torch": torch.__version__.split("+")[0],
                    "onnx": onnx.__version__,
                    "onnxruntime": onnxruntime.__version__,
                    "python": platform.python_version(),
                },
                intended_use=recipe.intended_use,
                steps=steps,
            )

        files: dict[str, Path | bytes] = {
            "model.onnx": int8,
            "model.fp32.onnx": stored_full,
            "reference.npz": stored.getvalue(),
        }
        if recipe.steps:
            files["model.float.onnx"] = stored_float
        say(f"Measuring every step, for the report in {report}")
        carried_as = {floats[0]: stored_full, fp32: stored_float}
        family = write_family(
            report / "graphs", fp32, int8, recipe.export, tensorrt,
            planes=planes[test], truth=truth, patients=films.patients[test], parent=full.logits,
        )  # fmt: skip
        steps = report_costs(
            report, f"{recipe.title}, {recipe.version}", recipe.source, [(graph, carried_as.get(graph, graph)) for graph in graphs],
            stages, made, calibration, names, Films(planes[test], truth, films.patients[test]),
            Films(planes[validation], known, films.patients[validation]), [films.files[i] for i in test], parent.preprocessing,
            views=1 + mirrored, family=family,
        )  # fmt: skip
        say("Measuring subgroups and calibration on test films, for the card")
        bundle = recard(write_bundle(Path(scratch) / recipe.name, files, described), data, out)
        # Not before: a kill while all this is measured costs no training.
        forget(checkpoint)
        return bundle


def _carried(own: sources.Films, recipe: Recipe) -> list[int]:
    """Columns of the findings to carry. own: the films of the recipe's source.

    Raises DataError for a finding that they do not label, and for an urgent one that is not carried.
    """
    labelled = [name for i, name in enumerate(own.findings) if not np.isnan(own.labels[:, i]).all()]
    if unknown := sorted(set(recipe.findings) - set(labelled)):
        raise DataError(f"{recipe.source} is not labelled with {', '.join(unknown)}, which recipe {recipe.name} names")
    carried = [name for name in labelled if not recipe.findings or name in recipe.findings]
    if unknown := sorted(set(recipe.urgent) - set(carried)):
        raise DataError(
            f"recipe {recipe.name} calls {', '.join(unknown)} urgent, which is none of the findings carried: {', '.join(carried)}"
        )
    return [own.findings.index(name) for name in carried]


def _check_judgeable(own: sources.Films, carried: list[int]) -> None:
    """Raise TooFewFilmsError for findings that could not be judged in the end. own: the films of the recipe's source."""
    for split in ("validation", "test"):
        labels = own.split(split).labels[:, carried]
        one_sided = ((labels == 1).sum(0) == 0) | ((labels == 0).sum(0) == 0)
        if one_sided.any():
            names = ", ".join(own.findings[carried[i]] for i in np.flatnonzero(one_sided))
            raise TooFewFilmsError(
                f"{names}: the {split} films must hold some with and some without it; give more films, or name in the recipe, as"
                " `findings`, those to carry"
            )


def _key(network: FilmNetwork, recipe: Recipe, films: sources.Films, carried: list[int]) -> str:
    """Names an interrupted training by the weights it begins with, however they came about, its films and the way it trains.

    carried: columns of the findings.
    """
    said = [
        hashlib.sha256(save({name: values.contiguous() for name, values in network.state_dict().items()})).hexdigest(),
        recipe.source,
        data_hash(films.take(films.splits != "test")),
        [films.findings[i] for i in carried],
        recipe.model_dump(include={"quantization_aware", "accuracy_control", "mirrored"}),
    ]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def _compressed_how(run: Path, recipe: Recipe, controlled: Controlled | None) -> dict[str, object]:
    """What a manifest says of the compression; before a network that was taken from a bundle, the steps that made it there."""
    keys = {"quantization_aware"} if recipe.quantization_aware else {"percentile", "float_layers", "calibration_films"}
    keys |= {key for key in ("steps", "mirrored", "accuracy_control") if getattr(recipe, key)}
    chosen = {"left_in_float": [trial.layer for trial in controlled.trials if trial.kept]} if controlled else {}
    told = recipe.model_dump(include=keys) | chosen
    if recipe.steps and isinstance(take := recipe.steps[0], Take):
        taken = open_bundle(run if take.bundle == "parent" else Path(take.bundle)).manifest.training.recipe
        told["steps"] = [*cast(list[object], taken.get("steps", [])), *told["steps"]]
    return told


def _some(rng: np.random.Generator, rows: NDArray[np.intp], wanted: int) -> NDArray[np.intp]:
    """A seeded choice of rows, in order; all of them where there are fewer than wanted."""
    return np.sort(rng.choice(rows, min(wanted, len(rows)), replace=False))
