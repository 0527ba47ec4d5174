"""What the pictures, the tables, the page and the DICOM files say, word for word."""

import csv
import errno
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from house import EXAMPLES
from pydicom import dcmread

from cxredge import __version__
from cxredge.bundle.manifest import EngineGraph, Finding, Manifest
from cxredge.errors import OutputError
from cxredge.imaging.dicom_identity import derived_uid, read_source
from cxredge.report import dicom_out, dicom_sc, files
from cxredge.report.dicom_sr import structured_report
from cxredge.report.heat_maps import draw
from cxredge.report.html import write_report
from cxredge.report.tables import guard, unguard
from cxredge.scan.reading import Priority, Reading, Status
from cxredge.scan.scanner import Pictures
from cxredge.scan.summary import Summary

SPLIT = {
    "x;=cmd|'/C calc'!A0;.jpg": "x;'=cmd|'/C calc'!A0;.jpg",
    ";=1": ";'=1",
    "=1;+2": "'=1;'+2",
    "x; -1": "x;' -1",
    'x;"=1': "x;'\"=1",
    "x;\t@1": "x;'\t'@1",
    "x;\uff1d1": "x;'\uff1d1",
    "x;'=1": "x;''=1",
    "x\n=1": "x\n'=1",
    "a;b\tc; d.png": "a;b\tc; d.png",
    "\t'x": "'\t'x",
    "'\t'x": "''\t''x",
}
NEARLY_CERTAIN = "score 0.99, flagged from 0.050"


@pytest.fixture
def certain(manifest: Manifest) -> Reading:
    return Reading(
        file="film.dcm",
        status=Status.OK,
        priority=Priority.URGENT,
        probabilities=dict.fromkeys(manifest.names, 0.9996),
        flags=dict.fromkeys(manifest.names, True),
        model_sha256=manifest.files[manifest.model],
    )


def _finding(manifest: Manifest) -> Finding:
    return manifest.findings[manifest.names.index("Edema")]


def test_heat_map_never_says_that_a_score_is_certain(certain: Reading, manifest: Manifest) -> None:
    said = draw(certain, b"", {"Edema": b""}, {"Edema": _finding(manifest)})
    assert NEARLY_CERTAIN in said


def test_secondary_capture_never_says_that_a_score_is_certain(
    certain: Reading, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def capture(_path: Path, _overlay: bytes, lines: list[str]) -> None:
        said.extend(lines)
        raise InterruptedError

    monkeypatch.setattr(dicom_sc, "capture", capture)
    film = EXAMPLES / "chest-cr.dcm"
    with pytest.raises(InterruptedError):
        dicom_sc.secondary_capture(
            film, read_source(film), b"", _finding(manifest), certain, manifest, uid=derived_uid("sc")
        )
    assert NEARLY_CERTAIN in said[0]


@pytest.mark.parametrize("text", SPLIT)
def test_text_that_a_spreadsheet_splits_holds_no_formula_and_comes_back(text: str) -> None:
    assert guard(text) == SPLIT[text]
    assert unguard(guard(text)) == text


@pytest.mark.parametrize("text", SPLIT)
@pytest.mark.parametrize("place", [0, 1])
def test_no_cell_begins_a_formula_where_semicolons_separate(text: str, place: int) -> None:
    table = io.StringIO(newline="")
    csv.writer(table).writerow([*["film"] * place, guard(text), "end"])
    cells = [cell for row in csv.reader(io.StringIO(table.getvalue(), newline=""), delimiter=";") for cell in row]
    assert not [cell for cell in cells if cell.lstrip(" ").startswith(("=", "+", "-", "@", "\uff1d"))]


def test_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, content: Any) -> int:
            if self.tell() + len(content) > 4096:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(content)

    monkeypatch.setattr(files, "_create", lambda _path, _mode: Full())
    with pytest.raises(OutputError, match=r"cannot be written \(No space left on device\)") as raised:
        dicom_out._save(tmp_path / "dicom" / "sr-1.dcm", dcmread(EXAMPLES / "chest-cr.dcm"), [])
    assert len(str(raised.value).splitlines()) == 1


def test_page_names_the_version_and_the_precision_that_read_the_films(
    tmp_path: Path, summary: Summary, manifest: Manifest
) -> None:
    older = manifest.model_copy(update={"software": {"cxredge": "0.0.1"}})
    ran = replace(summary, model={**summary.model, "precision": "fp16"})
    page = write_report(tmp_path, summary=ran, manifest=older, readings=[], pictures=lambda _file: Pictures())
    text = page.read_text(encoding="utf-8")
    assert f"Made offline by cxredge {__version__}." in text
    assert "mobilenet_v2, fp16</dd>" in text


@pytest.mark.parametrize(("file", "weights"), [("tensorrt/fp16.onnx",) * 2, ("openvino/fp16.xml", "openvino/fp16.bin")])
def test_structured_report_names_the_graph_that_gave_the_scores(
    certain: Reading, manifest: Manifest, file: str, weights: str
) -> None:
    graph = EngineGraph(file=file, precision="fp16", logits="logits_fp16", tolerance=manifest.tolerance)
    engine = file.partition("/")[0]
    both = manifest.model_copy(update={"graphs": {engine: graph}, "files": {**manifest.files, weights: "77" * 32}})
    source = read_source(EXAMPLES / "chest-cr.dcm")

    def said(reading: Reading) -> str:
        document = structured_report(source, reading, both, uid=derived_uid("sr"))
        return "\n".join(str(element.value) for element in document.iterall() if element.keyword == "TextValue")

    own, portable = said(replace(certain, model_sha256="77" * 32)), said(certain)
    assert "mobilenet_v2, fp16, cxredge" in own
    assert f"{engine} runs {file} (fp16)" in own
    assert "mobilenet_v2, int8, cxredge" in portable
    assert "fp16" not in portable
