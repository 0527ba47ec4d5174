import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cxredge.bundle.manifest import Manifest
from cxredge.errors import OutputError
from cxredge.metrics import Interval
from cxredge.report.files import atomic_write
from cxredge.report.tables import columns, guard, unguard, write_csv, write_summary
from cxredge.scan.reading import Priority, Reading, Status
from cxredge.scan.summary import LabelledFinding, Summary

DANGEROUS = [
    '=HYPERLINK("http://x","y").png',
    "+1.png",
    "-2+3.dcm",
    "@SUM(A1).png",
    "\t=1.png",
    "  =1.png",
    "'quoted.png",
    "\uff1d1.png",
]
HARMLESS = ["film.png", "ward 1/=1.png", 'a,b;"c".png', "line\nbreak.png", "return\rhere.png", "Ünïcode 胸.dcm"]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _named(*files: str) -> list[Reading]:
    return [Reading(file=file, status=Status.OK, priority=Priority.ROUTINE) for file in files]


def test_columns_are_those_of_the_design() -> None:
    assert ",".join(columns(("Effusion", "Mass"))) == (
        "file,status,reason,priority,top_finding,p_Effusion,p_Mass,flag_Effusion,flag_Mass,"
        "view,decode_ms,infer_ms,model_sha256,patient,note"
    )


def test_csv_holds_every_reading_in_the_order_given(
    tmp_path: Path, readings: list[Reading], manifest: Manifest
) -> None:
    write_csv(tmp_path / "results.csv", iter(readings), manifest.names)
    rows = _rows(tmp_path / "results.csv")
    assert [row["file"] for row in rows] == [reading.file for reading in readings]
    for row, reading in zip(rows, readings, strict=True):
        assert (row["status"], row["priority"], row["reason"]) == (reading.status, reading.priority, reading.reason)
        for name in manifest.names:
            if reading.status is Status.OK:
                assert row[f"p_{name}"] == f"{reading.probabilities[name]:.4f}"
                assert row[f"flag_{name}"] == ("1" if reading.flags[name] else "0")
            else:
                assert row[f"p_{name}"] == row[f"flag_{name}"] == row["infer_ms"] == ""


@pytest.mark.parametrize("text", DANGEROUS)
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(text: str) -> None:
    assert guard(text) == "'" + text


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_stays_as_it_is(text: str) -> None:
    assert guard(text) == text


def test_file_names_come_back_from_the_csv_exactly(tmp_path: Path) -> None:
    names = DANGEROUS + HARMLESS
    write_csv(tmp_path / "results.csv", _named(*names), ())
    assert [unguard(row["file"]) for row in _rows(tmp_path / "results.csv")] == names


def test_file_name_that_is_not_unicode_is_written_as_an_escape(tmp_path: Path) -> None:
    write_csv(tmp_path / "results.csv", _named("caf\udce9.png"), ())
    assert _rows(tmp_path / "results.csv")[0]["file"] == r"caf\udce9.png"


def test_old_table_stays_whole_when_writing_the_new_one_fails(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    write_csv(path, _named("old.png"), ())

    def broken() -> Any:
        yield from _named("new.png")
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        write_csv(path, broken(), ())
    assert [row["file"] for row in _rows(path)] == ["old.png"]
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_takes_bytes_and_leaves_no_other_file(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "new", "wb") as file:
        file.write(b"\x00\xff")
        assert not (tmp_path / "new").exists()
    assert (tmp_path / "new").read_bytes() == b"\x00\xff"
    assert list(tmp_path.iterdir()) == [tmp_path / "new"]


def test_atomic_write_says_what_to_do_when_the_disk_does_not_take_it(tmp_path: Path) -> None:
    said = r"results\.csv: cannot be written .* choose another --output"
    with pytest.raises(OutputError, match=said), atomic_write(tmp_path / "missing" / "results.csv"):
        pass


def test_summary_holds_the_fields_that_programs_read(tmp_path: Path, summary: Summary) -> None:
    write_summary(tmp_path / "summary.json", summary)
    said = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert {key: type(value).__name__ for key, value in said.items()} == {
        "folders": "list",
        "started": "str",
        "films": "int",
        "ok": "int",
        "refused": "int",
        "failed": "int",
        "resumed": "int",
        "priorities": "dict",
        "reasons": "dict",
        "decode": "dict",
        "inference": "dict",
        "whole": "dict",
        "films_per_second": "float",
        "peak_rss_mb": "float",
        "operating_point": "str",
        "model": "dict",
        "runtime": "dict",
        "device": "dict",
        "drift": "dict",
        "drift_by_finding": "dict",
        "labels": "list",
        "labelled": "NoneType",
        "points": "list",
        "ages": "NoneType",
        "dicom_out": "NoneType",
        "reduced_decoding": "bool",
    }
    assert said["whole"] == {"p50": 6.4, "p90": 8.9, "p99": 14.2, "n": 11}
    assert said["priorities"].keys() == {"urgent", "review", "routine", "refused"}


def test_summary_spells_out_intervals(tmp_path: Path, summary: Summary) -> None:
    labels = (LabelledFinding("Mass", 3, 9, Interval(0.7, 0.5, 0.9), None),)
    write_summary(tmp_path / "summary.json", replace(summary, labels=labels))
    said = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert said["drift"]["drift"] == {"value": -0.001, "low": -0.003, "high": 0.001}
    assert said["labels"][0]["auroc"] == {"value": 0.7, "low": 0.5, "high": 0.9}
