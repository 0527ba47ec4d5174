"""The report in a real browser: script and security policy, keyboard, heat maps, phone, print, accessibility."""

import io
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxredge.benchmarks.browser import CHROMIUM, MISSING, Browser
from cxredge.bundle.manifest import Manifest
from cxredge.report.html import EMBED_AT_MOST, write_report
from cxredge.scan.reading import Reading, Status
from cxredge.scan.scanner import Pictures
from cxredge.scan.summary import Summary

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
HOSTILE = "<img src=x onerror=document.title='taken'>.jpg"
SHOWN = "[...document.querySelectorAll('.film:not([hidden])')]"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def report(
    tmp_path: Path,
    summary: Summary,
    manifest: Manifest,
    readings: list[Reading],
    pictures: Callable[[str], Pictures],
) -> Path:
    hostile = replace(readings[-1], file=HOSTILE)
    return write_report(tmp_path, summary=summary, manifest=manifest, readings=[*readings, hostile], pictures=pictures)


@pytest.fixture
def page(browser: Browser, report: Path) -> Browser:
    """The report, opened at the size of a laptop's screen."""
    browser.messages.clear()
    browser.open(report)
    return browser


def test_script_runs_and_a_hostile_file_name_does_not(page: Browser, readings: list[Reading]) -> None:
    said = page.evaluate("document.querySelector('#count').textContent")
    assert said == f"Showing all {len(readings) + 1} films, most pressing first"
    assert "taken" not in page.evaluate("document.title")
    assert page.messages == []


def test_filters_by_priority_and_finding_and_shows_all_again(page: Browser, readings: list[Reading]) -> None:
    page.evaluate("document.querySelector('.tile.review').click()")
    review = [reading for reading in readings if reading.priority == "review"]
    assert page.evaluate(f"{SHOWN}.length") == len(review) > 0
    page.evaluate(
        "(() => { const f = document.querySelector('#finding'); f.value = '2'; f.dispatchEvent(new Event('change')); })()"
    )
    flagged = [reading.file for reading in review if reading.flags.get("Effusion")]
    assert page.evaluate(f"{SHOWN}.map((film) => film.querySelector('.name').textContent)") == flagged
    page.evaluate("document.querySelector('#clear').click()")
    assert page.evaluate(f"{SHOWN}.length") == len(readings) + 1


def test_worklist_is_worked_through_with_the_keyboard_alone(page: Browser) -> None:
    names = page.evaluate(f"{SHOWN}.map((film) => film.querySelector('.name').textContent)")
    focused = "document.activeElement.closest('.film')?.querySelector('.name').textContent"
    page.press("Tab", "Enter")
    assert page.evaluate("document.activeElement.id") == "worklist"
    page.press("j", "ArrowDown")
    assert page.evaluate(focused) == names[1]
    page.press("K")
    assert page.evaluate(focused) == names[0]
    page.press("End")
    assert page.evaluate(focused) == names[-1]
    page.press("Home", "Enter")
    assert page.evaluate("document.querySelector('#large').open")
    page.press("ArrowRight", "ArrowRight")
    assert page.evaluate("document.querySelector('#large-name').textContent") == names[2]
    page.press("Escape")
    page.evaluate("new Promise((done) => setTimeout(done, 100))")  # the dialog's `close` event comes after the key
    assert not page.evaluate("document.querySelector('#large').open")
    assert page.evaluate(focused) == names[2]


def test_focus_is_always_visible_and_in_the_order_of_the_page(page: Browser) -> None:
    seen = []
    for _ in range(14):
        page.press("Tab")
        seen.append(
            page.evaluate(
                "(() => { const e = document.activeElement, s = getComputedStyle(e), r = e.getBoundingClientRect();"
                " return [s.outlineStyle, parseFloat(s.outlineWidth), r.top + scrollY] })()"
            )
        )
    assert all(style == "solid" and width >= 2 for style, width, _ in seen[1:])
    assert [top for *_, top in seen[1:]] == sorted(top for *_, top in seen[1:])


def _open_film_with_maps(page: Browser) -> int:
    """Opens the first film with heat maps; returns how many it has."""
    return int(
        page.evaluate(
            f"(() => {{ const film = {SHOWN}.find((film) => film.querySelector('[data-heat^=data]'));"
            " film.querySelector('.thumb').click(); return film.querySelectorAll('[data-heat]').length })()"
        )
    )


def test_h_goes_through_the_heat_maps_and_back_to_the_film_alone(page: Browser) -> None:
    maps = _open_film_with_maps(page)
    pressed = (
        "[...document.querySelectorAll('#maps button')].findIndex((b) => b.getAttribute('aria-pressed') === 'true')"
    )
    assert page.evaluate(pressed) == 0
    assert page.evaluate("document.querySelector('#heat').hidden")
    for number in range(1, maps + 1):
        page.press("H")
        assert page.evaluate(pressed) == number
        name = page.evaluate(f"document.querySelectorAll('#maps button')[{number}].textContent")
        assert name in page.evaluate("document.querySelector('#caption').textContent")
        assert f"Of 100 films with {name} about" in page.evaluate("document.querySelector('#meaning').textContent")
        even = name == "Cardiomegaly"
        assert page.evaluate("document.querySelector('#heat').hidden") is even
        assert page.evaluate("document.querySelector('#scale').hidden") is even
        assert ("No place stands out" in page.evaluate("document.querySelector('#caption').textContent")) is even
    page.press("h")
    assert page.evaluate(pressed) == 0


def test_heat_map_lies_exactly_over_the_film(page: Browser) -> None:
    _open_film_with_maps(page)
    page.press("h")
    page.evaluate("Promise.all(['picture', 'heat'].map((id) => document.getElementById(id).decode()))")
    film, heat, ratio = page.evaluate(
        "(() => { const box = (id) => { const r = document.getElementById(id).getBoundingClientRect();"
        " return [r.left, r.top, r.width, r.height] }; const p = document.getElementById('picture');"
        " return [box('picture'), box('heat'), p.naturalWidth / p.naturalHeight] })()"
    )
    assert film == heat
    assert film[2] / film[3] == pytest.approx(ratio, rel=0.01)


@pytest.mark.parametrize("large", [False, True])
def test_phone_shows_everything_without_scrolling_sideways(browser: Browser, report: Path, large: bool) -> None:
    browser.open(report, width=360, height=740, phone=True)
    if large:
        _open_film_with_maps(browser)
    width = browser.evaluate(f"(document.querySelector('{'dialog' if large else 'html'}')).scrollWidth")
    assert width <= 360
    small = browser.evaluate(
        "[...document.querySelectorAll('button, select, input')].filter((e) => e.checkVisibility({contentVisibilityAuto: true}))"
        ".filter((e) => e.getBoundingClientRect().height < 44).map((e) => e.outerHTML)"
    )
    assert small == []


def test_print_shows_every_film_with_its_picture_and_the_notice(page: Browser) -> None:
    pdf = page.pdf()
    assert pdf.startswith(b"%PDF")
    pictures = page.evaluate("document.querySelectorAll('.film img').length")
    assert pdf.count(b"/Subtype /Image") >= min(pictures, 6)
    page.call("Emulation.setEmulatedMedia", media="print")
    shown = page.evaluate(
        "[['.tiles', '.tools', '.keys', 'dialog'], ['.notice', '.film', '.evidence']]"
        ".map((some) => some.map((s) => getComputedStyle(document.querySelector(s)).display !== 'none'))"
    )
    page.call("Emulation.setEmulatedMedia", media="")
    assert shown == [[False] * 4, [True] * 3]


def test_many_films_load_their_pictures_only_when_they_come_into_view(
    browser: Browser,
    tmp_path: Path,
    summary: Summary,
    manifest: Manifest,
    readings: list[Reading],
    pictures: Callable[[str], Pictures],
) -> None:
    scored = [reading for reading in readings if reading.status is Status.OK]
    many = [replace(scored[0], file=f"{i}.png") for i in range(400)]
    shown = pictures(scored[0].file)

    def one_of_its_own(file: str) -> Pictures:
        return replace(shown, thumbnail=(shown.thumbnail or b"") + file.encode())  # bytes after the end: another file

    report = write_report(tmp_path, summary=summary, manifest=manifest, readings=many, pictures=one_of_its_own)
    browser.open(report)
    loaded = browser.evaluate("[...document.querySelectorAll('.film img')].filter((i) => i.naturalWidth > 0).length")
    assert 0 < loaded < 100
    browser.evaluate("document.querySelectorAll('.thumb')[399].click()")
    browser.evaluate("document.querySelector('#picture').decode()")
    assert browser.evaluate("document.querySelector('#picture').naturalWidth") > 100
    assert browser.messages == []


def test_heat_map_from_its_file_looks_like_the_embedded_one(
    browser: Browser,
    tmp_path: Path,
    summary: Summary,
    manifest: Manifest,
    readings: list[Reading],
    pictures: Callable[[str], Pictures],
) -> None:
    film = next(reading for reading in readings if any((pictures(reading.file).heat_maps or {}).values()))
    shots = []
    for copies in (1, EMBED_AT_MOST + 1):
        out = tmp_path / str(copies)
        out.mkdir()
        rows = [replace(film, file=f"{i}.png") for i in range(copies)]
        browser.open(
            write_report(out, summary=summary, manifest=manifest, readings=rows, pictures=lambda _: pictures(film.file))
        )
        browser.evaluate("document.querySelector('.thumb').click()")
        browser.press("h")
        while browser.evaluate("document.querySelector('#heat').hidden"):
            browser.press("h")
        browser.evaluate("Promise.all(['picture', 'heat'].map((id) => document.getElementById(id).decode()))")
        shots.append(np.asarray(Image.open(io.BytesIO(browser.screenshot("#frame"))).convert("RGB"), np.int16))
    embedded, from_file = shots
    colour = embedded.max(2) - embedded.min(2)
    assert (colour > 40).mean() > 0.02
    assert np.abs(embedded - from_file).mean() < 4


AXE = os.environ.get("CXREDGE_AXE") or (
    str(Path(spec.origin).parent / "axe.min.js") if (spec := find_spec("axe_core_python")) and spec.origin else ""
)


@pytest.mark.skipif(not AXE, reason="axe-core-python is not installed")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "large"), [(1100, False), (360, False), (1100, True), (360, True)])
def test_axe_finds_no_violation(browser: Browser, report: Path, scheme: str, width: int, large: bool) -> None:
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    # content-visibility hides what is off the screen from axe, so the screen holds the whole page.
    browser.open(report, width=width, height=12000, phone=width < 500)
    browser.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    if large:
        _open_film_with_maps(browser)
        browser.press("h")
    browser.call("Runtime.evaluate", expression=Path(AXE).read_text(encoding="utf-8"))
    found = browser.evaluate(
        "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}).then((r) =>"
        " ({passes: r.passes.map((p) => p.id), violations: r.violations.map((v) =>"
        " [v.id, v.nodes.map((n) => n.html.slice(0, 200) + ' ' + n.failureSummary).slice(0, 3)])}))"
    )
    assert found["violations"] == []
    assert {"color-contrast", "button-name", "image-alt"} <= set(found["passes"])


def test_heat_map_file_opens_offline_and_shows_film_and_maps(browser: Browser, report: Path) -> None:
    files = sorted((report.parent / "heatmaps").iterdir())
    assert files
    browser.messages.clear()
    for file in files[:3]:
        browser.open(file)
        wide = browser.evaluate(
            "[...document.querySelectorAll('image')].every((i) => i.getBoundingClientRect().width > 50)"
        )
        assert wide
        assert "strongest quarter" in browser.evaluate("document.documentElement.textContent")
    assert browser.messages == []
