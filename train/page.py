"""Pages of the lab: one self-contained HTML file each, that needs no network and no script."""

import base64
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from cxredge.metrics import Interval, in_words
from cxredge.train import plots
from cxredge.train.against import Against
from cxredge.train.evaluate import Evaluation, Example

if TYPE_CHECKING:
    from jinja2 import Environment


def environment(stage: str = "cxredge.train") -> "Environment":
    """Templates of a stage, whose pages extend `base.html.j2` here, with the filters that all share.

    stage: the package that the templates lie in. A missing value is an error, never an empty cell.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folders = [str(resources.files(package)) for package in dict.fromkeys((stage, "cxredge.train"))]
    made = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        interval=interval, change=change, percent=percent, readable=plots.readable, svg=Markup, jpeg=_jpeg, png=_png
    )
    return made


def interval(value: Interval | None) -> str:
    """0.812 (0.780-0.841), or a dash where it was not measured; 0.9996 (0.9990-0.9998), which is not always."""
    return "\N{EN DASH}" if value is None else in_words(value, least=3)


def change(value: Interval) -> str:
    """-0.0031 (-0.0082 to +0.0020), with true minus signs."""
    return f"{value.value:+.4f} ({value.low:+.4f} to {value.high:+.4f})".replace("-", "\N{MINUS SIGN}")


def percent(value: Interval | None) -> str:
    """84 (78-89), in per cent; 99.96 (99.90-99.98), which is not all of them."""
    return "\N{EN DASH}" if value is None else in_words(value, whole=100)


def _jpeg(content: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def _png(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def write_evaluation(found: Evaluation, examples: list[Example], out: Path) -> None:
    """`evaluation.html`, with every figure drawn and every film embedded."""
    by_auroc = sorted(
        (one for one in found.findings if one.auroc), key=lambda one: -one.auroc.value if one.auroc else 0
    )
    html = environment().get_template("evaluation.html.j2").render(
        found=found,
        examples=examples,
        forest=plots.forest(
            [(f"{plots.readable(one.finding)} ({one.positives} of {one.films})", one.auroc) for one in by_auroc],
            "AUROC, 95 % interval (DeLong, by patient); dashed: the mean",
            reference=found.mean_auroc,
        ),
        roc=plots.grid(by_auroc, plots.draw_roc, "1 \N{MINUS SIGN} specificity", "sensitivity"),
        precision_recall=plots.grid(by_auroc, plots.draw_precision_recall, "sensitivity (recall)", "PPV (precision)"),
        reliability=plots.grid(by_auroc, plots.draw_reliability, "mean probability", "share of films with the finding"),
        axes=[
            (axis, plots.subgroup_forest(found.subgroups, axis), [g for g in found.subgroups if g.axis == axis])
            for axis in dict.fromkeys(group.axis for group in found.subgroups)
        ],
        pointing=plots.pointing_bars(found.pointing) if found.pointing else "",
        apart=_apart(found.against) if found.against else "",
    )  # fmt: skip
    out.write_text(html, encoding="utf-8")


def _apart(against: Against) -> str:
    """The differences from another model, rarest finding first."""
    rows: list[tuple[str, Interval | None]] = [
        (f"{plots.readable(one.finding)} ({one.positives} of {one.films})", one.auroc)
        for one in sorted(against.findings, key=lambda one: one.positives)
    ]
    label = f"AUROC minus {against.model['name']}'s, 95 % interval"
    return plots.forest([*rows, ("mean", against.mean_auroc)], label, zero=True)
