"""`from cxredge import Scanner`: the same readings as the command line's, and nothing is loaded before it is asked for."""

import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path

import pytest
from house import EXAMPLES, Cli, rows_of

import cxredge
from cxredge import Reading, Scanner, Status
from cxredge.errors import KeyFileError


def test_importing_cxredge_loads_no_engine_and_no_decoder() -> None:
    heavy = "{'numpy', 'onnxruntime', 'PIL', 'pydicom', 'pydantic', 'typer', 'rich'}"
    program = f"import sys, cxredge; print(sorted({heavy} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_what_it_offers_is_there_and_nothing_else() -> None:
    for name in cxredge.__all__:
        assert getattr(cxredge, name) is not None
    assert set(dir(cxredge)) == set(cxredge.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Radiologist'"):
        cxredge.Radiologist  # noqa: B018 - the look-up is the test


def test_a_reading_from_python_is_the_row_of_the_command_line(cli: Cli, tmp_path: Path) -> None:
    assert cli("scan", EXAMPLES, "--output", "out").returncode == 0
    rows = {row["file"]: row for row in rows_of(tmp_path / "out")}
    with Scanner(salt=(tmp_path / "data/cxredge/pseudonym.salt").read_bytes()) as scanner:
        for path in EXAMPLES.iterdir():
            reading = scanner.read(path)
            assert isinstance(reading, Reading)
            row = rows[path.name]
            for name in ("status", "reason", "priority", "top_finding", "view", "patient", "note", "model_sha256"):
                assert getattr(reading, name) == row[name], (path.name, name)
            for finding, p in reading.probabilities.items():
                assert f"{p:.4f}" == row[f"p_{finding}"]
    assert Status.OK in {row["status"] for row in rows.values()}


def test_every_field_of_a_reading_is_documented() -> None:
    said = Reading.__doc__ or ""
    undocumented = {"status", "priority", "view", "model_sha256"}
    assert {field.name for field in fields(Reading)} - undocumented <= {
        word.strip(".,:;()`") for word in said.replace(",", " ").split()
    }


def test_a_bundle_can_be_given_by_its_folder_and_names_are_given_when_asked_for() -> None:
    with Scanner(cxredge.open_bundle().folder, with_patient_ids=True) as scanner:
        reading = scanner.read(str(EXAMPLES / "00000041_006.dcm"), name="ward/7.dcm")
    assert reading.file == "ward/7.dcm"
    assert reading.patient_id == "EXAMPLE-00000041_006"
    assert asdict(reading)["patient"].startswith("P-")


def test_an_open_bundle_must_be_signed_too_where_a_key_is_given(tmp_path: Path) -> None:
    bundle = cxredge.open_bundle()
    with pytest.raises(KeyFileError):
        Scanner(bundle, trust=tmp_path / "nobody.pub")
