"""What `cxredge build` measured before it chose: part of the manifest, so that the numbers travel with the model."""

from typing import Annotated

from pydantic import Field

from cxredge.bundle.record import Precision, Record
from cxredge.metrics import Interval

NOT_MEASURED = "not measured on target"


class Latency(Record):
    """Milliseconds of one inference, batch 1, warm, over `runs` runs with `threads` threads.

    p10_ms: what candidates are compared by, since other work on the machine, which only ever adds, moves it least.
    """

    p10_ms: float
    median_ms: float
    p90_ms: float
    runs: int
    threads: int


class Agreement(Record):
    """How close a candidate's probabilities lie to those of the network before it was rounded. It says nothing about AUROC.

    mean, largest: absolute difference of probabilities. flipped: share of film and finding pairs whose flag differs.
    """

    films: int
    mean: float
    largest: float
    flipped: float


class AurocDrift(Record):
    """Paired AUROC difference, candidate minus the network before it was rounded: the mean over findings, and per finding.

    films: that are labelled for one of them. unjudged: findings that could not be judged, since all films have them, or none.
    """

    films: int
    source: str
    mean: Interval
    findings: dict[str, Interval]
    unjudged: tuple[str, ...] = ()


class Candidate(Record):
    """One engine and precision that was considered.

    bytes: of the graph's files. measured_on: the machine whose latency and memory stand here, or "not measured on target".
    through: the engine that gave agreement and drift; where it is not the candidate's own, they hold for the same graph,
    not for the candidate's kernels. checked: what was found of it without running it. verdict: kept, or why not.
    """

    runtime: str
    precision: Precision
    bytes: int | None = None
    measured_on: str = NOT_MEASURED
    latency: Latency | None = None
    peak_memory_mb: float | None = None
    through: str = ""
    agreement: Agreement | None = None
    drift: AurocDrift | None = None
    checked: str = ""
    verdict: str = ""


class Settings(Record):
    """How the device's profile runs engines, as it was when latency and memory were measured; see `devices.Profile`."""

    threads: Annotated[int, Field(ge=1)]
    spinning: bool
    arena: bool


class Build(Record):
    """gate: what a candidate had to hold, in words. calibration: the films that set the ranges of re-quantized graphs.

    settings: what a scan runs the engines with; None in bundles built before it was kept: then the profile's of that name.
    """

    target: str
    title: str
    gate: str
    calibration: str
    machine: dict[str, str]
    candidates: tuple[Candidate, ...]
    settings: Settings | None = None
