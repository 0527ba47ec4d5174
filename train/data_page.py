"""`data-check.html`: what `cxredge data check` found, for a person."""

from pathlib import Path

from cxredge.train import plots
from cxredge.train.data_check import DataCheck, SourceCheck
from cxredge.train.page import environment


def write_data_check(found: DataCheck, out: Path) -> None:
    """One self-contained page, with a figure of every data set's labels."""
    html = environment().get_template("data_check.html.j2").render(
        found=found,
        figures=[prevalence_plot(source) for source in found.sources],
        shares=[{(one.finding, one.split): one for one in source.prevalence} for source in found.sources],
        findings=[list(dict.fromkeys(one.finding for one in source.prevalence)) for source in found.sources],
    )  # fmt: skip
    out.write_text(html, encoding="utf-8")


def prevalence_plot(source: SourceCheck) -> str:
    """Share of films with each finding among those labelled for it, per split, with 95 % intervals; rarest at the bottom."""
    shares = {(one.finding, one.split): one.share for one in source.prevalence}
    highest = {one.finding: 0.0 for one in source.prevalence}
    for one in source.prevalence:
        highest[one.finding] = max(highest[one.finding], one.share.value if one.share else 0.0)
    findings = sorted(highest, key=lambda finding: -highest[finding])
    step = 0.6 / max(1, len(source.splits))
    with plots.drawing(6.4, 1.0 + 0.3 * len(findings)) as (figure, axes):
        ax = axes[0, 0]
        for place, split in enumerate(source.splits):
            colour, marker = plots.SERIES[place % len(plots.SERIES)]
            label: str | None = split
            for row, finding in enumerate(findings):
                share = shares[finding, split]
                if share is None:
                    continue
                y = row + (place - (len(source.splits) - 1) / 2) * step
                ax.plot([100 * share.low, 100 * share.high], [y, y], color=colour, lw=1.4)
                ax.plot(100 * share.value, y, marker, color=colour, ms=4.5, label=label)
                label = None
        ax.set_yticks(range(len(findings)), [plots.readable(finding) for finding in findings])
        ax.set(ylim=(len(findings) - 0.5, -0.5), xlabel="films with the finding, % of those labelled; 95 % interval")
        ax.set_xlim(left=0)
        ax.legend(loc="lower right")
        return plots.svg(figure)
