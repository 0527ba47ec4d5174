"""`--dicom-out` through the command line, on a real film whose every name is a canary."""

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from dicom_tables import mistakes
from house import EXAMPLES, Cli, rows_of
from pydicom import dcmread
from pydicom.datadict import DicomDictionary, keyword_for_tag
from pydicom.dataset import Dataset

from cxredge.bundle import Bundle
from cxredge.errors import RuntimeMissingError
from cxredge.imaging.dicom_identity import silent
from cxredge.report.dicom_out import DicomWriter, require_highdicom
from cxredge.scan.scanner import Scanner

CANARY = "ZZTOP^CANARY"
GREEK = "Παπαδοπούλου^Ελένη"


@dataclass(frozen=True)
class Run:
    """A finished scan: what it said, where it wrote, and the film it read."""

    said: str
    out: Path
    film: Dataset
    study: str

    def written(self, kind: str) -> list[Dataset]:
        with silent():
            return [dcmread(path) for path in sorted((self.out / "dicom").glob(f"{kind}-*.dcm"))]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A DICOM film with a canary in every name a header can hold, one without a study, one with a Greek name, one JPEG."""
    folder = tmp_path_factory.mktemp("dicom-out")
    films = folder / "films"
    films.mkdir()
    shutil.copy(EXAMPLES / "00000457_002.jpg", films)
    film = dcmread(EXAMPLES / "chest-cr.dcm")
    for tag, entry in DicomDictionary.items():
        if entry[0] == "PN" and tag >> 16 in (0x0008, 0x0010, 0x0018, 0x0032, 0x0038, 0x0040):
            setattr(film, keyword_for_tag(tag), CANARY)
    film.BurnedInAnnotation, film.LossyImageCompression = "YES", "01"
    film.AccessionNumber, film.StudyID, film.StudyDate = "A-17", "17", "20261121"
    film.save_as(films / "canary.dcm")
    homeless = dcmread(EXAMPLES / "00009683_000.dcm")
    del homeless.StudyInstanceUID
    homeless.save_as(films / "homeless.dcm")
    broken = dcmread(EXAMPLES / "00000041_006.dcm")
    odd = dcmread(EXAMPLES / "00013673_001.dcm")
    with silent():
        broken.StudyInstanceUID = CANARY
        broken.save_as(films / "broken.dcm")
        odd.PatientName, odd.PatientID, odd.SOPInstanceUID = CANARY + "!" * 143, "odd", "1.2.3"
        odd.PatientBirthDate = odd.StudyTime = odd.PatientSex = CANARY
        odd.save_as(films / "odd.dcm")
    greek = dcmread(EXAMPLES / "00013673_001.dcm")
    greek.SpecificCharacterSet, greek.PatientName = "ISO_IR 126", GREEK
    greek.save_as(films / "greek.dcm")
    done = Cli(folder)("scan", films, "--output", "out", "--dicom-out")
    assert done.returncode == 0, done.stderr
    return Run(done.stdout + done.stderr, folder / "out", film, str(film.StudyInstanceUID))


@pytest.fixture
def report(run: Run) -> Dataset:
    (document,) = (document for document in run.written("sr") if document.StudyInstanceUID == run.study)
    return document


@pytest.fixture
def picture(run: Run) -> Dataset:
    (image,) = (image for image in run.written("sc") if image.StudyInstanceUID == run.study)
    return image


@pytest.fixture
def row(run: Run) -> dict[str, str]:
    with (run.out / "results.csv").open(encoding="utf-8", newline="") as file:
        return next(row for row in csv.DictReader(file) if row["file"] == "canary.dcm")


def _items(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", []):
        yield child
        yield from _items(child)


def _name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)


def _group(report: Dataset, tracked: str) -> dict[str, str]:
    """One measurement group as name -> value."""
    for group in (
        item for item in _items(report) if item.get("ContentSequence") and _name(item) == "Measurement Group"
    ):
        said = {}
        for item in group.ContentSequence:
            if item.ValueType == "NUM":
                said[_name(item)] = str(item.MeasuredValueSequence[0].NumericValue)
            elif item.ValueType == "CODE":
                said[_name(item)] = item.ConceptCodeSequence[0].CodeMeaning
            elif item.ValueType == "TEXT":
                said[_name(item)] = "; ".join(filter(None, (said.get(_name(item)), item.TextValue)))
        if said["Tracking Identifier"] == tracked:
            return said
    raise AssertionError(f"no group {tracked}")


def test_report_and_picture_lie_in_the_study_of_the_film(run: Run, report: Dataset, picture: Dataset) -> None:
    for written in (report, picture):
        for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "AccessionNumber", "StudyID", "StudyDate"):
            assert str(written.get(keyword)) == str(run.film.get(keyword)), keyword
        assert written.SeriesInstanceUID != run.film.SeriesInstanceUID
    (referred,) = {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in _items(report) if item.ValueType == "IMAGE"
    }
    assert referred == picture.SourceImageSequence[0].ReferencedSOPInstanceUID == run.film.SOPInstanceUID


def test_report_says_for_each_finding_what_the_table_says(report: Dataset, row: dict[str, str], bundle: Bundle) -> None:
    for finding in bundle.manifest.findings:
        said = _group(report, finding.name.replace("_", " "))
        assert float(said["Calibrated probability"]) == float(row[f"p_{finding.name}"])
        assert float(said["Threshold of the flag"]) == pytest.approx(finding.balanced.threshold, abs=6e-5)
        assert said["Flag"] == ("flagged" if row[f"flag_{finding.name}"] == "1" else "not flagged")
        assert said["Evidence"].startswith("experimental") is finding.experimental
        assert said["Algorithm Name"] == bundle.manifest.name
        assert said["Algorithm Version"] == bundle.manifest.version
        assert row["model_sha256"] in said["Algorithm Parameters"]


def test_report_says_that_it_is_research_and_codes_no_diagnosis(report: Dataset, row: dict[str, str]) -> None:
    worklist = _group(report, "Worklist")
    assert worklist["Intended use"] == "Research use; not a medical device"
    assert worklist["Priority"] == row["priority"]
    assert "AUROC" in worklist["Algorithm Parameters"]
    assert report.VerificationFlag == "UNVERIFIED"
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert not any(_name(item) == "Finding" for item in _items(report))


def test_report_and_picture_are_clean_in_dicom_validator(run: Run) -> None:
    written = [dataset for dataset in run.written("sr") + run.written("sc") if dataset.PatientID != "odd"]
    assert len(written) >= 3
    for dataset in written:
        assert mistakes(dataset) == []


def test_dicom_validator_finds_what_is_missing_and_what_does_not_belong(report: Dataset) -> None:
    broken = deepcopy(report)
    del broken.CompletionFlag
    broken.ContentSequence[-1].ContentSequence[0].PatientAge = "034Y"
    broken.ContentSequence[-1].ContentSequence[0].ContentSequence[0].TextValue = None
    assert len(mistakes(broken)) == 3


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian: dicom3tools) is not installed")
def test_report_and_picture_have_no_error_in_dciodvfy(run: Run) -> None:
    sound = [
        path
        for path in sorted((run.out / "dicom").iterdir())
        if dcmread(path, specific_tags=["PatientID"]).PatientID != "odd"
    ]
    assert len(sound) >= 3
    for path in sound:
        checked = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
        assert "ComprehensiveSR" in checked.stderr or "SCImage" in checked.stderr
        assert "Error" not in checked.stderr


def test_picture_shows_the_film_in_its_own_proportions_with_colour_over_it(run: Run, picture: Dataset) -> None:
    pixels = picture.pixel_array.astype(np.int16)
    width = round(512 * run.film.Columns / run.film.Rows)
    film = pixels[:512, (512 - width) // 2 : (512 - width) // 2 + width]
    assert picture.Columns == 512
    assert (film.max(2) - film.min(2)).max() > 60
    assert pixels[512:].max() == 255
    assert "not a medical device" in picture.SeriesDescription
    assert picture.ImageType[0] == "DERIVED"
    assert (picture.BurnedInAnnotation, picture.LossyImageCompression) == ("YES", "01")


def test_no_name_leaves_the_dicom_files(run: Run) -> None:
    assert CANARY not in run.said
    for word in ("ZZTOP", "CANARY^", GREEK.split("^")[0]):
        assert word not in run.said
        for path in run.out.rglob("*"):
            assert word not in path.name
            if path.is_file() and path.parent.name != "dicom":
                assert word.encode() not in path.read_bytes(), path


def test_name_in_another_character_set_is_kept(run: Run) -> None:
    with silent():
        assert GREEK in {str(document.PatientName) for document in run.written("sr")}


def test_what_was_left_out_is_said_in_one_line(run: Run) -> None:
    (line,) = (line for line in run.said.splitlines() if line.startswith("DICOM"))
    assert "3 reports" in line
    assert "left out: 1 are no DICOM files, 2 name no study, have a broken header" in line


def test_second_run_makes_no_second_report(run: Run) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in (run.out / "dicom").iterdir()}
    cli = Cli(run.out.parent)
    assert cli("scan", "films", "--output", "out", "--dicom-out").returncode == 0
    assert {path.name: path.stat().st_mtime_ns for path in (run.out / "dicom").iterdir()} == before
    assert cli("scan", "films/greek.dcm", "--output", "out", "--dicom-out").returncode == 0
    assert {str(document.PatientName) for document in run.written("sr")} == {GREEK}
    assert cli("scan", "films", "--output", "out", "--dicom-out").returncode == 0
    assert {path.name for path in (run.out / "dicom").iterdir()} == set(before)


def test_what_is_no_date_or_sex_is_left_empty_and_the_report_still_written(run: Run) -> None:
    (document,) = (document for document in run.written("sr") if document.PatientID == "odd")
    assert document.PatientBirthDate == document.StudyTime == document.PatientSex == ""
    with silent():
        assert len(str(document.PatientName)) == 155


def test_a_film_without_its_preamble_gets_a_report_with_the_patients_number_as_it_stands(cli: Cli) -> None:
    film = dcmread(EXAMPLES / "chest-cr.dcm")
    with silent():
        film.PatientID = "47\\11"
        film.save_as(cli.folder / "old.dcm")
    (cli.folder / "old.dcm").write_bytes((cli.folder / "old.dcm").read_bytes()[132:])
    done = cli("scan", "old.dcm", "--output", "out", "--dicom-out", "--with-patient-ids")
    assert done.returncode == 0, done.stderr
    (written,) = (cli.folder / "out/dicom").glob("sr-*.dcm")
    with silent():
        assert list(dcmread(written).PatientID) == ["47", "11"]
    assert [row["patient_id"] for row in rows_of(cli.folder / "out")] == ["47\\11"]


def test_changed_film_gets_a_report_of_its_own(cli: Cli) -> None:
    film = dcmread(EXAMPLES / "00013673_001.dcm")
    path = cli.folder / "film.dcm"
    film.save_as(path)
    assert cli("scan", path, "--output", "out", "--dicom-out").returncode == 0
    before = {path.name for path in (cli.folder / "out" / "dicom").iterdir()}
    film.decompress()
    film.PixelData = bytes(reversed(film.PixelData))  # turned by half a circle, under the same identifier
    film.save_as(path)
    assert cli("scan", path, "--output", "out", "--dicom-out").returncode == 0
    assert before.isdisjoint(path.name for path in (cli.folder / "out" / "dicom").iterdir())


def test_missing_extra_is_said_before_any_film_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(RuntimeMissingError, match=r"pip install \"cxredge\[dicom-out\]\""):
        require_highdicom()


def test_a_corrected_patient_gets_a_report_of_their_own(cli: Cli) -> None:
    film = cli.folder / "films" / "film.dcm"
    film.parent.mkdir()
    dataset = dcmread(EXAMPLES / "chest-cr.dcm")
    for patient in ("WRONG^ANNA", "RIGHT^BERTA"):
        dataset.PatientName = patient
        dataset.save_as(film)
        assert cli("scan", film.parent, "--output", "out", "--dicom-out").returncode == 0
        (report,) = (cli.folder / "out" / "dicom").glob("sr-*.dcm")
        assert str(dcmread(report).PatientName) == patient


def test_what_was_written_of_a_film_stays_when_its_file_is_moved_away(bundle: Bundle, tmp_path: Path) -> None:
    film = Path(shutil.copy(EXAMPLES / "chest-cr.dcm", tmp_path))
    with Scanner(bundle) as scanner:
        reading, pictures = scanner.read_with_pictures(film)
    writer = DicomWriter(tmp_path / "out", bundle.manifest, read_with="test")
    first = writer.write([(film, reading)], lambda _name: pictures, lambda _name: True)
    film.unlink()
    assert writer.write([(film, reading)], lambda _name: pictures, lambda _name: True) == first
    # Set aside under another name it is still the one film of this picture.
    assert writer.write([(film.with_name("aside"), reading)], lambda _name: pictures, lambda _name: True) == first
    assert len(list((tmp_path / "out" / "dicom").glob("sr-*.dcm"))) == first.reports == 1


def test_films_of_one_name_size_and_time_get_each_their_patients_report(bundle: Bundle, tmp_path: Path) -> None:
    """In one watch, whose writer does not open again what it knows."""
    film, dataset = tmp_path / "IM1.dcm", dcmread(EXAMPLES / "chest-cr.dcm")
    writer = DicomWriter(tmp_path / "out", bundle.manifest, read_with="test")
    with Scanner(bundle) as scanner:
        for number in ("1001", "1002"):
            dataset.PatientID = number
            dataset.save_as(film)
            os.utime(film, (315532800, 315532800))
            reading, pictures = scanner.read_with_pictures(film)
            writer.write([(film, reading)], lambda _name, pictures=pictures: pictures, lambda _name: True)
            (report,) = (tmp_path / "out" / "dicom").glob("sr-*.dcm")
            assert dcmread(report).PatientID == number


def test_no_report_is_removed_while_a_film_cannot_be_looked_at(bundle: Bundle, tmp_path: Path) -> None:
    film = Path(shutil.copy(EXAMPLES / "chest-cr.dcm", tmp_path))
    with Scanner(bundle) as scanner:
        reading, pictures = scanner.read_with_pictures(film)
    DicomWriter(tmp_path / "out", bundle.manifest, read_with="test").write(
        [(film, reading)], lambda _name: pictures, lambda _name: True
    )
    written = set((tmp_path / "out" / "dicom").iterdir())
    film.unlink()
    later = DicomWriter(tmp_path / "out", bundle.manifest, read_with="test")
    assert later.write([(film, reading)], lambda _name: pictures, lambda _name: True).unfit == 1
    assert set((tmp_path / "out" / "dicom").iterdir()) == written
