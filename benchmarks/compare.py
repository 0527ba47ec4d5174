"""Did anything change between two reports? Ratios of medians with intervals over rounds, told from a slower machine."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cxredge.errors import DataError
from cxredge.metrics import Interval

SAMPLES = 5000
# Below it a change is not worth a word, however sure it is.
NEGLIGIBLE = 0.05


@dataclass(frozen=True)
class Change:
    """One figure of one setting, B over A. machine: the same ratio for a fixed piece of work (1 for figures that are no time).

    verdict: "slower"/"faster" or "more"/"less" where it is real, "noise" where it is not.
    """

    setting: str
    figure: str
    a: float
    b: float
    ratio: Interval
    machine: float
    verdict: str


def compare(a: Path, b: Path) -> list[Change]:
    """Every setting that both reports measured. Raises DataError for a file that is no report, or nothing in common."""
    one, other = _settings(a), _settings(b)
    shared = [key for key in one if key in other]
    if not shared:
        raise DataError(f"{a} and {b} measured nothing in common (model, engine, threads and batch must be the same)")
    found = []
    for key in shared:
        found += _changes(key, one[key], other[key])
    return found


def _settings(file: Path) -> dict[str, dict[str, Any]]:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return {
            f"{m['model']}, {m['runtime']}, {m['threads']} threads, batch {m['batch']}": m for m in told["measured"]
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: not a report that `cxredge benchmark` wrote ({error!r})") from None


def _changes(key: str, a: dict[str, Any], b: dict[str, Any]) -> list[Change]:
    machine = float(np.median(b["yardstick_ms"]) / np.median(a["yardstick_ms"]))
    found = []
    for figure, rounds_a, rounds_b in (
        ("engine only, median ms", a["engine_only"]["per_round"], b["engine_only"]["per_round"]),
        ("film to result, median ms", _rounds(a), _rounds(b)),
        ("cold start, ms", a["cold_start_ms"], b["cold_start_ms"]),
    ):
        if rounds_a and rounds_b:
            ratio = ratio_of_medians(rounds_a, rounds_b)
            found.append(
                Change(key, figure, float(np.median(rounds_a)), float(np.median(rounds_b)), ratio, machine,
                       _verdict(ratio, machine, "slower", "faster"))
            )  # fmt: skip
    for figure in ("peak_rss_mb", "size_mb"):
        exact = b[figure] / a[figure]
        found.append(
            Change(key, figure, a[figure], b[figure], Interval(exact, exact, exact), 1.0,
                   _verdict(Interval(exact, exact, exact), 1.0, "more", "less"))
        )  # fmt: skip
    return found


def _rounds(setting: dict[str, Any]) -> list[float]:
    stream = setting["film_to_result"]
    return stream["per_round"] if stream else []


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
