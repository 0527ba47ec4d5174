"""The films in examples/ give, byte for byte, the network input that shipped models were verified with."""

import csv
import hashlib
import json
from pathlib import Path

import pytest
from pydicom import dcmread

from cxredge.imaging import Preprocessing, read_film

PINS = json.loads((Path(__file__).parent / "example_hashes.json").read_text())
FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"),
    *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
)
IDENTIFYING = ("PatientName", "PatientBirthDate", "StudyDate", "AccessionNumber", "ReferringPhysicianName")


@pytest.mark.parametrize("name", PINS)
@pytest.mark.parametrize("clahe", [False, True], ids=["plain", "clahe"])
def test_example_gives_the_pinned_network_input(examples: Path, name: str, clahe: bool) -> None:
    film = read_film(examples / name, Preprocessing(clahe=clahe))
    assert hashlib.sha256(film.image.tobytes()).hexdigest() == PINS[name]["clahe" if clahe else "plain"]


def test_every_example_film_is_pinned(examples: Path) -> None:
    films = {path.name for path in examples.iterdir()} - {"README.md", "labels.csv"}
    assert films == set(PINS)


def test_examples_stay_small_and_are_all_explained(examples: Path) -> None:
    assert sum(path.stat().st_size for path in examples.iterdir()) < 4_000_000
    explained = (examples / "README.md").read_text()
    assert all(f"`{name}`" in explained for name in PINS)


def test_labels_name_example_films_and_the_fourteen_findings(examples: Path) -> None:
    with (examples / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", *FINDINGS]
    assert len(rows) == 6
    for row in rows:
        assert row["file"] in PINS
        assert {row[finding] for finding in FINDINGS} <= {"0", "1"}


@pytest.mark.parametrize("name", [name for name in PINS if name.endswith(".dcm")])
def test_example_headers_identify_nobody_and_say_how_they_were_made(examples: Path, name: str) -> None:
    dataset = dcmread(examples / name)
    assert not any(str(dataset.get(keyword, "")) for keyword in IDENTIFYING)
    assert dataset.PatientID.startswith("EXAMPLE-")
    assert dataset.ImageType[0] == "DERIVED"
    assert dataset.DerivationDescription
