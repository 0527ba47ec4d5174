"""A patient's name goes nowhere unless it is asked for."""

import shutil
from pathlib import Path

import pydicom
import pytest
from house import EXAMPLES, Cli, rows_of
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset

from cxredge.imaging import Preprocessing, read_film
from cxredge.imaging.plane import Person
from cxredge.scan.pseudonym import own_salt, pseudonym

CANARY = "ZZTOP^CANARY"
NAMES = [tag for tag, (vr, *_) in DicomDictionary.items() if vr == "PN" and tag >> 16 not in (0, 2)]
# Where people write names though they should not.
OTHERS = ("PatientID", "OtherPatientIDs", "PatientComments", "StudyDescription", "AccessionNumber", "InstitutionName")
WRONG = ("BodyPartExamined", "Modality", "ViewPosition", "PatientAge", "PhotometricInterpretation", "Laterality")


def planted(source: Path, target: Path, **changes: str) -> Path:
    """A copy with the canary in every name there is, in sequences too, and what else is given."""
    dataset = pydicom.dcmread(source)
    for tag in NAMES:
        dataset.add_new(tag, "PN", CANARY)
    item = Dataset()
    item.PatientName = item.PatientID = CANARY
    dataset.OtherPatientIDsSequence = [item]
    for keyword in OTHERS:
        setattr(dataset, keyword, CANARY)
    dataset.add_new(0x00091001, "LO", CANARY)
    for keyword, value in changes.items():
        with pydicom.config.disable_value_validation():
            setattr(dataset, keyword, value)
    dataset.save_as(target)
    return target


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Good, cut-off, damaged and contradictory files of one patient, and what is no film."""
    folder = tmp_path / "films"
    folder.mkdir()
    good = planted(EXAMPLES / "00000041_006.dcm", folder / "good.dcm")
    planted(EXAMPLES / "leg-cr.dcm", folder / "leg.dcm")
    planted(EXAMPLES / "chest-cr.dcm", folder / "chest.dcm")
    for keyword in WRONG:
        planted(EXAMPLES / "00009683_000.dcm", folder / f"{keyword}.dcm", **{keyword: CANARY})
    whole = good.read_bytes()
    (folder / "cut.dcm").write_bytes(whole[:-3000])
    (folder / "header.dcm").write_bytes(whole[:2000])
    # Lengths of the elements that hold the name made absurd, one file each.
    for number, at in enumerate(i for i in range(len(whole)) if whole.startswith(CANARY.encode(), i)):
        if number < 4:
            (folder / f"length{number}.dcm").write_bytes(whole[: at - 2] + b"\xff\x7f" + whole[at:])
    (folder / "text.dcm").write_bytes(b"\0" * 128 + b"DICM" + CANARY.encode() * 50)
    return folder


def traces(folder: Path) -> list[str]:
    """Files below a folder that hold the canary, or a part of it, in their content or name; in UTF-16 too."""
    said = [part.encode(coding) for part in ("ZZTOP", "CANARY") for coding in ("utf-8", "utf-16-le", "utf-16-be")]
    return [
        str(path)
        for path in sorted(folder.rglob("*"))
        if "ZZTOP" in path.name or (path.is_file() and any(word in path.read_bytes() for word in said))
    ]


def test_a_planted_name_is_in_no_result_message_or_file_name(cli: Cli, tmp_path: Path, films: Path) -> None:
    run = cli("scan", films, "--output", "out", python=("-X", "dev", "-W", "always"))
    assert run.returncode in (0, 1), run.stderr
    assert "Traceback" not in run.stderr
    assert "ZZTOP" not in run.stdout + run.stderr
    assert traces(tmp_path / "out") + traces(tmp_path / "cache") + traces(tmp_path / "data") == []
    rows = {row["file"]: row for row in rows_of(tmp_path / "out")}
    assert rows["good.dcm"]["status"] == "ok"
    assert rows["good.dcm"]["patient"].startswith("P-")
    # The same patient, so the same pseudonym, refused or not.
    assert len({rows[name]["patient"] for name in ("good.dcm", "leg.dcm", "chest.dcm")}) == 1
    again = cli("scan", films, "--output", "out2")
    assert again.returncode in (0, 1)
    assert rows["good.dcm"]["patient"] == next(
        r["patient"] for r in rows_of(tmp_path / "out2") if r["file"] == "good.dcm"
    )


def test_names_appear_when_asked_for_and_are_forgotten_when_no_longer(cli: Cli, tmp_path: Path) -> None:
    film = planted(EXAMPLES / "00000041_006.dcm", tmp_path / "film.dcm")
    assert cli("scan", film, "--output", "out", "--with-patient-ids").returncode == 0
    row = rows_of(tmp_path / "out")[0]
    assert (row["patient_id"], row["patient_name"]) == (CANARY, CANARY)
    assert cli("scan", film, "--output", "out").returncode == 0
    assert "patient_id" not in rows_of(tmp_path / "out")[0]
    assert traces(tmp_path / "out") == []


def test_whose_film_it_is_never_shows_when_a_film_is_printed(tmp_path: Path) -> None:
    film = read_film(planted(EXAMPLES / "00000041_006.dcm", tmp_path / "film.dcm"), Preprocessing())
    assert film.person is not None
    assert film.person.name == CANARY
    assert "ZZTOP" not in f"{film!r} {film.person!r} {film.tags}"


def test_a_pseudonym_hangs_on_the_number_and_the_salt() -> None:
    one, salt = Person("4711", "A^B", "19700101"), b"1" * 16
    assert pseudonym(one, salt) == pseudonym(Person("4711", "Other^Spelling"), salt)
    assert pseudonym(one, salt) != pseudonym(one, b"2" * 16)
    assert pseudonym(Person("", "A^B", "19700101"), salt) != pseudonym(Person("", "A^B", "19710101"), salt)
    assert pseudonym(None, salt) == pseudonym(Person("", "", "19700101"), salt) == ""


def test_the_salt_is_made_once_and_readable_to_its_owner_alone(tmp_path: Path) -> None:
    first = own_salt(tmp_path / "new")
    assert first is not None
    assert len(first) == 16
    assert own_salt(tmp_path / "new") == first
    assert own_salt(tmp_path / "other") != first
    assert (tmp_path / "new/pseudonym.salt").stat().st_mode & 0o077 == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["pseudonym.salt"]
    (tmp_path / "file").touch()
    assert own_salt(tmp_path / "file") is None


def test_a_salt_that_lies_with_the_results_is_told_of(cli: Cli, tmp_path: Path) -> None:
    film = EXAMPLES / "chest-cr.dcm"
    assert "salt" not in cli("scan", film, "-o", "own").stderr
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "data").write_text("no folder")
    run = cli("scan", film, "-o", "out")
    assert run.returncode == 0
    assert f"it lies in {Path('out/journal.sqlite')}: keep that file to yourself" in run.stderr
    (first,), (again,) = rows_of(tmp_path / "own"), rows_of(tmp_path / "out")
    assert first["patient"] != again["patient"]
