"""Figures of the benchmark page."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cxredge.benchmarks.accuracy import Accuracy
from cxredge.benchmarks.measure import Measured
from cxredge.metrics import Interval
from cxredge.train.plots import GREY, SERIES, drawing, forest, readable, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The width of a drift that the build gate lets pass, drawn as a grey band.
NEGLIGIBLE_DRIFT = 0.01
# Eight against seven colours: 56 points before a pair comes again.
MARKERS = "os^DvPX*"
Point = tuple[str, float, Interval]


def pareto(points: Sequence[Point], label: str, *, log: bool = False) -> str:
    """Mean AUROC against a cost, one point per setting, the front joined by a line: nothing is both better and cheaper.

    points: name, cost, mean AUROC with its interval.
    """
    with drawing(6.4, 3.6 + 0.16 * len(points)) as (figure, axes):
        ax: Axes = axes[0, 0]
        front = _front(points)
        ax.step(
            [cost for _, cost, _ in front],
            [area.value for _, _, area in front],
            where="post",
            color=GREY,
            lw=1,
            ls="--",
        )
        for number, (name, cost, area) in enumerate(points):
            colour, marker = SERIES[number % len(SERIES)][0], MARKERS[number % len(MARKERS)]
            ax.plot([cost, cost], [area.low, area.high], color=colour, lw=1, alpha=0.6)
            ax.plot(cost, area.value, marker, color=colour, ms=7, label=f"{name}: {area.value:.3f} at {cost:.3g}")
        if log:
            ax.set_xscale("log")
            _plain_ticks(ax, [cost for _, cost, _ in points])
        else:
            ax.set_xlim(left=0)
        ax.set(xlabel=label, ylabel="mean AUROC, 95 % interval")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=1)
        return svg(figure)


def _plain_ticks(ax: "Axes", costs: Sequence[float]) -> None:
    """1, 2, 5, 10, ... instead of powers of ten."""
    low, high = 0.8 * min(costs), 1.25 * max(costs)
    # Points close together must look close: at least a factor of four across.
    if high < 4 * low:
        middle = (low * high) ** 0.5
        low, high = middle / 2, middle * 2
    ticks = [base * 10**power for power in range(-3, 6) for base in (1, 2, 5) if low <= base * 10**power <= high]
    ax.set_xlim(low, high)
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_xticks([], minor=True)


def _front(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in both cost and AUROC, cheapest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point[1], -point[2].value)):
        if not front or point[2].value > front[-1][2].value:
            front.append(point)
    return front


def latencies(rows: Sequence[Measured]) -> str:
    """p50 to p99 of each setting, engine alone and film to result, on a log scale in ms."""
    with drawing(6.8, 1.0 + 0.42 * len(rows)) as (figure, axes):
        ax: Axes = axes[0, 0]
        for y, row in enumerate(rows):
            for stream, shift, (colour, marker), name in (
                (row.engine_only, -0.13, SERIES[0], "engine only"),
                (row.film_to_result, 0.13, SERIES[1], "film to result"),
            ):
                if stream is not None:
                    ax.plot([stream.p50, stream.p99], [y + shift] * 2, color=colour, lw=1.2, alpha=0.5)
                    ax.plot(stream.p90, y + shift, "|", color=colour, ms=9, mew=2)
                    ax.plot(stream.p50, y + shift, marker, color=colour, ms=6, label=name if y == 0 else None)
        ax.set_xscale("log")
        streams = [s for row in rows for s in (row.engine_only, row.film_to_result) if s is not None]
        _plain_ticks(ax, [value for s in streams for value in (s.p50, s.p99)])
        ax.set_yticks(range(len(rows)), [named(row) for row in rows])
        ax.set(ylim=(len(rows) - 0.5, -0.5), xlabel="ms per query: marker p50, bar p90, end of line p99")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.0 + 0.6 / (1 + len(rows))), ncols=2)
        return svg(figure)


def drifts(judged: Accuracy) -> str:
    """AUROC against the reference per finding, the mean on top; orange squares are clear of zero."""
    rows: list[tuple[str, Interval | None]] = [("Mean over findings", judged.drift)]
    ordered = sorted(judged.findings, key=lambda one: one.drift.value if one.drift else 0)
    rows += [(f"{readable(one.finding)} ({one.positives})", one.drift) for one in ordered]
    return forest(rows, "AUROC minus the reference's, 95 % interval", zero=True, shade=NEGLIGIBLE_DRIFT)


def named(row: Measured) -> str:
    """A setting in few words."""
    batch = f", batch {row.batch}" if row.batch > 1 else ""
    return f"{row.model}, {' '.join(filter(None, (row.runtime, row.graph)))}, {row.threads} thr.{batch}"
