"""Did anything change between two reports? Ratios of medians with intervals over rounds, told from a slower machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from cxredge.errors import DataError
from cxredge.metrics import Interval

SAMPLES = 5000
# Below it a change is not worth a word, however sure it is.
NEGLIGIBLE = 0.05
# Rounding of another processor moves a mean AUROC by less.
SAME_AUROC = 0.0005
# What makes times of two reports comparable.
MACHINE = ("processor", "cores", "memory")

Figure = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rounds = Annotated[list[Figure], Field(min_length=1)]


class Stream(BaseModel):
    """Medians in ms, one per process."""

    per_round: Rounds


class Setting(BaseModel):
    """What is compared of a setting; see `measure.Measured`."""

    model: str
    runtime: str
    engine: str
    threads: int
    batch: int
    engine_only: Stream
    film_to_result: Stream | None
    cold_start_ms: Rounds
    yardstick_ms: Rounds
    peak_rss_mb: Figure
    size_mb: Figure
    # Of the graph that ran, which a bundle may hold for one engine alone. Reports made before it was kept have none.
    sha256: str = ""


class Mean(BaseModel):
    """An AUROC without its interval, which is of the films and not of the run."""

    value: Figure


class Judged(BaseModel):
    """What is compared of an accuracy; see `accuracy.Accuracy`."""

    model: str
    runtime: str
    films: int
    mean_auroc: Mean


class Named(BaseModel):
    """A profile; of a model its hash too."""

    name: str
    sha256: str = ""


class Told(BaseModel):
    """What is compared of a `benchmark.json`, by whichever version of cxredge."""

    cxredge: str
    machine: dict[str, str]
    data: list[str]
    # Reports made before it was kept have none.
    films_sha256: str = ""
    profile: Named
    models: list[Named]
    measured: list[Setting]
    accuracy: list[Judged]


@dataclass(frozen=True)
class Change:
    """One figure of one setting, B over A. machine: the same ratio for a fixed piece of work (1 for figures that are no time).

    verdict: "slower"/"faster" or "more"/"less" where it is real, "noise" where it is not, "another machine" for times and memory
    that were taken on two.
    """

    setting: str
    figure: str
    a: float
    b: float
    ratio: Interval
    machine: float
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """changes: every figure that both reports have. notes: what else is not the same, a line each."""

    changes: list[Change]
    notes: list[str]


def compare(a: Path, b: Path) -> Comparison:
    """Every setting that both reports measured. Raises DataError for a file that is no report, or nothing in common."""
    one, other = _read(a), _read(b)
    settings, others = _settings(one), _settings(other)
    shared = [key for key in settings if key in others]
    if not shared:
        raise DataError(f"{a} and {b} measured nothing in common (model, engine, threads and batch must be the same)")
    found: list[Change] = []
    same_machine = all(one.machine.get(fact) == other.machine.get(fact) for fact in MACHINE)
    for key in shared:
        found += _changes(key, settings[key], others[key], same_machine=same_machine)
    return Comparison(found + _accuracies(one, other), _notes(one, other))


def _read(file: Path) -> Told:
    try:
        return Told.model_validate_json(file.read_bytes())
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{file}: not a report that `cxredge benchmark` wrote, or a damaged one"
            f" ({f'{where}: ' if where else ''}{first['msg']})"
        ) from None


def _settings(told: Told) -> dict[str, Setting]:
    return {f"{m.model}, {m.runtime}, {m.threads} threads, batch {m.batch}": m for m in told.measured}


def _notes(a: Told, b: Told) -> list[str]:
    """What is not the same besides the figures, and what that means for them."""
    notes = []
    if differ := [fact for fact in MACHINE if a.machine.get(fact) != b.machine.get(fact)]:
        said = "; ".join(f"{fact} {a.machine.get(fact)} and {b.machine.get(fact)}" for fact in differ)
        notes.append(f"Two machines ({said}): times and memory do not tell one model from the other.")
    notes += _other_files(a, b)
    if not _same_films(a, b):
        which = f"{', '.join(a.data)} before, {', '.join(b.data)} after" if a.data != b.data else ", ".join(a.data)
        notes.append(f"Other films, or other labels: {which}; AUROC does not compare.")
    for what, one, other in (
        ("cxredge", a.cxredge, b.cxredge),
        ("profile", a.profile.name, b.profile.name),
        ("engines", _engines(a), _engines(b)),
    ):
        if one != other:
            notes.append(f"{what}: {one} before, {other} after.")
    return notes


def _other_files(a: Told, b: Told) -> list[str]:
    """Models of one name that are not one file, and those of which one engine alone runs another graph than before."""
    models = [{model.name: model.sha256 for model in told.models} for told in (a, b)]
    graphs = [{(m.model, m.runtime): m.sha256 for m in told.measured if m.sha256} for told in (a, b)]
    other = {name: (was, now) for name, was in models[0].items() if (now := models[1].get(name, was)) != was}
    for (model, runtime), was in graphs[0].items():
        if model not in other and (now := graphs[1].get((model, runtime), was)) != was:
            other[f"{model} on {runtime}"] = was, now
    return [f"{name} is another file: {was[:12]} before, {now[:12]} after." for name, (was, now) in other.items()]


def _engines(told: Told) -> str:
    return ", ".join(sorted({one.engine for one in told.measured}))


def _same_films(a: Told, b: Told) -> bool:
    """Whether both judged the same films by the same labels; by the names of the data sets where a report does not say."""
    return a.films_sha256 == b.films_sha256 if a.films_sha256 and b.films_sha256 else a.data == b.data


def _accuracies(a: Told, b: Told) -> list[Change]:
    """Mean AUROC of what both reports judged. On the same films it does not waver: what differs has changed."""
    before = {(one.model, one.runtime): one for one in a.accuracy}
    found = []
    for one in b.accuracy:
        was = before.get((one.model, one.runtime))
        if was is None:
            continue
        x, y = was.mean_auroc.value, one.mean_auroc.value
        same_films = _same_films(a, b) and was.films == one.films
        verdict = (
            "other films" if not same_films else "same" if abs(y - x) < SAME_AUROC else "better" if y > x else "worse"
        )
        setting = f"{one.model}, {one.runtime}"
        found.append(Change(setting, "mean AUROC", x, y, Interval(y / x, y / x, y / x), 1.0, verdict))
    return found


def _changes(key: str, a: Setting, b: Setting, *, same_machine: bool) -> list[Change]:
    machine = float(np.median(b.yardstick_ms) / np.median(a.yardstick_ms))
    found = []
    for figure, rounds_a, rounds_b in (
        ("engine only, median ms", a.engine_only.per_round, b.engine_only.per_round),
        ("film to result, median ms", _rounds(a), _rounds(b)),
        ("cold start, ms", a.cold_start_ms, b.cold_start_ms),
    ):
        if rounds_a and rounds_b:
            ratio = ratio_of_medians(rounds_a, rounds_b)
            found.append(
                Change(key, figure, float(np.median(rounds_a)), float(np.median(rounds_b)), ratio, machine,
                       _verdict(ratio, machine, "slower", "faster") if same_machine else "another machine")
            )  # fmt: skip
    for figure, x, y in (("peak_rss_mb", a.peak_rss_mb, b.peak_rss_mb), ("size_mb", a.size_mb, b.size_mb)):
        exact = Interval(y / x, y / x, y / x)
        elsewhere = figure == "peak_rss_mb" and not same_machine
        verdict = "another machine" if elsewhere else _verdict(exact, 1.0, "more", "less")
        found.append(Change(key, figure, x, y, exact, 1.0, verdict))
    return found


def _rounds(setting: Setting) -> list[float]:
    return setting.film_to_result.per_round if setting.film_to_result else []


def ratio_of_medians(a: list[float], b: list[float], *, seed: int = 0) -> Interval:
    """Median of b over median of a, with a 95 % percentile interval: rounds are drawn with replacement within each report."""
    rng = np.random.default_rng(seed)
    drawn_a, drawn_b = (np.median(rng.choice(np.array(rounds), (SAMPLES, len(rounds))), axis=1) for rounds in (a, b))
    low, high = np.percentile(drawn_b / drawn_a, (2.5, 97.5))
    return Interval(float(np.median(b) / np.median(a)), float(low), float(high))


def _verdict(ratio: Interval, machine: float, more: str, less: str) -> str:
    """Real only when the interval stays clear of no change both as it is and after the machine's own change is taken out."""
    scales = (1.0, machine)
    if all(ratio.low / scale > 1 + NEGLIGIBLE for scale in scales):
        return more
    if all(ratio.high / scale < 1 - NEGLIGIBLE for scale in scales):
        return less
    return "noise"
