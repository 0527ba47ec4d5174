"""`--explain` and `--no-explain` through the command line, on real films."""

import csv
import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from house import EXAMPLES, Cli

from cxredge.bundle import Bundle
from cxredge.report.heat_maps import file_name
from cxredge.scan.decide import margin
from cxredge.scan.explain import AT_MOST, explained
from cxredge.scan.scanner import Scanner

FILMS = ("00000457_002.jpg", "00003400_003.jpg", "chest-cr.dcm")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def films(cli: Cli) -> Path:
    folder = cli.folder / "films"
    folder.mkdir()
    for name in FILMS:
        shutil.copy(EXAMPLES / name, folder)
    return folder


def _flagged(out: Path) -> dict[str, int]:
    """Flagged findings per film, as the table has them."""
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        return {
            row["file"]: sum(row[key] == "1" for key in row if key.startswith("flag_")) for row in csv.DictReader(file)
        }


def test_every_flagged_film_has_its_heat_maps_in_the_folder_and_in_the_report(cli: Cli, films: Path) -> None:
    assert cli("scan", films, "--output", "out").returncode == 0
    flagged = _flagged(cli.folder / "out")
    page = (cli.folder / "out" / "report.html").read_text(encoding="utf-8")
    assert any(flagged.values())
    assert len(re.findall(r"data-heat=", page)) == sum(min(count, AT_MOST) for count in flagged.values())
    drawn = {}
    for path in (cli.folder / "out" / "heatmaps").iterdir():
        svg = ET.parse(path).getroot()  # noqa: S314 - written by the scan above
        said = " ".join(svg.itertext())
        assert "not a medical device" in said
        assert "strongest quarter" in said
        film = svg.findtext(f"{SVG}title", "").partition(":")[0]
        drawn[film] = (
            sum(text.get("class") == "name" for text in svg.iter(f"{SVG}text")) - 2
        )  # less file name and "The film"
    assert drawn == {film: min(count, AT_MOST) for film, count in flagged.items() if count}


def test_without_explain_there_is_no_map_and_asking_later_reads_only_flagged_films_again(cli: Cli, films: Path) -> None:
    out = cli.folder / "out"
    assert cli("scan", films, "--output", "out", "--no-explain").returncode == 0
    assert "data-heat=" not in (out / "report.html").read_text(encoding="utf-8")
    assert not (out / "heatmaps").exists()
    plain = _flagged(out)
    assert cli("scan", films, "--output", "out").returncode == 0
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["resumed"] == sum(not count for count in plain.values())
    assert _flagged(out) == plain
    assert list((out / "heatmaps").iterdir())
    assert cli("scan", films, "--output", "out", "--no-explain").returncode == 0
    assert json.loads((out / "summary.json").read_text(encoding="utf-8"))["resumed"] == len(FILMS)
    assert not (out / "heatmaps").exists()


def test_maps_are_of_flagged_findings_those_with_evidence_first(bundle: Bundle) -> None:
    findings = {finding.name: finding for finding in bundle.manifest.findings}
    with Scanner(bundle) as scanner:
        for name in FILMS:
            reading, pictures = scanner.read_with_pictures(EXAMPLES / name)
            shown = list(pictures.heat_maps or {})
            assert shown == explained(reading, bundle.manifest)
            assert all(reading.flags[finding] for finding in shown)
            order = [(findings[f].experimental, -margin(reading.probabilities[f], findings[f])) for f in shown]
            assert order == sorted(order)
            if reading.top_finding:
                assert shown[0] == reading.top_finding
            assert scanner.read_with_pictures(EXAMPLES / name, heat_maps_too=False)[1].heat_maps is None


@pytest.mark.parametrize(
    "film", ["../../etc/passwd", "a/b c.dcm", ".hidden", "x" * 300, "caf\\xe9\udce9.png", "con", "<b>&.jpg"]
)
def test_file_name_of_a_map_leaves_no_folder_whatever_the_film_is_called(film: str) -> None:
    name = file_name(film, b"content")
    assert re.fullmatch(r"[^/\\:*?\"<>|\x00-\x20]+-[0-9a-f]{12}\.svg", name)
    assert not name.startswith(".")
    assert len(name) < 120
    assert name != file_name(film + "2", b"content")
