"""A plausible run: a manifest, a summary and readings, with pictures of the real films in examples/."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cxredge.bundle.manifest import (
    Accuracy,
    Finding,
    Gate,
    Manifest,
    PreprocessingRecord,
    Tolerance,
    Training,
)
from cxredge.imaging import Film, Preprocessing, read_film
from cxredge.imaging.overlay import heat_maps, thumbnail
from cxredge.metrics import Interval, OperatingPoint
from cxredge.scan.decide import decide
from cxredge.scan.explain import explained
from cxredge.scan.reading import ORDER, Priority, Reading, Status
from cxredge.scan.scanner import Pictures
from cxredge.scan.summary import Latency, Summary

EXAMPLES = Path(__file__).parents[2] / "examples"
SHA256 = "3f9c" * 16
# name, urgent, positives among 1024 test films, AUROC, threshold
FINDINGS = (
    ("Atelectasis", False, 212, 0.74, 0.22),
    ("Cardiomegaly", False, 74, 0.86, 0.08),
    ("Effusion", True, 203, 0.83, 0.21),
    ("Mass", False, 116, 0.71, 0.12),
    ("Nodule", False, 118, 0.66, 0.13),
    ("Pneumonia", True, 61, 0.68, 0.07),
    ("Pneumothorax", True, 138, 0.81, 0.14),
    ("Edema", True, 40, 0.84, 0.05),
    ("Hernia", False, 26, 0.72, 0.02),
    ("Pleural_Thickening", False, 66, 0.72, 0.07),
)


def _about(value: float, n: int) -> Interval:
    half = 0.5 / n**0.5
    return Interval(value, max(0.0, value - half), min(1.0, value + half))


def _point(threshold: float, sensitivity: float, specificity: float, positives: int) -> OperatingPoint:
    negatives = 1000 - positives
    return OperatingPoint(
        threshold, _about(sensitivity, positives), _about(specificity, negatives), positives, negatives
    )


@pytest.fixture
def manifest() -> Manifest:
    return build_manifest()


def build_manifest() -> Manifest:
    preprocessing = Preprocessing()
    findings = tuple(
        Finding(
            name=name,
            urgent=urgent,
            experimental=auroc - 0.5 / positives**0.5 < 0.63,
            validation_auroc=_about(auroc + 0.01, positives),
            test_auroc=_about(auroc, positives),
            test_positives=positives,
            drift=Interval(-0.3 / positives, -0.1 / positives**0.5, 0.06 / positives**0.5),
            sensitive=_point(threshold / 2, 0.9, 0.5, positives),
            balanced=_point(threshold, auroc - 0.02, auroc - 0.05, positives),
            specific=_point(threshold * 2, 0.4, 0.95, positives),
        )
        for name, urgent, positives, auroc, threshold in FINDINGS
    )
    return Manifest(
        schema_version=1,
        name="chestxray14",
        title="ChestX-ray14 MobileNetV2",
        version="0.1.0",
        architecture="mobilenet_v2",
        precision="int8",
        findings=findings,
        preprocessing=PreprocessingRecord(
            size=224, clahe=False, fit="letterbox", version=1, digest=preprocessing.digest
        ),
        target="generic",
        runtimes=("onnxruntime",),
        model="model.onnx",
        files={"model.onnx": SHA256},
        accuracy=Accuracy(
            films=1024,
            patients=611,
            full=Interval(0.757, 0.738, 0.774),
            compressed=Interval(0.756, 0.737, 0.773),
            drift=Interval(-0.001, -0.003, 0.001),
            flipped=0.021,
            source="ChestX-ray14 test part",
            runtime="ONNX Runtime 1.31.1",
        ),
        gate=Gate(threshold=1.0, refused={"ChestX-ray14": Interval(0.011, 0.006, 0.019)}),
        tolerance=Tolerance(mean=0.05, largest=0.5),
        training=Training(
            sources={"chestxray14": "NIH ChestX-ray14 (Wang et al., CVPR 2017)"},
            licence="NIH Clinical Center, free use with attribution",
            population="Adults and children of one hospital; labels text-mined from reports.",
            films={"chestxray14": {"train": 1860, "validation": 328, "test": 1024}},
            recipe={},
        ),
        software={"cxredge": "0.1.0"},
        intended_use="Sorting frontal chest films of adults, the most pressing first. Research use only.",
    )


def film_reading(file: str, probabilities: dict[str, float], manifest: Manifest) -> Reading:
    decision = decide(probabilities, manifest)
    return Reading(
        file=file,
        status=Status.OK,
        priority=decision.priority,
        top_finding=decision.top_finding,
        probabilities=probabilities,
        flags=decision.flags,
        view="PA",
        decode_ms=3.21,
        infer_ms=1.84,
        model_sha256=SHA256,
    )


def unread(file: str, status: Status, reason: str, detail: str) -> Reading:
    return Reading(
        file=file,
        status=status,
        priority=Priority.REFUSED,
        reason=reason,
        detail=detail,
        decode_ms=0.4,
        model_sha256=SHA256,
    )


def build_readings(names: list[str], manifest: Manifest) -> list[Reading]:
    """One scored reading per name, mostly routine, then three films without a result; in the worklist's order."""
    random = np.random.default_rng(7)
    thresholds = np.array([finding.balanced.threshold for finding in manifest.findings])
    readings = []
    for i, name in enumerate(names):
        logits = np.log(thresholds / (1 - thresholds)) + random.normal(-1.6 + 1.6 * (i % 3 == 0), 0.8, len(thresholds))
        probabilities = dict(zip(manifest.names, (1 / (1 + np.exp(-logits))).tolist(), strict=True))
        readings.append(film_reading(name, probabilities, manifest))
    readings += [
        unread("ward 2/wrist.dcm", Status.REFUSED, "not_a_chest_film", "does not look like a frontal chest film"),
        unread("copy.dcm", Status.REFUSED, "ends_early", "the file ends early (12 kB of 8.1 MB)"),
        unread("locked.dcm", Status.FAILED, "cannot_be_opened", "the file cannot be opened (Permission denied)"),
    ]
    return sorted(readings, key=lambda reading: (ORDER[reading.priority], reading.file))


@pytest.fixture
def readings(manifest: Manifest) -> list[Reading]:
    return build_readings([f"ward 1/film {i:02}.png" for i in range(12)], manifest)


@pytest.fixture
def summary(readings: list[Reading]) -> Summary:
    return build_summary(readings)


def build_summary(readings: list[Reading]) -> Summary:
    status = [reading.status for reading in readings]
    return Summary(
        folders=("films",),
        started="2026-11-21T08:15:00+02:00",
        films=len(readings),
        ok=status.count(Status.OK),
        refused=status.count(Status.REFUSED),
        failed=status.count(Status.FAILED),
        resumed=4,
        priorities={priority.value: sum(r.priority is priority for r in readings) for priority in Priority},
        reasons={reading.reason: 1 for reading in readings if reading.reason},
        decode=Latency(3.1, 5.2, 9.8, 11),
        inference=Latency(1.8, 2.0, 2.9, 11),
        whole=Latency(6.4, 8.9, 14.2, 11),
        films_per_second=142.3,
        peak_rss_mb=118.4,
        operating_point="balanced",
        model={
            "name": "chestxray14",
            "title": "ChestX-ray14 MobileNetV2",
            "version": "0.1.0",
            "precision": "int8",
            "sha256": SHA256,
        },
        runtime={"name": "onnxruntime", "version": "1.31.1", "threads": "1", "artifact": "model.onnx"},
        device={"processor": "Cortex-A76", "cores": "4", "memory": "8.2 GB"},
        drift=build_manifest().accuracy,
        drift_by_finding={finding.name: finding.drift for finding in build_manifest().findings},
    )


@pytest.fixture(scope="session")
def films() -> list[Film]:
    """The real films of examples/, decoded."""
    paths = sorted(path for path in EXAMPLES.iterdir() if path.suffix in {".jpg", ".jpeg"})
    assert paths, "examples/ holds no JPEG film"
    return [read_film(path, Preprocessing()) for path in paths]


@pytest.fixture
def pictures(films: list[Film], readings: list[Reading], manifest: Manifest) -> Callable[[str], Pictures]:
    """Thumbnail and heat maps per file; none for films without a result, as in a run. Cardiomegaly's map is even."""
    scored = {reading.file: reading for reading in readings if reading.status is Status.OK}

    def pictures_of(file: str) -> Pictures:
        if file not in scored:
            return Pictures()
        film = films[list(scored).index(file) % len(films)]
        maps = {}
        for name in explained(scored[file], manifest):
            cam = np.zeros((7, 7), np.float32)
            cam[4, 1 + len(maps)] = 0 if name == "Cardiomegaly" else 5
            (maps[name],) = heat_maps(film, cam[None])
        return Pictures(thumbnail(film), maps)

    return pictures_of
