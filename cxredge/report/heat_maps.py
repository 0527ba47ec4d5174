"""`heatmaps/`: one picture per flagged film, the film beside itself with each explained finding's evidence over it."""

import base64
import hashlib
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from html import escape
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from cxredge.bundle.manifest import Finding
from cxredge.imaging.codestream import coded_size
from cxredge.imaging.overlay import SCALE
from cxredge.report.files import write_picture
from cxredge.scan.discover import WRITTEN_IN
from cxredge.scan.reading import Reading
from cxredge.scan.scanner import Pictures

FOLDER = "heatmaps"
PANEL, GAP, TOP = 320, 16, 84
_OURS = WRITTEN_IN[FOLDER]


class Gallery:
    """Writes an SVG per film that has heat maps below `folder`.

    Any browser opens them, offline; made of text around two small pictures they cost next to nothing.
    """

    def __init__(self, folder: Path, findings: Sequence[Finding]) -> None:
        self._folder, self._findings = folder, {finding.name: finding for finding in findings}
        self.kept: set[str] = set()

    def add(self, reading: Reading, pictures: Pictures) -> dict[str, str]:
        """Draw a film's maps; returns where each is to be seen, as a link relative to the folder above. Raises OSError."""
        if not pictures.thumbnail or not pictures.heat_maps:
            return {}
        if not self.kept:
            self._folder.mkdir(exist_ok=True)
        width, height = _size(pictures.thumbnail)
        svg = draw(reading, pictures.thumbnail, pictures.heat_maps, self._findings).encode("utf-8", "backslashreplace")
        name = file_name(reading.file, svg)
        # The bytes of the link, also where the system's own encoding knows no such letter.
        path = self._folder / os.fsdecode(name.encode())
        write_picture(path, svg)
        self.kept.add(path.name)
        return {
            finding: f"{FOLDER}/{quote(name)}#svgView(viewBox({_left(place)},{TOP},{width:.1f},{height:.1f}))"
            if png
            else ""
            for place, (finding, png) in enumerate(pictures.heat_maps.items(), start=1)
        }

    def drop_others(self) -> None:
        """Remove what an earlier run drew and this one did not: they are patients' films."""
        for path in self._folder.glob("*.svg"):
            if path.name not in self.kept and _OURS.fullmatch(path.name):
                with suppress(OSError):
                    path.unlink()
        with suppress(OSError):
            self._folder.rmdir()


def file_name(film: str, content: bytes) -> str:
    """A name that tells the film and leaves no folder, whatever the film is called."""
    # File systems count bytes, and letters of some scripts take three.
    readable = (
        re.sub(r"[^\w.-]+", "_", PurePosixPath(film).name).encode()[:80].decode(errors="ignore").strip(".") or "film"
    )
    return f"{readable}-{hashlib.sha256(film.encode(errors='backslashreplace') + content).hexdigest()[:12]}.svg"


def draw(reading: Reading, thumbnail: bytes, heat_maps: dict[str, bytes], findings: dict[str, Finding]) -> str:
    """The film, then the film under each map, with the scale in words. thumbnail: JPEG; heat_maps: PNG per finding."""
    width, height = _size(thumbnail)
    size = f'width="{width:.1f}" height="{height:.1f}"'
    panels = [
        _panel(0, f'<image id="film" {size} href="{_data("jpeg", thumbnail)}"/>', "The film", "as the model saw it")
    ]
    for place, (name, png) in enumerate(heat_maps.items(), start=1):
        finding = findings[name]
        over = (
            f'<image {size} preserveAspectRatio="none" filter="url(#soft)" href="{_data("png", png)}"/>'
            if png
            else f'<text y="{height / 2:.0f}" x="{width / 2:.0f}" class="none">no place stands out</text>'
        )
        panels.append(_panel(place, f'<use href="#film"/>{over}', name.replace("_", " "), score_of(reading, finding)))
    name, title = escape(reading.file), escape(", ".join(heat_maps).replace("_", " "))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_left(max(len(panels), 3))} {height + 176:.0f}" role="img">'
        f'<title>{name}: {title}</title>{_HEAD}<text x="{GAP}" y="26" class="name">{name}</text>{"".join(panels)}'
        f'<g transform="translate({GAP} {height + 96:.0f})">{_LEGEND}</g></svg>\n'
    )


def score_of(reading: Reading, finding: Finding) -> str:
    """What a picture says of its finding: the score, where it is flagged, and whether that is experimental."""
    said = f"score {score_text(reading.probabilities[finding.name])}"
    said += f", flagged from {score_text(finding.balanced.threshold)}"
    return said + (", experimental" if finding.experimental else "")


def score_text(p: float) -> str:
    """Two decimals, three below 0.1; never 1.00, which would read as certainty."""
    return f"{p:.3f}" if p < 0.0995 else f"{min(p, 0.99):.2f}"


_HEAD = (
    "<style>text{font:14px system-ui,'Segoe UI',Roboto,sans-serif;fill:#18212b}.name{font-weight:600;font-size:16px}"
    ".none{fill:#fff;stroke:#000;stroke-width:3px;paint-order:stroke;text-anchor:middle}</style>"
    '<defs><filter id="soft" x="0" y="0" width="1" height="1"><feGaussianBlur stdDeviation="3"/></filter></defs>'
    '<rect width="100%" height="100%" fill="#fff"/>'
)
_LEGEND = (
    "".join(
        f'<g transform="translate({190 * i})"><rect width="18" height="18" fill="{step.colour}"/>'
        f'<text x="26" y="14">{step.words}</text></g>'
        for i, step in enumerate(SCALE[::-1])
    )
    + '<text y="42">Each colour holds a quarter of the evidence for the finding; what is left is spread over the rest of the'
    ' film.</text><text y="62">It shows what the model used, not where disease is. Research use; not a medical device.</text>'
)


def _panel(place: int, picture: str, name: str, said: str) -> str:
    return (
        f'<g transform="translate({_left(place)} {TOP})"><text y="-28" class="name">{escape(name)}</text>'
        f'<text y="-9">{escape(said)}</text>{picture}</g>'
    )


def _left(place: int) -> int:
    return GAP + place * (PANEL + GAP)


def _size(thumbnail: bytes) -> tuple[float, float]:
    """Width and height at which a film is drawn, in its own proportions."""
    rows, columns = coded_size(thumbnail) or (1, 1)
    return PANEL * columns / max(columns, rows), PANEL * rows / max(columns, rows)


def _data(kind: str, picture: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
