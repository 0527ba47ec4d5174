import base64
import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from cxredge.bundle.manifest import Manifest
from cxredge.errors import OutputError, Refusal
from cxredge.report.advice import advice
from cxredge.report.heat_maps import score_text
from cxredge.report.html import EMBED_AT_MOST, Tally, bar, headline, write_report
from cxredge.scan.reading import Priority, Reading, Status
from cxredge.scan.scanner import Pictures
from cxredge.scan.summary import LabelledFinding, Summary

PicturesOf = Callable[[str], Pictures]
HOSTILE = "<img src=x onerror=alert(1)>.jpg"


class Page(HTMLParser):
    """What a browser would make of the report, as far as these tests ask."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.names: list[str] = []
        self._in_name = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "bdi":
            self._in_name = True
            self.names.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "bdi":
            self._in_name = False

    def handle_data(self, data: str) -> None:
        if self._in_name:
            self.names[-1] += data

    def images(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "img"]


@pytest.fixture
def written(
    tmp_path: Path, summary: Summary, manifest: Manifest, readings: list[Reading], pictures: PicturesOf
) -> Callable[..., str]:
    """Writes the sample's report, with other arguments where told, and returns its text."""

    def write(**other: object) -> str:
        arguments = {"summary": summary, "manifest": manifest, "readings": readings, "pictures": pictures, **other}
        return write_report(tmp_path, **arguments).read_text(encoding="utf-8")  # type: ignore[arg-type]

    return write


def test_every_film_is_in_the_report_once_in_the_order_given(
    written: Callable[..., str], readings: list[Reading]
) -> None:
    assert Page(written()).names == [reading.file for reading in readings]


def test_hostile_file_name_is_text_and_never_markup(written: Callable[..., str], readings: list[Reading]) -> None:
    readings[0] = replace(readings[0], file=HOSTILE)
    text = written(readings=readings, pictures=lambda _: Pictures(b"jpeg", {}))
    page = Page(text)
    assert page.names[0] == HOSTILE
    assert not any("onerror" in attributes or attributes.get("src") == "x" for _, attributes in page.tags)
    assert HOSTILE not in text


def test_file_name_that_is_not_unicode_does_not_stop_the_report(
    written: Callable[..., str], readings: list[Reading]
) -> None:
    readings[0] = replace(readings[0], file="caf\udce9.png")
    assert r"caf\udce9.png" in written(readings=readings, pictures=lambda _: Pictures())


def test_page_asks_nothing_of_any_network(written: Callable[..., str]) -> None:
    page = Page(written())
    for tag, attributes in page.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base"}
        for name in ("src", "href", "data-heat", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/jpeg;base64,", "data:image/png;base64,"))


def test_security_policy_admits_this_style_and_script_and_nothing_else(written: Callable[..., str]) -> None:
    text = written()
    policy = next(a["content"] or "" for tag, a in Page(text).tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        (source,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    names = {name for _, attributes in Page(text).tags for name in attributes}
    assert not any(name == "style" or name.startswith("on") for name in names)


def test_every_picture_has_a_text_and_up_to_300_films_are_embedded(
    written: Callable[..., str], tmp_path: Path, readings: list[Reading]
) -> None:
    shown = [image for image in Page(written()).images() if "src" in image]
    assert len(shown) == sum(reading.status is Status.OK for reading in readings)
    assert all(image["alt"] for image in shown)
    with Image.open(io.BytesIO(base64.b64decode((shown[0]["src"] or "").partition(",")[2]))) as picture:
        assert picture.format == "JPEG"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heatmaps", "report.html"]


def test_above_300_films_pictures_lie_beside_the_page(
    written: Callable[..., str], tmp_path: Path, readings: list[Reading], pictures: PicturesOf
) -> None:
    scored = next(reading for reading in readings if reading.top_finding)
    many = [replace(scored, file=f"{i}.png") for i in range(EMBED_AT_MOST + 1)]
    page = Page(written(readings=many, pictures=lambda _: pictures(scored.file)))
    assert len(page.names) == EMBED_AT_MOST + 1
    shown = [image for image in page.images() if "src" in image]
    assert {image["loading"] for image in shown} == {"lazy"}
    assert {image["src"] for image in shown} == {
        f"thumbnails/{path.name}" for path in (tmp_path / "thumbnails").iterdir()
    }
    shown_from = {(a["data-heat"] or "").partition("#")[0] for _, a in page.tags if a.get("data-heat")}
    assert shown_from == {f"heatmaps/{path.name}" for path in (tmp_path / "heatmaps").iterdir()}


def test_pictures_of_an_earlier_report_are_removed_and_other_files_kept(
    written: Callable[..., str], tmp_path: Path
) -> None:
    folder = tmp_path / "thumbnails"
    folder.mkdir()
    (folder / ("0" * 20 + ".jpg")).write_bytes(b"a patient's film")
    (folder / "mine.jpg").write_bytes(b"not ours")
    maps = tmp_path / "heatmaps"
    maps.mkdir()
    (maps / f"gone.dcm-{'0' * 12}.svg").write_bytes(b"a patient's heat map")
    (maps / "mine.svg").write_bytes(b"not ours")
    written()
    assert [path.name for path in folder.iterdir()] == ["mine.jpg"]
    assert (maps / "mine.svg").is_file()
    assert not list(maps.glob("gone*"))


def test_old_report_stays_when_the_new_one_cannot_be_finished(written: Callable[..., str], tmp_path: Path) -> None:
    old = written()

    def full_disk(_: str) -> Pictures:
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        written(pictures=full_disk)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == old


@pytest.mark.parametrize("refusal", list(Refusal))
def test_every_refusal_says_what_to_do(written: Callable[..., str], refusal: Refusal) -> None:
    reading = Reading("a.dcm", Status.REFUSED, Priority.REFUSED, refusal.code, refusal.value)
    text = written(readings=[reading])
    assert advice(reading) in text
    assert advice(reading) != advice(replace(reading, reason="something new"))
    assert "unread, not normal" in text


def test_routine_is_called_nothing_flagged_and_never_normal(
    written: Callable[..., str], readings: list[Reading]
) -> None:
    routine = [reading for reading in readings if reading.priority is Priority.ROUTINE]
    text = written(readings=routine)
    assert "Nothing with enough evidence flagged \N{EM DASH} not the same as normal" in text
    said = re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
    assert not re.search(r"(?<!the same as )\bnormal\b", said)


def test_experimental_finding_is_marked_and_last(written: Callable[..., str], manifest: Manifest) -> None:
    experimental = next(finding.name for finding in manifest.findings if finding.experimental)
    probabilities = dict.fromkeys(manifest.names, 0.0) | {experimental: 0.99, "Mass": 0.5}
    flags = {name: p > 0 for name, p in probabilities.items()}
    scored = Reading("a.png", Status.OK, Priority.REVIEW, top_finding="Mass", probabilities=probabilities, flags=flags)
    film = written(readings=[scored]).partition('<li class="film"')[2].partition("</section>")[0]
    assert film.index(">Mass ") < film.index("Experimental, does not drive priority") < film.index(f">{experimental}<")


def test_evidence_speaks_in_films_of_a_hundred(written: Callable[..., str]) -> None:
    assert (
        "Of 100 films with Effusion about 81 are flagged (95&nbsp;% interval 77\N{EN DASH}85); of 100 without it about 22"
        " are flagged too (20\N{EN DASH}24). Measured on 1000 validation films, 203 of them with it."
    ) in written()


def test_rare_findings_come_first_in_the_table_of_accuracy(written: Callable[..., str]) -> None:
    table = written().partition('aria-label="AUROC per finding"')[2].partition("</table>")[0]
    positives = [int(n) for n in re.findall(r"</th><td>(\d+)</td>", table)]
    assert positives == sorted(positives)
    assert len(positives) == 10


def test_labels_of_the_run_are_shown_only_when_given(
    written: Callable[..., str], summary: Summary, manifest: Manifest
) -> None:
    assert "This run against its labels" not in written()
    mass = manifest.findings[3]
    labels = (
        LabelledFinding("Mass", 12, 88, mass.test_auroc, mass.balanced),
        LabelledFinding("Edema", 0, 100, None, None),
    )
    text = written(summary=replace(summary, labels=labels))
    assert "This run against its labels" in text
    assert "too few films" in text


def test_run_without_any_film_or_timing_is_reported_too(written: Callable[..., str], summary: Summary) -> None:
    nothing = replace(
        summary, films=0, decode=None, inference=None, whole=None, films_per_second=None, peak_rss_mb=None
    )
    assert "No film was found" in written(readings=[], summary=nothing)


def test_pseudonym_and_note_are_shown_and_a_name_never(written: Callable[..., str], readings: list[Reading]) -> None:
    readings[0] = replace(
        readings[0], patient="P-7QX2", patient_id="4711", patient_name="ZZTOP^CANARY", note="the same picture as b.dcm"
    )
    text = written(readings=readings, pictures=lambda _: Pictures())
    assert "Patient <bdi>P-7QX2</bdi>" in text
    assert "The same picture as b.dcm" in text
    assert "ZZTOP" not in text
    assert "4711" not in text


def test_headline_says_what_to_do_first(readings: list[Reading], manifest: Manifest) -> None:
    kinds = {priority: [reading for reading in readings if reading.priority is priority] for priority in Priority}

    def said(some: list[Reading]) -> str:
        return headline(Tally.of(some, manifest.names).priorities)

    assert said(kinds[Priority.URGENT][:1] + kinds[Priority.REVIEW]) == "Start with 1 urgent film"
    assert said(kinds[Priority.REVIEW][:2]) == "No urgent film. Start with 2 films to review"
    assert said(kinds[Priority.REFUSED] + kinds[Priority.ROUTINE]) == "Start with 3 films without a result"
    assert said(kinds[Priority.ROUTINE]) == "Nothing with enough evidence flagged \N{EM DASH} not the same as normal"


def test_bar_is_half_full_at_the_threshold_and_grows_with_the_log_odds() -> None:
    assert bar(0.04, 0.04) == 0.5
    assert 0.5 < bar(0.07, 0.04) < bar(0.5, 0.04) < bar(1.0, 0.04) == 1.0
    assert bar(0.0, 0.9) == 0.0


def test_score_is_never_written_as_certain() -> None:
    assert [score_text(p) for p in (0.004, 0.0996, 0.5, 0.999)] == ["0.004", "0.10", "0.50", "0.99"]


def _luminance(colour: str) -> float:
    """Relative luminance of #rgb or #rrggbb (WCAG 2.2)."""
    digits = colour.lstrip("#") if len(colour) == 7 else "".join(2 * digit for digit in colour.lstrip("#"))
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(written: Callable[..., str], scheme: str) -> None:
    blocks = re.findall(r":root \{(.*?)\}", written(), re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#\w+)", blocks[0] + (blocks[1] if scheme == "dark" else "")))
    pairs = [(text, ground) for text in ("ink", "soft", "focus") for ground in ("ground", "card")]
    for priority in Priority:
        pairs += [(priority, ground) for ground in ("ground", "card", f"{priority}-tint")]
        pairs.append(("ink", f"{priority}-tint"))
    low = {pair: _contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}
    assert min(low.values()) >= 4.5, low
