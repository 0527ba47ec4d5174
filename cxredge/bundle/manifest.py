"""What a bundle says of itself: one JSON file, parsed once into frozen records; an unknown key is an error."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from cxredge.bundle.built import Build
from cxredge.bundle.evaluated import Calibration, Failures, Step, Subgroups
from cxredge.bundle.record import Ages, Precision, Record
from cxredge.errors import BundlePathError, BundleSchemaError, BundleTooNewError
from cxredge.metrics import Interval, OperatingPoint

SCHEMA = 1
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# Logits; no engine that computes a model is so far off.
_MOST_ASTRAY = 10.0
Proportion = Annotated[float, Field(ge=0, le=1)]


class Finding(Record):
    """One output of the network, with the evidence for it.

    urgent: whether this finding can make a film `urgent` (it may need treatment the same day) or only `review`.
    experimental: its evidence is too thin for it to drive the priority at all.
    sensitive, balanced, specific: operating points for 90 % sensitivity, Youden's index and 95 % specificity, all chosen
    on validation films. validation_auroc: on the same films; below 0.70 at its lower end the finding is `experimental`.
    rounding: 95 of 100 validation films have a logit this near to the full-precision model's. What lies as near to a threshold
    could lie on either side of it.
    test_auroc: of the model in this bundle; drift: test AUROC minus that of its full-precision parent, paired.
    """

    name: str
    urgent: bool
    experimental: bool
    validation_auroc: Interval
    test_auroc: Interval
    test_positives: int
    drift: Interval
    sensitive: OperatingPoint
    balanced: OperatingPoint
    specific: OperatingPoint
    rounding: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _possible(self) -> "Finding":
        points = (self.sensitive, self.balanced, self.specific)
        if not all(0 <= point.threshold <= 1 for point in points):
            raise ValueError("a threshold that is no probability")
        shares = [share for point in points for share in (point.sensitivity, point.specificity)]
        if not all(0 <= one.low <= one.high <= 1 for one in (*shares, self.validation_auroc, self.test_auroc)):
            raise ValueError("a share or an AUROC that is none, or whose interval is turned around")
        return self

    @property
    def urgent_from(self) -> float | None:
        """Probability from which the finding makes a film urgent; None where it never does.

        Never below where it is flagged: a finding that ranks well reaches 95 % specificity sooner than Youden's index.
        """
        never = self.experimental or not self.urgent
        return None if never else max(self.specific.threshold, self.balanced.threshold)


class PreprocessingRecord(Record):
    size: Annotated[int, Field(ge=32, le=2048)]
    clahe: bool
    fit: Literal["letterbox"]
    version: int
    digest: str


class Tolerance(Record):
    """How far a runtime's logits may lie from those the bundle was built with, over the reference films.

    mean, largest: absolute differences, over all reference films and findings.
    """

    mean: Annotated[float, Field(ge=0, le=_MOST_ASTRAY)]
    largest: Annotated[float, Field(ge=0, le=_MOST_ASTRAY)]


@dataclass(frozen=True)
class Accuracy:
    """AUROC averaged over the findings, on the test films, of the full-precision parent and of this model."""

    films: int
    patients: int
    full: Interval
    compressed: Interval
    drift: Interval
    flipped: float
    source: str
    runtime: str


class EngineGraph(Record):
    """The graph that one engine loads.

    file: in the bundle. logits: which array of reference.npz it must reproduce, within tolerance.
    """

    file: str
    precision: Precision
    logits: str
    tolerance: Tolerance


class Gate(Record):
    """The check that a film looks like the training films: refuse where `atypicality` exceeds the threshold.

    refused: share of held-out chest films it turned away, per source, none of them used to fit it.
    typical, doubt: half of the validation films, and 95 of 100, lie below; a film above may be refused when something else
    speaks against it too, such as its header. None in bundles made before they were kept: then nothing else counts.
    """

    threshold: float
    typical: float | None = None
    doubt: float | None = None
    refused: dict[str, Interval]


class Training(Record):
    """Where the numbers come from."""

    sources: dict[str, str]
    licence: str
    history: str = ""
    population: str
    films: dict[str, dict[str, int]]
    recipe: dict[str, object]


class Manifest(Record):
    """`manifest.json`. Paths are relative to the bundle, with forward slashes."""

    schema_version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: str
    version: str
    architecture: str
    precision: Precision
    findings: Annotated[tuple[Finding, ...], Field(min_length=1)]
    preprocessing: PreprocessingRecord
    target: str
    runtimes: Annotated[tuple[str, ...], Field(min_length=1)]
    model: str
    # The full-precision parent as ONNX, so that drift can be measured anywhere; bundles made before it was kept have none.
    full_model: str | None = None
    # Full precision of the network as it was quantized, where steps before made it another than the parent (pruned, distilled).
    float_model: str | None = None
    # What an engine loads instead of the portable model; an engine that is not named here takes the portable one.
    graphs: dict[str, EngineGraph] = Field(default_factory=dict)
    build: Build | None = None
    files: dict[str, Sha256]
    accuracy: Accuracy
    gate: Gate | None
    # That the model is for; None for any. Films of patients of other ages get no score.
    population_ages: Ages | None = None
    tolerance: Tolerance
    training: Training
    software: dict[str, str]
    intended_use: str
    # What each step of the compression cost, and what the test films said besides; bundles made before have none of it.
    steps: tuple[Step, ...] = ()
    subgroups: Subgroups | None = None
    calibration: Calibration | None = None
    failures: Failures | None = None

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            if leaves(name):
                raise ValueError(f"{name!r} leaves the bundle")
        return files

    @model_validator(mode="after")
    def _model_is_listed(self) -> "Manifest":
        if self.model not in self.files:
            raise ValueError(f"the model {self.model!r} is not among the files with a hash")
        for name in (self.full_model, self.float_model):
            if name is not None and name not in self.files:
                raise ValueError(f"the full-precision model {name!r} is not among the files with a hash")
        for engine, graph in self.graphs.items():
            if graph.file not in self.files:
                raise ValueError(f"the graph {graph.file!r} for {engine} is not among the files with a hash")
        for picture in self.pictures:
            if picture not in self.files:
                raise ValueError(f"the picture {picture!r} is not among the files with a hash")
        if len({finding.name for finding in self.findings}) != len(self.findings):
            raise ValueError("two findings of the same name")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The findings, in the order of the network's outputs."""
        return tuple(finding.name for finding in self.findings)

    @property
    def pictures(self) -> tuple[str, ...]:
        """The files that the model card shows."""
        shown = (self.calibration and self.calibration.diagram, self.failures and self.failures.sheet)
        return tuple(name for name in shown if name)

    def graph_for(self, runtime: str) -> EngineGraph:
        """What an engine loads: its own graph, or the portable model."""
        portable = EngineGraph(file=self.model, precision=self.precision, logits="logits", tolerance=self.tolerance)
        return self.graphs.get(runtime, portable)

    def caveat(self, runtime: str) -> str:
        """What must be said beside the accuracy when an engine computes with other numbers than those it was measured on, or ""."""
        graph = self.graph_for(runtime)
        if graph.logits == "logits":
            return ""
        return (
            f"the accuracy shown is that of the portable {self.precision} model; {runtime} runs {graph.file} ({graph.precision}),"
            " and the model card says what was measured of that"
        )


def leaves(name: str) -> bool:
    """Whether a path leads out of a bundle, or could on some system: absolute, with a drive, a backslash or `..`."""
    path = PurePosixPath(name)
    return not path.parts or path.is_absolute() or ".." in path.parts or bool(set(name) & set("\\:\0"))


def parse_manifest(text: str | bytes, where: Path | str) -> Manifest:
    """The manifest in `text`.

    Raises BundleTooNewError, BundlePathError for a file outside the bundle, or BundleSchemaError that lists every mistake.
    """
    import json

    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleSchemaError(where, f"manifest.json is not JSON ({error})") from None
    version = said.get("schema_version") if isinstance(said, dict) else None
    if isinstance(version, int) and version > SCHEMA:
        raise BundleTooNewError(
            where, f"was made by a newer cxredge (schema {version}, this one reads {SCHEMA}); update cxredge"
        )
    files = said.get("files") if isinstance(said, dict) else None
    if outside := [name for name in files if leaves(name)] if isinstance(files, dict) else []:
        raise BundlePathError(where, f"manifest.json names a file that leaves the bundle: {', '.join(outside)}")
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        mistakes = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:10])
        raise BundleSchemaError(where, f"manifest.json does not fit its schema: {mistakes}") from None
