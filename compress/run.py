"""From a finished run to a bundle: export, quantize, calibrate, measure, write."""

import io
import json
import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from cxredge import __version__
from cxredge.bundle import Bundle, Manifest, write_bundle
from cxredge.bundle.bundle import sha256_of
from cxredge.bundle.manifest import Accuracy, Finding, PreprocessingRecord, Tolerance, Training
from cxredge.bundle.manifest import Gate as GateRecord
from cxredge.compress.calibrate import platt
from cxredge.compress.card import model_card
from cxredge.compress.export import export_fp32, fold_calibration
from cxredge.compress.gate import fit_gate
from cxredge.compress.quantize import quantize, quantized_convolutions
from cxredge.compress.recipe import Recipe
from cxredge.errors import CxredgeError, DataError, TooFewFilmsError
from cxredge.imaging import Preprocessing
from cxredge.imaging.preprocess import describe
from cxredge.metrics import (
    auroc_drift,
    auroc_interval,
    mean_auroc_interval,
    sensitivity_point,
    specificity_point,
    wilson,
    youden_point,
)
from cxredge.runtimes import Artifact, runtime
from cxredge.train.films import augment, cached_planes
from cxredge.train.network import FilmNetwork, load_network
from cxredge.train.sources import Films, join, read_source
from cxredge.train.teacher import splits_of

EXPERIMENTAL_BELOW = 0.70
# Chest films of validation that the gate may turn away.
GATE_REFUSES = 0.005
Say = Callable[[str], None]


@dataclass(frozen=True)
class Scores:
    """What a graph says of N films through ONNX Runtime: logits float64 [N, L], atypicality float64 [N]."""

    logits: NDArray[np.float64]
    atypicality: NDArray[np.float64]

    @property
    def probabilities(self) -> NDArray[np.float64]:
        return 1 / (1 + np.exp(-self.logits))


def compress(run: Path, data: list[Path], recipe: Recipe, out: Path, *, cache: Path, say: Say = print) -> Bundle:
    """Quantize a run's network to INT8 and write its bundle, with what was measured of both.

    Everything chosen is chosen on training and validation films; the test films are only looked at, once, at the end.
    Raises DataError when data and run do not belong together, CxredgeError when the graph came out unquantized.
    """
    network, findings = load_network(run)
    films = _as_split(join([read_source(folder) for folder in data]), run)
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    own = films.take(films.sources == recipe.source)
    for split in ("train", "validation", "test"):
        own.split(split)  # each is needed; raises DataError, with its name, where the data given hold none
    carried = [i for i, finding in enumerate(films.findings) if not np.isnan(own.labels[:, i]).all()]
    if not carried or findings != films.findings:
        raise DataError(
            f"{run} was trained on findings {', '.join(findings)}; the data given hold {', '.join(films.findings)}"
        )
    preprocessing = Preprocessing(**facts["preprocessing"])
    planes = cached_planes(films.files, preprocessing, cache)

    def rows(split: str, source: str | None = None) -> NDArray[np.intp]:
        return np.flatnonzero((films.splits == split) & ((films.sources == source) if source else True))

    with tempfile.TemporaryDirectory() as scratch:
        fp32, int8 = Path(scratch) / "model.fp32.onnx", Path(scratch) / "model.onnx"
        say("Fitting the gate on training films")
        rng = np.random.default_rng(0)
        typical = np.concatenate(
            [_some(rng, rows("train", source), recipe.gate_films) for source in sorted(set(films.sources))]
        )
        gate = fit_gate(_features(network, planes[typical]), recipe.gate_components)
        export_fp32(network, carried, gate, preprocessing.size, fp32)
        say(f"Quantizing, {recipe.calibration_films} calibration films")
        chosen = _some(rng, rows("train", recipe.source), recipe.calibration_films)
        quantize(fp32, int8, planes[chosen], percentile=recipe.percentile, float_layers=recipe.float_layers)
        done, convolutions = quantized_convolutions(int8)
        if done != convolutions - 1 - recipe.float_layers:
            raise CxredgeError(f"only {done} of {convolutions} convolutions came out quantized")

        validation, test = rows("validation", recipe.source), rows("test", recipe.source)
        known, truth = (films.labels[which][:, carried].astype(np.float64) for which in (validation, test))
        for graph in (fp32, int8):
            scale, bias = platt(known, score(graph, planes[validation]).logits)
            fold_calibration(graph, scale, bias)
        say("Measuring on validation and test films through ONNX Runtime")
        on_validation = score(int8, planes[validation])
        full, small = score(fp32, planes[test]), score(int8, planes[test])
        everyone = score(int8, planes[rows("validation")]).atypicality
        threshold = float(np.quantile(everyone, 1 - GATE_REFUSES))
        refused = {}
        for source in sorted(set(films.sources)):
            away = score(int8, planes[rows("test", source)]).atypicality > threshold
            refused[source] = wilson(int(away.sum()), len(away))
        stored = io.BytesIO()
        images = planes[_some(rng, validation, recipe.reference_films)]
        built = score(int8, images).logits.astype(np.float32)
        np.savez_compressed(stored, images=images, logits=built, full=score(fp32, images).logits.astype(np.float32))

        records = _findings(
            tuple(films.findings[i] for i in carried),
            recipe,
            known,
            on_validation.probabilities,
            truth,
            full.logits,
            small.logits,
        )
        accuracy = _accuracy(truth, full, small, films.patients[test], records, recipe.source)

        def described(hashes: dict[str, str]) -> Manifest:
            return Manifest(
                schema_version=1,
                name=recipe.name,
                title=recipe.title,
                version=recipe.version,
                architecture=network.architecture,
                precision="int8",
                findings=records,
                preprocessing=PreprocessingRecord(**describe(preprocessing)),
                target="generic",
                runtimes=("onnxruntime",),
                model="model.onnx",
                files=hashes,
                accuracy=accuracy,
                gate=GateRecord(threshold=threshold, refused=refused),
                tolerance=_tolerance(int8, images, built),
                training=Training(
                    sources=recipe.sources,
                    licence=recipe.licence,
                    history=recipe.history,
                    population=recipe.population,
                    films=_counts(films),
                    recipe=facts
                    | {
                        "percentile": recipe.percentile,
                        "float_layers": recipe.float_layers,
                        "calibration_films": recipe.calibration_films,
                    },
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

        files: dict[str, Path | bytes] = {"model.onnx": int8, "reference.npz": stored.getvalue()}
        files["MODEL_CARD.md"] = model_card(
            described({"model.onnx": sha256_of(int8)}), fp32.stat().st_size, int8.stat().st_size
        ).encode()
        return write_bundle(out, files, described)


def _some(rng: np.random.Generator, rows: NDArray[np.intp], wanted: int) -> NDArray[np.intp]:
    """A seeded choice of rows, in order; all of them where there are fewer than wanted."""
    return np.sort(rng.choice(rows, min(wanted, len(rows)), replace=False))


def score(graph: Path, planes: NDArray[np.uint8], *, threads: int = 2) -> Scores:
    """Run films one at a time, as a clinic does. planes: uint8 [N, 1, H, W]."""
    engine = runtime("onnxruntime")
    session = engine.load(Artifact("onnxruntime", graph), threads)
    outputs = [session.run(np.ascontiguousarray(plane[None])) for plane in planes]
    session.close()
    logits = np.concatenate([output.logits for output in outputs]).astype(np.float64)
    far = np.concatenate([output.atypicality for output in outputs if output.atypicality is not None]).astype(
        np.float64
    )
    return Scores(logits, far)


@torch.no_grad()
def _features(network: FilmNetwork, planes: NDArray[np.uint8], batch: int = 32) -> NDArray[np.float32]:
    """Pooled features halfway of films as they are and augmented, float32 [2 N, C]. planes: uint8 [N, 1, H, W]."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for films in torch.from_numpy(planes).split(batch):
        parts += [network.stages(view)[0].numpy() for view in (films, augment(films, generator))]
    return np.concatenate(parts)


def _as_split(films: Films, run: Path) -> Films:
    """The films with the splits of the run, so that no validation film of it is taken for a training one."""
    said = {(row["source"], row["file"]): row["split"] for row in splits_of(run)}
    splits = films.splits.astype("U10")
    for i, (file, source) in enumerate(zip(films.files, films.sources, strict=True)):
        if splits[i] != "test":
            if (source, file.name) not in said:
                raise DataError(f"{file}: not among the films that {run} was trained on; give the same --data")
            splits[i] = said[source, file.name]
    return replace(films, splits=splits)


def _findings(
    names: tuple[str, ...], recipe: Recipe, known: NDArray[np.float64], on_validation: NDArray[np.float64],
    truth: NDArray[np.float64], full: NDArray[np.float64], small: NDArray[np.float64],
) -> tuple[Finding, ...]:  # fmt: skip
    records = []
    for i, name in enumerate(names):
        for split, labels in (("validation", known[:, i]), ("test", truth[:, i])):
            if not 0 < np.nansum(labels) < np.isfinite(labels).sum():
                raise TooFewFilmsError(f"{name}: the {split} films must hold some with and some without it")
        area = auroc_interval(known[:, i], on_validation[:, i])
        records.append(
            Finding(
                name=name,
                urgent=name in recipe.urgent,
                experimental=area.low < EXPERIMENTAL_BELOW,
                validation_auroc=area,
                test_auroc=auroc_interval(truth[:, i], small[:, i]),
                test_positives=int(truth[:, i].sum()),
                drift=auroc_drift(truth[:, i], full[:, i], small[:, i]),
                sensitive=sensitivity_point(known[:, i], on_validation[:, i]),
                balanced=youden_point(known[:, i], on_validation[:, i]),
                specific=specificity_point(known[:, i], on_validation[:, i]),
            )
        )
    return tuple(records)


def _accuracy(
    truth: NDArray[np.float64],
    full: Scores,
    small: Scores,
    patients: NDArray[np.str_],
    records: tuple[Finding, ...],
    source: str,
) -> Accuracy:
    thresholds = np.array([record.balanced.threshold for record in records])
    flipped = float(((full.probabilities >= thresholds) != (small.probabilities >= thresholds)).mean())
    return Accuracy(
        films=len(truth),
        patients=len(set(patients)),
        full=mean_auroc_interval(truth, full.logits, patients),
        compressed=mean_auroc_interval(truth, small.logits, patients),
        drift=mean_auroc_interval(truth, small.logits, patients, baseline=full.logits),
        flipped=flipped,
        source=f"{source} test",
        runtime=f"onnxruntime {onnxruntime.__version__}",
    )


def _tolerance(graph: Path, images: NDArray[np.uint8], logits: NDArray[np.float32]) -> Tolerance:
    """Three times what two honest ways of computing the same graph differ by: fused integer kernels, and float ones."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    off = np.abs(np.concatenate([plain.run(["logits"], {"image": image[None]})[0] for image in images]) - logits)
    return Tolerance(mean=max(0.02, 3 * float(off.mean())), largest=max(0.1, 3 * float(off.max())))


def _counts(films: Films) -> dict[str, dict[str, int]]:
    return {
        str(source): {
            split: int(((films.sources == source) & (films.splits == split)).sum())
            for split in ("train", "validation", "test")
        }
        for source in sorted(set(films.sources))
    }
