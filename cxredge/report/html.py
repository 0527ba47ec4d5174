"""`report.html`: the worklist for a person, one page that needs no network and no server."""

import base64
import hashlib
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from cxredge.bundle.manifest import Finding, Manifest
from cxredge.metrics import Interval
from cxredge.report.advice import advice
from cxredge.report.files import atomic_write
from cxredge.scan.reading import ORDER, Priority, Reading, Status
from cxredge.scan.summary import Summary

if TYPE_CHECKING:
    from jinja2 import Environment

# Above it the page would take a clinic's old laptop too long to open, so pictures lie beside it.
EMBED_AT_MOST = 300
FOLDER = "thumbnails"
# The bar of a flagged finding spans this many units of log-odds either side of its threshold.
BAR_SPAN = 4.0
_HERE = Path(__file__).parent
_NO_BREAK = "\N{NO-BREAK SPACE}"

MEANING = {
    Priority.URGENT: "Have these read first: a finding that may need treatment the same day stands out.",
    Priority.REVIEW: "Have these read next: at least one finding is flagged.",
    Priority.REFUSED: "These films are unread, not normal: somebody has to look at each of them.",
    Priority.ROUTINE: "Nothing with enough evidence flagged \N{EM DASH} not the same as normal. Have these read after the others.",
}


@dataclass(frozen=True)
class Flag:
    """A flagged finding of one film. index: its place in the model's order. bar: 0..1, where 0.5 is the threshold."""

    finding: Finding
    index: int
    score: float
    bar: float


@dataclass(frozen=True)
class Row:
    """One film as the template shows it. thumbnail, heat_map: what an <img> takes as its source, or ""."""

    reading: Reading
    badge: str
    advice: str
    flags: list[Flag]
    thumbnail: str
    heat_map: str


def write_report(
    out: Path,
    *,
    summary: Summary,
    manifest: Manifest,
    readings: Sequence[Reading],
    pictures: Callable[[str], tuple[bytes | None, bytes | None]],
) -> Path:
    """Write `report.html` into the folder `out`, which must exist, and return its path.

    readings: sorted by the caller, by `scan.reading.ORDER` first. pictures: a film's thumbnail and the heat map of
    its top finding, as JPEG, asked for one film at a time; up to 300 films they are embedded, above that they are
    written to `thumbnails/`. Raises OutputError.
    """
    album = Album(out / FOLDER, embed=len(readings) <= EMBED_AT_MOST)
    places = {finding.name: (index, finding) for index, finding in enumerate(manifest.findings)}
    rows = (_row(reading, places, album, *pictures(reading.file)) for reading in readings)
    style, script = _source("report.css"), _source("report.js")
    template = _environment().get_template("report.html.j2")
    page = template.stream(
        summary=summary,
        manifest=manifest,
        started=datetime.fromisoformat(summary.started),
        counts=_counts(readings),
        flagged=[sum(reading.flags.get(name, False) for reading in readings) for name in manifest.names],
        groups=groupby(rows, key=lambda row: row.reading.priority),
        meaning=MEANING,
        headline=headline(readings),
        first=next((reading.priority.value for reading in readings), ""),
        style=style,
        script=script,
        style_hash=_csp_hash(style),
        script_hash=_csp_hash(script),
    )
    page.enable_buffering(64)
    report = out / "report.html"
    with atomic_write(report, "wb") as file:
        page.dump(file, encoding="utf-8", errors="backslashreplace")
    album.drop_others()
    return report


def headline(readings: Sequence[Reading]) -> str:
    """What to do first, in one line."""
    count = _counts(readings)
    if urgent := count[Priority.URGENT]:
        return f"Start with {_films(urgent, 'urgent ')}"
    if review := count[Priority.REVIEW]:
        return f"No urgent film. Start with {_films(review)} to review"
    if refused := count[Priority.REFUSED]:
        return f"Start with {_films(refused)} without a result"
    return (
        "Nothing with enough evidence flagged \N{EM DASH} not the same as normal" if readings else "No film was found"
    )


def _counts(readings: Sequence[Reading]) -> dict[Priority, int]:
    return {priority: sum(reading.priority is priority for reading in readings) for priority in ORDER}


def _films(n: int, kind: str = "") -> str:
    return f"{n} {kind}film{'' if n == 1 else 's'}"


class Album:
    """Where pictures go: into the page, or below `folder` under the hash of what they show.

    Named by content, pictures of an earlier report stay valid until this one has taken its place.
    """

    def __init__(self, folder: Path, *, embed: bool) -> None:
        self._folder, self._embed = folder, embed
        self._kept: set[str] = set()

    def source(self, jpeg: bytes | None) -> str:
        """What an <img> takes; "" for no picture. Raises OSError when the folder cannot be written."""
        if jpeg is None:
            return ""
        if self._embed:
            return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
        name = f"{hashlib.sha256(jpeg).hexdigest()[:20]}.jpg"
        self._folder.mkdir(exist_ok=True)
        (self._folder / name).write_bytes(jpeg)
        self._kept.add(name)
        return f"{FOLDER}/{name}"

    def drop_others(self) -> None:
        """Remove pictures that no report shows any more: they are patients' films."""
        for path in self._folder.glob("[0-9a-f]" * 20 + ".jpg"):
            if path.name not in self._kept:
                with suppress(OSError):
                    path.unlink()


def _row(
    reading: Reading, places: dict[str, tuple[int, Finding]], album: Album, film: bytes | None, heat_map: bytes | None
) -> Row:
    flags = [
        Flag(finding, index, reading.probabilities[name], bar(reading.probabilities[name], finding.balanced.threshold))
        for name, (index, finding) in places.items()
        if reading.flags.get(name)
    ]
    flags.sort(key=lambda flag: (flag.finding.experimental, -flag.bar))
    badge = reading.priority.value if reading.status is Status.OK else reading.status.value
    return Row(reading, badge, advice(reading), flags, album.source(film), album.source(heat_map))


def bar(score: float, threshold: float) -> float:
    """Length of a score's bar: 0.5 at the threshold, 0 and 1 at `BAR_SPAN` log-odds below and above it.

    On the scale of log-odds, as in `decide`, so that a rare finding's 0.07 above a threshold of 0.04 can be seen.
    """
    beyond = _log_odds(score) - _log_odds(threshold)
    return 0.5 + min(max(beyond / BAR_SPAN, -1.0), 1.0) / 2


def _log_odds(p: float) -> float:
    p = min(max(p, 1e-6), 1 - 1e-6)
    return math.log(p / (1 - p))


def _source(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _csp_hash(source: str) -> str:
    """The hash by which the page's Content-Security-Policy admits this one style or script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _environment() -> "Environment":
    # Jinja is needed for this page alone; a film read from Python does not wait for it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        score=score_text,
        figure=figure,
        change=change,
        of_100=of_100,
        complement=complement,
        ms=milliseconds,
        sentence=sentence,
    )
    return environment


def score_text(p: float) -> str:
    """Two decimals, three below 0.1; never 1.00, which would read as certainty."""
    return f"{p:.3f}" if p < 0.0995 else f"{min(p, 0.99):.2f}"


def figure(interval: Interval) -> str:
    """0.812 (0.780-0.841)."""
    return f"{interval.value:.3f}{_NO_BREAK}({interval.low:.3f}\N{EN DASH}{interval.high:.3f})"


def change(interval: Interval) -> str:
    """A signed difference: -0.003 (-0.008 to +0.002)."""
    text = f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"
    return text.replace("-", "\N{MINUS SIGN}").replace(" ", _NO_BREAK)


def of_100(share: Interval) -> str:
    """A share in films of a hundred: 84 (78-89)."""
    value, low, high = (round(100 * x) for x in (share.value, share.low, share.high))
    return f"{value}{_NO_BREAK}({low}\N{EN DASH}{high})"


def complement(share: Interval) -> Interval:
    """The films that are not in a share: 1 - specificity is the share flagged without the finding."""
    return Interval(1 - share.value, 1 - share.high, 1 - share.low)


def milliseconds(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def sentence(text: str) -> str:
    """With a capital at its beginning and the rest as it is, unlike Jinja's `capitalize`."""
    return text[:1].upper() + text[1:]
