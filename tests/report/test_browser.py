"""The report in a real browser: the page's own security policy must let its script run, and nothing else."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cxredge.bundle.manifest import Manifest
from cxredge.report.html import write_report
from cxredge.scan.reading import Reading
from cxredge.scan.summary import Summary

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--dump-dom",
]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome is installed")
def test_script_runs_and_a_hostile_file_name_does_not(
    tmp_path: Path,
    summary: Summary,
    manifest: Manifest,
    readings: list[Reading],
    pictures: Callable[[str], tuple[bytes | None, bytes | None]],
) -> None:
    hostile = replace(readings[-1], file="<img src=x onerror=document.title='taken'>.jpg")
    report = write_report(
        tmp_path, summary=summary, manifest=manifest, readings=[*readings, hostile], pictures=pictures
    )
    shown = subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", report.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert f"Showing all {len(readings) + 1} films, most pressing first" in shown.stdout
    assert "<title>taken" not in shown.stdout
    assert "Content Security Policy" not in shown.stderr
    assert "Uncaught" not in shown.stderr
