"""What the test films said of a model besides its accuracy: part of the manifest, so that a program can read it too."""

from typing import Literal

from cxredge.bundle.record import Record
from cxredge.metrics import Interval

Kind = Literal["false alarm", "miss"]


class Step(Record):
    """One step of the compression, measured on the test films, the parent first and this bundle's model last.

    megabytes: of the graph, float weights in 32 bits. auroc: mean over the findings; drift: paired against the parent, whose own is
    None; both with 95 % intervals by bootstrap over patients. flipped: share of film and finding pairs whose flag differs from the
    parent's, both at this bundle's operating points.
    """

    name: str
    megabytes: float
    auroc: Interval
    drift: Interval | None = None
    flipped: float | None = None


class SubgroupAuroc(Record):
    """One finding in one subgroup. auroc: 95 % interval by DeLong, a patient's films together; None where the films are too few."""

    positives: int
    negatives: int
    auroc: Interval | None = None


class Subgroup(Record):
    """The test films of one sex, age band or view.

    findings: in the order of the network's outputs. averaged: the findings that `mean`, the mean AUROC with its 95 % interval by
    bootstrap over patients, is taken over: the same in every group of the axis that has one, so that they compare.
    """

    axis: str
    name: str
    films: int
    patients: int
    findings: dict[str, SubgroupAuroc]
    averaged: tuple[str, ...] = ()
    mean: Interval | None = None


class Subgroups(Record):
    """AUROC per subgroup of the test films.

    enough: films with a finding, and as many without, that its AUROC takes. enough_films: films of a group that its mean takes.
    unknown: axis -> test films of which the data set does not tell it, or tells what belongs to no group.
    """

    source: str
    runtime: str
    enough: int
    enough_films: int
    unknown: dict[str, int]
    groups: tuple[Subgroup, ...]


class FindingCalibration(Record):
    """How far one finding's probabilities lie from what the test films hold.

    error: expected calibration error (Naeini et al., AAAI 2015; bins of equal numbers of films, Nixon et al., CVPRW 2019) with its
    95 % interval by bootstrap over patients. by_chance: what probabilities that are exactly right would show on so many films
    (Broecker & Smith 2007). predicted: mean probability. share: of the test films that have the finding. known_share: of the
    validation films, which the probabilities were calibrated to. at_this_share: the error left once every probability is moved from
    that share to this one (Saerens et al. 2002), and nothing else is.
    """

    error: Interval
    by_chance: float
    predicted: float
    share: Interval
    known_share: float
    at_this_share: float


class Calibration(Record):
    """Calibration on the test films as they are, their own prevalence included.

    mean: error averaged over the findings, 95 % interval by bootstrap over patients. diagram: the picture of it in the bundle.
    """

    source: str
    runtime: str
    films: int
    bins: int
    mean: Interval
    findings: dict[str, FindingCalibration]
    diagram: str | None = None


class Failure(Record):
    """A film that the model is surely wrong about. film: its published name, "" where it has none.

    labels: the findings that it is labelled with. threshold: of the `balanced` operating point; a false alarm lies at or above it,
    a miss below.
    """

    finding: str
    kind: Kind
    film: str
    labels: tuple[str, ...]
    probability: float
    threshold: float


class Failures(Record):
    """Per finding that matters most, the surest false alarm and the surest miss among the test films that the gate lets through.

    sheet: the picture of them in the bundle, in their order; None where the films may not be passed on. looked_at: the findings.
    """

    source: str
    runtime: str
    looked_at: tuple[str, ...]
    shown: tuple[Failure, ...]
    sheet: str | None = None
