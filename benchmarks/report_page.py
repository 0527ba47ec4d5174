"""How quickly a report of thousands of films is written, opened and filtered, in headless Chromium.

    python -m cxredge.benchmarks.report_page examples --films 300 --films 5000

The films of a folder are scanned once and stand under as many names as asked for, each with a picture of its own, so that
no browser cache helps. Opening is from navigation to the end of the page's load event; filtering is from the click on a
priority to the next frame.
"""

import json
import platform
import statistics
import tempfile
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cxredge import __version__
from cxredge.benchmarks.browser import Browser
from cxredge.devices import this_machine
from cxredge.report.html import write_report
from cxredge.scan.reading import ORDER, Priority
from cxredge.scan.run import scan
from cxredge.scan.scanner import Pictures, Scanner

FILTER = (
    "new Promise((done) => { const start = performance.now(); document.querySelector('.tile.review').click();"
    " requestAnimationFrame(() => setTimeout(() => done(performance.now() - start))) })"
)


def main(
    folder: Annotated[Path, typer.Argument(help="A folder of films.", show_default=False)],
    films: Annotated[list[int], typer.Option(min=1, help="Rows of the report.")] = [300, 5000],  # noqa: B006 - typer's way
    rounds: Annotated[int, typer.Option(min=1)] = 7,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON with every sample.", show_default=False)
    ] = None,
) -> None:
    """Seconds to write, milliseconds to open and to filter, megabytes of the page and of the folder beside it."""
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        summary, _ = scan([folder], Path(scratch) / "scan")
        with Scanner() as scanner:
            manifest = scanner.bundle.manifest
            read = [scanner.read_with_pictures(path) for path in sorted(folder.iterdir()) if path.is_file()]
        readings, shown = [reading for reading, _ in read], {reading.file: pictures for reading, pictures in read}
        browser = Browser(Path(scratch) / "profile")
        for count in films:
            rows = [
                replace(readings[i % len(readings)], file=f"{i:05}/{readings[i % len(readings)].file}")
                for i in range(count)
            ]
            rows.sort(key=lambda row: ORDER[row.priority])
            counts = {priority.value: sum(row.priority is priority for row in rows) for priority in Priority}
            out = Path(scratch) / str(count)
            out.mkdir()
            started = time.perf_counter()
            page = write_report(
                out,
                summary=replace(summary, films=count, priorities=counts),
                manifest=manifest,
                readings=rows,
                pictures=lambda file: _own(shown[file.partition("/")[2]], file),
            )
            written = time.perf_counter() - started
            opened = [browser.open(page) for _ in range(rounds)]
            beside = [path for path in out.rglob("*") if path.is_file() and path != page]
            found.append(
                {
                    "films": count,
                    "write_s": round(written, 2),
                    "page_mb": round(page.stat().st_size / 1e6, 2),
                    "pictures_beside": len(beside),
                    "pictures_mb": round(sum(path.stat().st_size for path in beside) / 1e6, 1),
                    "open_ms_median": statistics.median(opened),
                    "open_ms": opened,
                    "filter_ms": round(float(browser.evaluate(FILTER)), 1),
                    "elements": browser.evaluate("document.querySelectorAll('*').length"),
                }
            )
        browser.close()
    result = {
        "command": f"python -m cxredge.benchmarks.report_page {folder} {' '.join(f'--films {n}' for n in films)} --rounds {rounds}",
        "date": date.today().isoformat(),
        "cxredge": __version__,
        "python": platform.python_version(),
        "machine": this_machine().text,
        "reports": found,
    }
    Console().print_json(json.dumps(result))
    if output is not None:
        output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _own(pictures: Pictures, file: str) -> Pictures:
    """Bytes after a picture's end make it another file and change nothing of what it shows."""
    heat_maps = {name: png + file.encode() for name, png in (pictures.heat_maps or {}).items() if png}
    return Pictures(pictures.thumbnail and pictures.thumbnail + file.encode(), heat_maps)


if __name__ == "__main__":
    typer.run(main)
