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
from torch import Tensor

from cxredge import __version__
from cxredge.bundle import Bundle, Manifest, write_bundle
from cxredge.bundle.bundle import sha256_of
from cxredge.bundle.manifest import Gate as GateRecord
from cxredge.bundle.manifest import PreprocessingRecord, Training
from cxredge.compress.calibrate import platt
from cxredge.compress.card import model_card
from cxredge.compress.export import Contract, Trunk, export, fold_calibration, head_for, store_half
from cxredge.compress.gate import fit_gate
from cxredge.compress.parent import open_parent
from cxredge.compress.quantize import quantize, quantized_convolutions
from cxredge.compress.quantize_aware import export_int8, train_quantized
from cxredge.compress.recipe import Recipe
from cxredge.compress.records import accuracy_record, film_counts, finding_records, score
from cxredge.compress.tolerance import tolerance
from cxredge.errors import CxredgeError, DataError
from cxredge.imaging.preprocess import describe
from cxredge.metrics import (
    wilson,
)
from cxredge.train.films import augment
from cxredge.train.network import FilmNetwork
from cxredge.train.teacher import identity

# Chest films of validation that the network's distance alone may turn away; the other checks take their share too.
GATE_REFUSES = 0.0025
# Of validation films, those that leave no doubt, and those that look typical.
BEYOND_DOUBT, TYPICAL = 0.95, 0.5
# Of validation films, those whose logit compression moved by less than what a finding's `rounding` says.
MOVED_LESS = 0.95
Say = Callable[[str], None]


def compress(run: Path, data: list[Path], recipe: Recipe, out: Path, *, cache: Path, say: Say = print) -> Bundle:
    """Quantize the network of a run, or a bundle's full-precision one, to INT8; write a bundle with what was measured of both.

    Everything chosen is chosen on training and validation films; the test films are only looked at, once, at the end.
    Raises DataError when data and run do not belong together, CxredgeError when the graph came out unquantized.
    """
    parent = open_parent(run, data, cache)
    network, films, planes, rows = parent.network, parent.films, parent.planes, parent.rows
    own = films.take(films.sources == recipe.source)
    for split in ("train", "validation", "test"):
        own.split(split)  # each is needed; raises DataError, with its name, where the data given hold none
    carried = [i for i, _ in enumerate(films.findings) if not np.isnan(own.labels[:, i]).all()]
    if unknown := [films.findings[i] for i in carried if cast(Tensor, network.head.bias)[i].isnan()]:
        raise DataError(f"{run} knows nothing of {', '.join(unknown)}, which {recipe.source} is labelled with")

    with tempfile.TemporaryDirectory() as scratch:
        fp32, int8 = Path(scratch) / "fp32.onnx", Path(scratch) / "model.onnx"
        stored_full = Path(scratch) / "model.fp32.onnx"
        say("Fitting the gate on training films")
        rng = np.random.default_rng(0)
        typical = np.concatenate(
            [_some(rng, rows("train", source), recipe.gate_films) for source in sorted(set(films.sources))]
        )
        gate = fit_gate(_features(network, planes[typical]), recipe.gate_components)
        head = head_for(network, carried)
        export(Contract(Trunk(network), head, gate), parent.preprocessing.size, fp32)
        taught = rows("train", recipe.source)
        if recipe.quantization_aware:
            say(f"Training through the rounding, {recipe.quantization_aware.epochs} epochs of {len(taught)} films")
            trunk, head = train_quantized(
                network,
                head,
                planes[taught],
                recipe.quantization_aware,
                checkpoint=cache / f"aware-{_key(run, recipe)}.ckpt",
            )
            export_int8(trunk, head, gate, parent.preprocessing.size, int8)
            left_in_float = 1
        else:
            say(f"Quantizing, {recipe.calibration_films} calibration films")
            chosen = _some(rng, taught, recipe.calibration_films)
            quantize(fp32, int8, planes[chosen], percentile=recipe.percentile, float_layers=recipe.float_layers)
            left_in_float = recipe.float_layers
        done, convolutions = quantized_convolutions(int8)
        if done != convolutions - 1 - left_in_float:
            raise CxredgeError(f"only {done} of {convolutions} convolutions came out quantized")

        validation, test = rows("validation", recipe.source), rows("test", recipe.source)
        known, truth = (films.labels[which][:, carried].astype(np.float64) for which in (validation, test))
        for graph in (fp32, int8):
            scale, bias = platt(known, score(graph, planes[validation]).logits)
            fold_calibration(graph, scale, bias)
        # What is measured as the parent is the very file that the bundle carries.
        store_half(fp32, stored_full)
        say("Measuring on validation and test films through ONNX Runtime")
        on_validation = score(int8, planes[validation])
        full, small = score(stored_full, planes[test]), score(int8, planes[test])
        everyone = score(int8, planes[rows("validation")]).atypicality
        typical_far, doubt, threshold = np.quantile(everyone, (TYPICAL, BEYOND_DOUBT, 1 - GATE_REFUSES)).tolist()
        moved = np.abs(on_validation.logits - score(stored_full, planes[validation]).logits)
        refused = {}
        for source in sorted(set(films.sources)):
            away = score(int8, planes[rows("test", source)]).atypicality > threshold
            refused[source] = wilson(int(away.sum()), len(away))
        stored = io.BytesIO()
        images = planes[_some(rng, validation, recipe.reference_films)]
        built = score(int8, images)
        np.savez_compressed(
            stored,
            images=images,
            logits=built.logits.astype(np.float32),
            atypicality=built.atypicality.astype(np.float32),
            full=score(stored_full, images).logits.astype(np.float32),
        )

        records = finding_records(
            tuple(films.findings[i] for i in carried),
            recipe,
            known,
            on_validation.probabilities,
            truth,
            full.logits,
            small.logits,
            np.quantile(moved, MOVED_LESS, axis=0),
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
                runtimes=("onnxruntime",),
                model="model.onnx",
                full_model="model.fp32.onnx",
                files=hashes,
                accuracy=accuracy,
                gate=GateRecord(threshold=threshold, typical=typical_far, doubt=doubt, refused=refused),
                population_ages=recipe.population_ages,
                tolerance=tolerance(int8, images, built.logits.astype(np.float32)),
                training=Training(
                    sources=recipe.sources,
                    licence=recipe.licence,
                    history=recipe.history,
                    population=recipe.population,
                    films=film_counts(films),
                    recipe=parent.facts | _quantized_how(recipe),
                ),
                software={
                    "cxredge": __version__,
                    "torch": torch.__version__.split("+")[0],
                    "onnx": onnx.__version__,
                    "onnxruntime": onnxruntime.__version__,
                    "python": platform.python_version(),
                },
                intended_use=recipe.intended_use,
            )

        files: dict[str, Path | bytes] = {
            "model.onnx": int8,
            "model.fp32.onnx": stored_full,
            "reference.npz": stored.getvalue(),
        }
        hashes = {name: sha256_of(path) for name, path in files.items() if isinstance(path, Path)}
        files["MODEL_CARD.md"] = model_card(described(hashes), fp32.stat().st_size, int8.stat().st_size).encode()
        return write_bundle(out, files, described)


def _key(run: Path, recipe: Recipe) -> str:
    """Names an interrupted training by what it trains and how."""
    said = [identity(run), recipe.source, recipe.model_dump()["quantization_aware"]]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def _quantized_how(recipe: Recipe) -> dict[str, object]:
    if recipe.quantization_aware:
        return {"quantization_aware": recipe.quantization_aware.model_dump()}
    return recipe.model_dump(include={"percentile", "float_layers", "calibration_films"})


def _some(rng: np.random.Generator, rows: NDArray[np.intp], wanted: int) -> NDArray[np.intp]:
    """A seeded choice of rows, in order; all of them where there are fewer than wanted."""
    return np.sort(rng.choice(rows, min(wanted, len(rows)), replace=False))


@torch.no_grad()
def _features(network: FilmNetwork, planes: NDArray[np.uint8], batch: int = 32) -> NDArray[np.float32]:
    """Pooled features halfway of films as they are and augmented, float32 [2 N, C]. planes: uint8 [N, 1, H, W]."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for films in torch.from_numpy(planes).split(batch):
        parts += [network.stages(view)[0].numpy() for view in (films, augment(films, generator))]
    return np.concatenate(parts)
