"""`report.html`: the worklist for a person, one page that needs no network and no server."""

import base64
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from cxredge import __version__
from cxredge.bundle.manifest import Finding, Manifest
from cxredge.folders import cache_folder
from cxredge.imaging.overlay import SCALE
from cxredge.metrics import Interval, in_words
from cxredge.report.advice import advice
from cxredge.report.files import atomic_write, flush_pictures, write_picture
from cxredge.report.heat_maps import FOLDER as HEAT_MAPS
from cxredge.report.heat_maps import Gallery, score_text
from cxredge.scan.reading import ORDER, Priority, Reading, Status
from cxredge.scan.scanner import Pictures
from cxredge.scan.summary import Summary

if TYPE_CHECKING:
    from jinja2 import Environment

# Above it the page would take a clinic's old laptop too long to open, so pictures lie beside it.
EMBED_AT_MOST = 300
FOLDER = "thumbnails"
# The bar of a flagged finding spans this many units of log-odds either side of its threshold.
BAR_SPAN = 4.0
# The page's security policy forbids styles within elements, so each length of a bar is a class.
_WIDTHS = "".join(f".w{percent}::before{{width:{percent}%}}" for percent in range(51))
_HERE = Path(__file__).parent
_NO_BREAK = "\N{NO-BREAK SPACE}"

MEANING = {
    Priority.URGENT: "Have these read first: a finding that may need treatment the same day stands out.",
    Priority.REVIEW: "Have these read next: a finding is flagged or nearly so, or the file contradicts itself.",
    Priority.REFUSED: "These films are unread, not normal: somebody has to look at each of them.",
    Priority.ROUTINE: "Nothing with enough evidence flagged \N{EM DASH} not the same as normal. Have these read after the others.",
}


@dataclass(frozen=True)
class Flag:
    """A flagged finding of one film. index: its place in the model's order. bar: 0..1, where 0.5 is the threshold.

    threshold: of the operating point in force. heat_map: what an <img> takes as its source; "" where no place stands
    out, None where none was drawn.
    """

    finding: Finding
    index: int
    score: float
    threshold: float
    bar: float
    heat_map: str | None


@dataclass(frozen=True)
class Row:
    """One film as the template shows it. thumbnail: what an <img> takes as its source, or ""."""

    reading: Reading
    badge: str
    advice: str
    flags: list[Flag]
    thumbnail: str


def write_report(
    out: Path,
    *,
    summary: Summary,
    manifest: Manifest,
    readings: Sequence[Reading],
    pictures: Callable[[str], Pictures],
) -> Path:
    """Write `report.html`, and `heatmaps/` where there are any, into the folder `out`, which must exist; return its path.

    readings: sorted by the caller, by `scan.reading.ORDER` first. pictures: a film's thumbnail and heat maps, asked for
    one film at a time; up to 300 films they are embedded, above that the page shows them from `thumbnails/` and
    `heatmaps/`. Raises OutputError.
    """
    album = Album(out / FOLDER, embed=len(readings) <= EMBED_AT_MOST)
    gallery = Gallery(out / HEAT_MAPS, manifest.findings)
    places = {finding.name: (index, finding) for index, finding in enumerate(manifest.findings)}
    tally = Tally.of(readings, manifest.names)
    rows = (_row(reading, places, album, gallery, pictures(reading.file)) for reading in readings)
    style, script = _source("report.css") + _WIDTHS, _source("report.js")
    template = _environment().get_template("report.html.j2")
    page = template.stream(
        summary=summary,
        manifest=manifest,
        version=__version__,
        started=datetime.fromisoformat(summary.started),
        counts=tally.priorities,
        flagged=tally.flagged,
        groups=groupby(rows, key=lambda row: row.reading.priority),
        meaning=MEANING,
        scale=SCALE[::-1],
        headline=headline(tally.priorities),
        first=next((priority.value for priority, count in tally.priorities.items() if count), ""),
        style=style,
        script=script,
        style_hash=_csp_hash(style),
        script_hash=_csp_hash(script),
    )
    page.enable_buffering(64)
    report = out / "report.html"
    with atomic_write(report, "wb") as file:
        page.dump(file, encoding="utf-8", errors="backslashreplace")
        if album.kept or gallery.kept:
            flush_pictures()
    album.drop_others()
    gallery.drop_others()
    return report


@dataclass(frozen=True)
class Tally:
    """Films per priority, in the order of the worklist, and films flagged per finding, in the model's order."""

    priorities: dict[Priority, int]
    flagged: list[int]

    @classmethod
    def of(cls, readings: Iterable[Reading], findings: tuple[str, ...]) -> "Tally":
        """One look at each reading: they may come from a disk."""
        priorities, flagged = dict.fromkeys(ORDER, 0), dict.fromkeys(findings, 0)
        for reading in readings:
            priorities[reading.priority] += 1
            for name, flag in reading.flags.items():
                flagged[name] += flag
        return cls(priorities, list(flagged.values()))


def headline(count: Mapping[Priority, int]) -> str:
    """What to do first, in one line. count: films per priority."""
    if urgent := count[Priority.URGENT]:
        return f"Start with {_films(urgent, 'urgent ')}"
    if review := count[Priority.REVIEW]:
        return f"No urgent film. Start with {_films(review)} to review"
    if refused := count[Priority.REFUSED]:
        return f"Start with {_films(refused)} without a result"
    return (
        "Nothing with enough evidence flagged \N{EM DASH} not the same as normal"
        if count[Priority.ROUTINE]
        else "No film was found"
    )


def _films(n: int, kind: str = "") -> str:
    return f"{n} {kind}film{'' if n == 1 else 's'}"


class Album:
    """Where pictures go: into the page, or below `folder` under the hash of what they show.

    Named by content, pictures of an earlier report stay valid until this one has taken its place.
    """

    def __init__(self, folder: Path, *, embed: bool) -> None:
        self._folder, self.embed = folder, embed
        self.kept: set[str] = set()

    def source(self, jpeg: bytes | None) -> str:
        """What an <img> takes; "" for no picture. Raises OSError when the folder cannot be written."""
        if not jpeg:
            return ""
        if self.embed:
            return embedded("jpeg", jpeg)
        name = f"{hashlib.sha256(jpeg).hexdigest()[:20]}.jpg"
        if not self.kept:
            self._folder.mkdir(exist_ok=True)
        write_picture(self._folder / name, jpeg)
        self.kept.add(name)
        return f"{FOLDER}/{name}"

    def drop_others(self) -> None:
        """Remove pictures that no report shows any more: they are patients' films."""
        for path in self._folder.glob("[0-9a-f]" * 20 + ".jpg"):
            if path.name not in self.kept:
                with suppress(OSError):
                    path.unlink()


def _row(
    reading: Reading, places: dict[str, tuple[int, Finding]], album: Album, gallery: Gallery, pictures: Pictures
) -> Row:
    drawn = gallery.add(reading, pictures)
    if album.embed:
        drawn = {name: embedded("png", png) if png else "" for name, png in (pictures.heat_maps or {}).items()}
    flags = [
        Flag(
            finding, index, reading.probabilities[name], finding.balanced.threshold,
            bar(reading.probabilities[name], finding.balanced.threshold), drawn.get(name),
        )
        for name, (index, finding) in places.items()
        if reading.flags.get(name)
    ]  # fmt: skip
    flags.sort(key=lambda flag: (flag.finding.experimental, -flag.bar))
    badge = reading.priority.value if reading.status is Status.OK else reading.status.value
    return Row(reading, badge, advice(reading), flags, album.source(pictures.thumbnail))


def embedded(kind: str, picture: bytes) -> str:
    """A picture as a data URL. kind: jpeg or png."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


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

    from cxredge.report.compiled import KeptTemplates

    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        bytecode_cache=KeptTemplates(cache_folder("templates"), made_by=Path(__file__).resolve()),
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


def figure(interval: Interval) -> str:
    """0.812 (0.780-0.841)."""
    return in_words(interval, least=3, space=_NO_BREAK)


def change(interval: Interval) -> str:
    """A signed difference: -0.003 (-0.008 to +0.002)."""
    text = f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"
    return text.replace("-", "\N{MINUS SIGN}").replace(" ", _NO_BREAK)


def of_100(share: Interval) -> str:
    """A share in films of a hundred: 84 (78-89); 99.96 (99.90-99.98), which is not all of them."""
    return in_words(share, whole=100, space=_NO_BREAK)


def complement(share: Interval) -> Interval:
    """The films that are not in a share: 1 - specificity is the share flagged without the finding."""
    return Interval(1 - share.value, 1 - share.high, 1 - share.low)


def milliseconds(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def sentence(text: str) -> str:
    """With a capital at its beginning and the rest as it is, unlike Jinja's `capitalize`."""
    return text[:1].upper() + text[1:]
