"""What a run amounts to: the content of `summary.json`, of the closing table and of the report's head."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cxredge.bundle.manifest import Accuracy
from cxredge.metrics import Interval, OperatingPoint

# Years; below it a patient is a child.
_GROWN_UP = 18


@dataclass(frozen=True)
class Latency:
    """Milliseconds a film, over `n` films of this run."""

    p50: float
    p90: float
    p99: float
    n: int

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> "Latency | None":
        if not milliseconds:
            return None
        # np.percentile imports masked arrays when it is first called, and the first film waits for that.
        places = np.array([0.5, 0.9, 0.99]) * (len(milliseconds) - 1)
        p50, p90, p99 = (float(x) for x in np.interp(places, np.arange(len(milliseconds)), np.sort(milliseconds)))
        return cls(p50, p90, p99, len(milliseconds))


@dataclass(frozen=True)
class LabelledFinding:
    """How one finding fared against the labels given for this run. Intervals are 95 %.

    at_point: sensitivity and specificity at the operating point in force. auroc is None when the labels hold no
    positive or no negative film.
    """

    finding: str
    positives: int
    negatives: int
    auroc: Interval | None
    at_point: OperatingPoint | None


@dataclass(frozen=True)
class Labelled:
    """Films that the labels table names, those of them that are in this run, and those of these that have a score.

    note: the sentence for a person; "" where all three are one.
    """

    named: int
    found: int
    scored: int
    note: str

    @classmethod
    def of(cls, named: int, found: int, scored: int) -> "Labelled":
        """Counts and sentence."""
        notes = []
        if found < named:
            notes.append(f"{found} of the {named} films in the labels table are in this run")
        if scored < found:
            notes.append(f"{found - scored} of its labelled films got no score and count nowhere")
        return cls(named, found, scored, "; ".join(notes))


@dataclass(frozen=True)
class PointInForce:
    """Where a finding is flagged, with what that point did on validation films.

    flagged_from, urgent_from: probabilities; urgent_from is None where the finding cannot make a film urgent.
    near: how far below `flagged_from`, in log-odds, a score still makes a film `review`; 0 for an experimental finding, which
    drives no priority.
    """

    finding: str
    flagged_from: float
    sensitivity: Interval
    specificity: Interval
    urgent_from: float | None
    near: float
    experimental: bool


@dataclass(frozen=True)
class Ages:
    """Scored films whose file says no age, under a model for patients of certain ages: nothing could refuse them.

    without, scored: films. low, high: youngest and oldest age in whole years that the model is for.
    note: the sentence for a person; "" where every scored film says an age.
    """

    without: int
    scored: int
    low: float
    high: float
    note: str

    @classmethod
    def of(cls, without: int, scored: int, ages: tuple[float, float]) -> "Ages":
        """Count and sentence. ages: youngest and oldest, as the manifest says."""
        low, high = ages
        whom = f"{'children' if high < _GROWN_UP else 'patients'} of {low:g}-{high:g} years"
        say = "says" if without == 1 else "say"
        note = f"{without} of {scored} scored films {say} no age; the model is for {whom}: check them yourself"
        return cls(without, scored, low, high, note if without else "")


@dataclass(frozen=True)
class DicomOut:
    """What `--dicom-out` wrote, and how many films were left out: no DICOM files, or without a study to belong to,
    with a header that does not fit the standard, or not to be read any more (`unfit`).
    """

    reports: int
    pictures: int
    not_dicom: int
    unfit: int


@dataclass(frozen=True)
class Summary:
    """One run of `cxredge scan`.

    folders: as given on the command line. started: ISO 8601 with the zone. resumed: films taken over from an earlier,
    interrupted run. priorities: films per priority. reasons: films per refusal or failure code.
    decode, inference, whole: None when no film was read in this very run.
    peak_rss_mb: of this process, in MB (10^6), None where unknown.
    model: name, title, version, architecture, precision, sha256, bundle_sha256. device: as `Machine.text`.
    runtime: name, version, threads, self_test; `notice` where engines were passed over, `caveat` where the accuracy shown was
    measured on another graph.
    drift: the manifest's accuracy record: mean AUROC full and compressed, their paired difference, and where measured.
    labels: how the findings fared against a labels table, and labelled, how much of it counts; None without one.
    ages: how many scored films say no age; None under a model for patients of any age.
    dicom_out: what --dicom-out wrote; None without it. points: what the operating point in force means per finding.
    reduced_decoding: whether large compressed DICOM films were decoded no larger than needed.
    drift_by_finding: paired AUROC difference, compressed minus full precision, per finding, from the manifest.
    """

    folders: tuple[str, ...]
    started: str
    films: int
    ok: int
    refused: int
    failed: int
    resumed: int
    priorities: dict[str, int]
    reasons: dict[str, int]
    decode: Latency | None
    inference: Latency | None
    whole: Latency | None
    films_per_second: float | None
    peak_rss_mb: float | None
    operating_point: str
    model: dict[str, str]
    runtime: dict[str, str]
    device: dict[str, str]
    drift: Accuracy
    drift_by_finding: dict[str, Interval]
    labels: tuple[LabelledFinding, ...] = ()
    labelled: Labelled | None = None
    points: tuple[PointInForce, ...] = ()
    ages: Ages | None = None
    dicom_out: DicomOut | None = None
    reduced_decoding: bool = False
