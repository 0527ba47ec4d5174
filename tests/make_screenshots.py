"""Draw docs/report.png, docs/report-large.png and docs/report-phone.png from a scan of examples/.

    python tests/make_screenshots.py

Needs Chromium. Run it again whenever the page or the shipped model changes.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from cxredge.benchmarks.browser import CHROMIUM, MISSING, Browser

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def main() -> None:
    if CHROMIUM is None:
        sys.exit(MISSING)
    with tempfile.TemporaryDirectory() as scratch:
        # From the root, so that the page names the folder as a reader would.
        command = [sys.executable, "-m", "cxredge", "scan", "examples", "--output", f"{scratch}/out", "--restart"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        page = Path(scratch) / "out" / "report.html"
        browser = Browser(Path(scratch) / "profile")
        browser.open(page, width=1100, height=1250)
        _save("report.png", browser)
        _open_first_heat_map(browser)
        _save("report-large.png", browser)
        browser.open(page, width=390, height=844, phone=True)
        _save("report-phone.png", browser)
        browser.close()


def _open_first_heat_map(browser: Browser) -> None:
    browser.evaluate(
        "[...document.querySelectorAll('.film')].find((f) => f.querySelector('[data-heat^=data]')).querySelector('.thumb').click()"
    )
    while browser.evaluate("document.querySelector('#heat').hidden"):
        browser.press("h")
    browser.evaluate("Promise.all(['picture', 'heat'].map((id) => document.getElementById(id).decode()))")


def _save(name: str, browser: Browser) -> None:
    (DOCS / name).write_bytes(browser.screenshot())
    print(DOCS / name)


if __name__ == "__main__":
    main()
