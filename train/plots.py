"""Figures of the evaluation page as inline SVG. Colours are Okabe & Ito's, which the colour-blind can tell apart."""

import io
import re
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from cxredge.imaging.sheet import drawing_png
from cxredge.metrics import Interval
from cxredge.train.judge import Group, Judged, Pointing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Drawn = TypeVar("Drawn")
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, GREY = (
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#6b7280",
)  # fmt: skip
# Each series has a marker of its own too, so that a plot reads without colour.
SERIES = ((BLUE, "o"), (VERMILION, "s"), (GREEN, "^"), (PURPLE, "D"), (ORANGE, "v"), (SKY, "P"), (GREY, "X"))
_STYLE = {
    "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e5e7eb", "axes.axisbelow": True,
    "grid.linewidth": 0.6, "legend.frameon": False, "legend.fontsize": 8, "svg.hashsalt": "cxredge", "svg.fonttype": "path",
    "figure.constrained_layout.use": True,
}  # fmt: skip


@contextmanager
def drawing(width: float, height: float, rows: int = 1, columns: int = 1) -> "Iterator[tuple[Figure, Any]]":
    """A figure of so many inches with its axes ([rows, columns], always two-dimensional), in the house's style."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=(width, height))
        yield figure, figure.subplots(rows, columns, squeeze=False)


def svg(figure: "Figure") -> str:
    """The figure as an `<svg>` element that scales to its column."""
    stored = io.StringIO()
    figure.savefig(stored, format="svg", metadata={"Date": None, "Creator": None})
    text = stored.getvalue()
    # Its metadata names other sites and tells a reader nothing.
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)


def png(figure: "Figure", most_bytes: int) -> bytes:
    """The figure as a PNG on white, at the finest resolution that is smaller than most_bytes, or the coarsest."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    stored = b""
    for dots_per_inch in (150, 130, 110, 96, 80):
        figure.set_dpi(dots_per_inch)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # type: ignore[no-untyped-call]
        pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
        stored = drawing_png(pixels[..., :3])
        if len(stored) < most_bytes:
            break
    return stored


def readable(name: str) -> str:
    """A finding's name for a reader: `Pleural_Thickening` is `Pleural thickening`."""
    words = name.replace("_", " ")
    return words[:1] + words[1:].lower()


def forest(
    rows: Sequence[tuple[str, Interval | None]], label: str, *, reference: Interval | None = None, zero: bool = False,
    shade: float | None = None,
) -> str:  # fmt: skip
    """Points with their 95 % intervals, one row each, the first on top. reference: drawn as a band behind them.

    zero: a line at 0, for differences. shade: half the width of a grey band around 0 that says what is negligible.
    """
    with drawing(6.4, 0.9 + 0.26 * len(rows)) as (figure, axes):
        ax: Axes = axes[0, 0]
        if reference is not None:
            ax.axvspan(reference.low, reference.high, color=SKY, alpha=0.25, lw=0)
            ax.axvline(reference.value, color=BLUE, lw=1, ls="--")
        if shade is not None:
            ax.axvspan(-shade, shade, color="#f3f4f6", lw=0)
        if zero:
            ax.axvline(0, color="#111827", lw=0.8)
        for y, (_, interval) in enumerate(rows):
            if interval is not None:
                away = zero and (interval.high < 0 or interval.low > 0)
                colour = VERMILION if away else BLUE
                ax.plot([interval.low, interval.high], [y, y], color=colour, lw=1.6, solid_capstyle="butt")
                ax.plot(interval.value, y, "s" if away else "o", color=colour, ms=5)
        ax.set_yticks(range(len(rows)), [name for name, _ in rows])
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_xlabel(label)
        return svg(figure)


def grid(
    judged: Sequence[Judged], draw: "Callable[[Axes, Judged], None]", x: str, y: str, *, columns: int = 5
) -> str:  # fmt: skip
    """One small panel per finding, on shared axes from 0 to 1."""
    return _panels(judged, draw, x, y, columns, svg)


def calibration_png(judged: Sequence[Judged], *, most_bytes: int = 60_000) -> bytes:
    """The reliability diagram of every finding as a PNG; its resolution goes down until it is smaller than most_bytes.

    A file of its own: as SVG, fourteen panels would be more than twice as large.
    """
    return _panels(
        judged, draw_calibration, "mean probability", "share of films with the finding", min(5, len(judged)),
        lambda figure: png(figure, most_bytes),
    )  # fmt: skip


def _panels(
    judged: Sequence[Judged], draw: "Callable[[Axes, Judged], None]", x: str, y: str, columns: int,
    save: "Callable[[Figure], Drawn]",
) -> "Drawn":  # fmt: skip
    rows = -(-len(judged) // columns)
    with drawing(1.75 * columns, 0.4 + 1.85 * rows, rows, columns) as (figure, axes):
        for ax, one in zip(axes.flat, judged, strict=False):
            ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), aspect="equal")
            ax.set_title(readable(one.finding))
            draw(ax, one)
        for ax in axes.flat[len(judged) :]:
            ax.set_visible(False)
        figure.supxlabel(x, fontsize=9)
        figure.supylabel(y, fontsize=9)
        return save(figure)


def draw_roc(ax: "Axes", one: Judged) -> None:
    ax.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
    # The curve is of all films together, whatever sources they are from.
    if (area := one.pooled or one.auroc) is not None:
        ax.plot(*zip(*one.roc, strict=True), color=BLUE, lw=1.5, drawstyle="steps-post")
        ax.text(0.97, 0.05, f"{area.value:.2f}", ha="right", va="bottom", color=BLUE)
    point = one.at_point
    if point is not None and point.sensitivity and point.specificity:
        ax.plot(1 - point.specificity.value, point.sensitivity.value, "D", color=VERMILION, ms=5)


def draw_precision_recall(ax: "Axes", one: Judged) -> None:
    if not one.precision_recall or one.average_precision is None:
        return
    share = one.positives / one.films
    ax.axhline(share, color=GREY, lw=0.8, ls=":")
    ax.plot(*zip(*one.precision_recall, strict=True), color=BLUE, lw=1.5)
    ax.text(0.97, 0.93, f"{one.average_precision:.2f}", ha="right", va="top", color=BLUE)
    if one.at_point is not None and one.at_point.sensitivity and one.at_point.ppv:
        ax.plot(one.at_point.sensitivity.value, one.at_point.ppv.value, "D", color=VERMILION, ms=5)


def draw_reliability(ax: "Axes", one: Judged) -> None:
    """Zoomed to where this finding's probabilities lie: on the whole square a rare finding's would sit in one corner."""
    if not one.reliability:
        return
    top = max(0.05, *(max(cell.predicted, cell.observed.high) for cell in one.reliability))
    ax.set(xlim=(-0.02 * top, 1.04 * top), ylim=(-0.02 * top, 1.04 * top))
    ticks = (0, round(top / 2, 2), round(top, 2))
    ax.set(xticks=ticks, yticks=ticks)
    ax.plot([0, top], [0, top], color=GREY, lw=0.8, ls=":")
    for cell in one.reliability:
        ax.plot([cell.predicted] * 2, [cell.observed.low, cell.observed.high], color=SKY, lw=1.2)
    ax.plot(
        [cell.predicted for cell in one.reliability], [cell.observed.value for cell in one.reliability], "o-", color=BLUE,
        ms=3, lw=1,
    )  # fmt: skip


def draw_calibration(ax: "Axes", one: Judged) -> None:
    """`draw_reliability` with the expected calibration error in the corner."""
    draw_reliability(ax, one)
    if one.calibration_error is not None:
        ax.text(0.04, 0.96, f"ECE {one.calibration_error:.3f}", transform=ax.transAxes, ha="left", va="top", fontsize=8)


def subgroup_forest(groups: Sequence[Group], axis: str) -> str:
    """Mean AUROC of the groups of one axis."""
    return forest(
        [(f"{group.name} ({group.films} films)", group.auroc) for group in groups if group.axis == axis],
        "mean AUROC, 95 % interval",
    )


def pointing_bars(rows: Sequence[Pointing]) -> str:
    """Share of films whose map peaks inside a radiologist's box, beside what a random point would score."""
    with drawing(6.4, 0.9 + 0.3 * len(rows)) as (figure, axes):
        ax: Axes = axes[0, 0]
        for y, row in enumerate(rows):
            ax.plot([row.hits.low, row.hits.high], [y, y], color=BLUE, lw=1.6)
            ax.plot(row.hits.value, y, "o", color=BLUE, ms=5, label="map's strongest point" if y == 0 else None)
            ax.plot(
                row.area, y, "x", color=VERMILION, ms=6, label="a random point (the boxes' area)" if y == 0 else None
            )
        ax.set_yticks(range(len(rows)), [f"{readable(row.finding)} ({row.films} films)" for row in rows])
        ax.set(ylim=(len(rows) - 0.5, -0.5), xlim=(0, 1), xlabel="share of films hit, 95 % interval")
        ax.legend(loc="lower right")
        return svg(figure)
