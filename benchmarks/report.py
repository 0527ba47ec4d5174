"""The report as HTML and Markdown for people, JSON for programs, and every sample."""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cxredge.benchmarks import plots
from cxredge.benchmarks.accuracy import Accuracy
from cxredge.benchmarks.measure import Measured, Samples
from cxredge.benchmarks.run import Report
from cxredge.errors import OutputError
from cxredge.metrics import Interval
from cxredge.report.files import atomic_write
from cxredge.train.page import change, environment, interval

DASH = "\N{EN DASH}"


def check_folder(out: Path) -> None:
    """Raise OutputError, before an hour of measuring, for a folder that nothing can be written to; makes none."""
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise OutputError(
            f"{out}: no report can be written there ({error.strerror or error}); choose another --output"
        ) from None


def write(report: Report, raw: Samples, out: Path) -> None:
    """`benchmark.html`, `benchmark.md`, `benchmark.json` and `samples.npz` into a folder that is made if need be.

    Each is the old one or the new one, whole. Raises OutputError.
    """
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    told = json.dumps(asdict(report), indent=1) + "\n"
    for name, text in (("json", told), ("md", markdown(report)), ("html", html(report))):
        with atomic_write(out / f"benchmark.{name}") as file:
            file.write(text)
    arrays: dict[str, Any] = {key: np.array(times, np.float32) for key, times in raw.items()}
    with atomic_write(out / "samples.npz", "wb") as packed:
        np.savez_compressed(packed, **arrays)


def html(report: Report) -> str:
    """One self-contained page."""
    singles = [one for one in report.measured if one.batch == 1] or report.measured
    area = {(one.model, one.runtime): one.mean_auroc for one in report.accuracy}
    placed = [(one, area[one.model, one.runtime]) for one in singles if (one.model, one.runtime) in area]
    page: str = environment("cxredge.benchmarks").get_template("benchmark.html.j2").render(
        report=report,
        speed=speed_table(report),
        judged=accuracy_table(report),
        unjudged=unjudged(report),
        against_latency=plots.pareto(
            [(plots.named(one), one.engine_only.p50, mean) for one, mean in placed], "engine only, median ms", log=True
        ),
        against_memory=plots.pareto(
            [(plots.named(one), one.peak_rss_mb, mean) for one, mean in placed], "peak memory of the process, MB"
        ),
        against_size=plots.pareto(_by_model(placed), "model file, MB"),
        latencies=plots.latencies(report.measured),
        drifts=[(one, plots.drifts(one)) for one in report.accuracy if one.drift is not None],
        largest_disagreement=max(
            (one.largest_disagreement for one in report.accuracy if one.largest_disagreement is not None), default=None
        ),
    )  # fmt: skip
    return page


def _by_model(placed: list[tuple[Measured, Interval]]) -> list[plots.Point]:
    """Size is the same on every engine: one point per model, on its first."""
    first: dict[str, plots.Point] = {}
    for one, mean in placed:
        first.setdefault(one.model, (one.model, one.size_mb, mean))
    return list(first.values())


def speed_table(report: Report) -> list[list[str]]:
    """Heading and rows of the table of settings, as text."""
    rows = [[
        "Setting", "p50 ms", "p90 ms", "p99 ms", "p90 estimate ms", "film to result p50 ms", "p90 ms", "films/s", "cold start ms",
        "peak RSS MB", "model MB", "file MB", "MMACs",
    ]]  # fmt: skip
    for one in report.measured:
        engine, film = one.engine_only, one.film_to_result
        rows.append([
            plots.named(one), _figure(engine.p50), _figure(engine.p90), _figure(engine.p99), _figure(engine.estimate90),
            _figure(film.p50 if film else None), _figure(film.p90 if film else None), _figure(one.films_per_second),
            _figure(float(np.median(one.cold_start_ms))), f"{one.peak_rss_mb:.0f}", f"{one.model_rss_mb:.0f}",
            f"{one.size_mb:.2f}", DASH if one.mmacs is None else f"{one.mmacs:.0f}",
        ])  # fmt: skip
    return rows


def _figure(value: float | None) -> str:
    """To three digits, so that a film in three seconds is not 0 films a second."""
    if value is None:
        return DASH
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def accuracy_table(report: Report) -> list[list[str]]:
    """Heading and rows of the table of accuracy, as text."""
    heading = [
        "Model", "engine", "mean AUROC", "drift, paired", "worst finding", "flips", "calibration error",
        "largest logit difference",
    ]  # fmt: skip
    return [heading, *(_accuracy_row(one) for one in report.accuracy)]


def _accuracy_row(one: Accuracy) -> list[str]:
    return [
        one.model,
        f"{one.runtime} {one.graph}".rstrip(),
        interval(one.mean_auroc),
        change(one.drift) if one.drift else DASH,
        _worst(one),
        _flips(one.flips),
        f"{one.calibration_error:.3f}",
        f"{one.agreement.largest:.3f}" if one.agreement else DASH,
    ]


def _flips(share: float | None) -> str:
    """In per cent; one flag in ten thousand that flips is not none."""
    if share is None:
        return DASH
    return "under 0.05 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def _worst(one: Accuracy) -> str:
    drifts = [(finding.drift.value, finding.finding) for finding in one.findings if finding.drift]
    return "{1}: {0:+.4f}".format(*min(drifts)).replace("-", "\N{MINUS SIGN}") if drifts else DASH


def unjudged(report: Report) -> list[str]:
    """A line for each model with findings that its films cannot judge, which no mean and no worst finding includes."""
    lines = [
        f"{one.model}: {', '.join(one.unjudged)} (films of one kind only)" for one in report.accuracy if one.unjudged
    ]
    return list(dict.fromkeys(lines))


def markdown(report: Report) -> str:
    """The tables and how they came about, for a pull request or a wiki."""
    left_out = [f"- left out: {line}" for line in report.left_out]
    return "\n".join([
        f"# Benchmark, {report.date}", "",
        f"`{report.command}`", "",
        *(f"- {name}: {value}" for name, value in report.machine.items()),
        f"- cxredge {report.cxredge}; data {', '.join(report.data)}; profile {report.profile.name}: {report.profile.rounds} fresh"
        f" processes a setting, interleaved, at least {report.profile.seconds:g} s and {report.profile.queries} queries",
        f"- full-precision reference: {report.reference or 'none'}", *left_out,
        *(f"- not judged: {line}" for line in unjudged(report)), "",
        "## Speed and memory", "", *_lines(speed_table(report)), "",
        "## Accuracy", "", *_lines(accuracy_table(report)), "",
        "Intervals are 95 %, means by bootstrap over patients. Percentile estimates are MLPerf's early-stopping estimates.", "",
    ])  # fmt: skip


def _lines(rows: list[list[str]]) -> list[str]:
    heading, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return [heading, "|---" + "|---:" * (len(rows[0]) - 1) + "|", *body]
