"""What a bundle says of itself: one JSON file, parsed once into frozen records; an unknown key is an error."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cxredge.errors import BundleSchemaError
from cxredge.metrics import Interval, OperatingPoint

SCHEMA = 1
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Proportion = Annotated[float, Field(ge=0, le=1)]


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(Record):
    """One output of the network, with the evidence for it.

    urgent: whether this finding can make a film `urgent` (it may need treatment the same day) or only `review`.
    experimental: its evidence is too thin for it to drive the priority at all.
    sensitive, balanced, specific: operating points for 90 % sensitivity, Youden's index and 95 % specificity, all chosen
    on validation films. validation_auroc: on the same films; below 0.70 at its lower end the finding is `experimental`.
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

    mean: float
    largest: float


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


class Gate(Record):
    """The check that a film looks like the training films: refuse where `atypicality` exceeds the threshold.

    refused: share of held-out chest films it turned away, per source, none of them used to fit it.
    """

    threshold: float
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
    precision: Literal["fp32", "fp16", "int8"]
    findings: Annotated[tuple[Finding, ...], Field(min_length=1)]
    preprocessing: PreprocessingRecord
    target: str
    runtimes: Annotated[tuple[str, ...], Field(min_length=1)]
    model: str
    files: dict[str, Sha256]
    accuracy: Accuracy
    gate: Gate | None
    tolerance: Tolerance
    training: Training
    software: dict[str, str]
    intended_use: str

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
                raise ValueError(f"{name!r} leaves the bundle")
        return files

    @model_validator(mode="after")
    def _model_is_listed(self) -> "Manifest":
        if self.model not in self.files:
            raise ValueError(f"the model {self.model!r} is not among the files with a hash")
        if len({finding.name for finding in self.findings}) != len(self.findings):
            raise ValueError("two findings of the same name")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The findings, in the order of the network's outputs."""
        return tuple(finding.name for finding in self.findings)


def parse_manifest(text: str | bytes, where: Path) -> Manifest:
    """The manifest in `text`. Raises BundleSchemaError that lists every mistake, or says that cxredge is too old."""
    import json

    try:
        said = json.loads(text)
    except ValueError as error:
        raise BundleSchemaError(where, f"manifest.json is not JSON ({error})") from None
    version = said.get("schema_version") if isinstance(said, dict) else None
    if isinstance(version, int) and version > SCHEMA:
        raise BundleSchemaError(
            where, f"was made by a newer cxredge (schema {version}, this one reads {SCHEMA}); update cxredge"
        )
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        mistakes = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:10])
        raise BundleSchemaError(where, f"manifest.json does not fit its schema: {mistakes}") from None
