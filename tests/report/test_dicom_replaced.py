"""`--dicom-out` of films whose files are replaced by other patients' while a scan goes on."""

import shutil
from datetime import datetime
from pathlib import Path

from house import EXAMPLES, Cli
from pydicom import dcmread

from cxredge.bundle import Bundle
from cxredge.report.dicom_out import DicomWriter
from cxredge.scan.run import Run
from cxredge.scan.scanner import Scanner
from cxredge.scan.summary import DicomOut


def test_no_report_bears_the_name_of_who_took_a_films_place(bundle: Bundle, tmp_path: Path) -> None:
    """Results are written after the films were read: what lies there by then may be another patient's film."""
    film, out = tmp_path / "films" / "IM1.dcm", tmp_path / "out"
    film.parent.mkdir()
    dataset = dcmread(EXAMPLES / "chest-cr.dcm")

    def put(patient: str) -> None:
        dataset.PatientID = patient
        dataset.save_as(film)

    put("1001")
    with Run([film.parent], out, model=str(bundle.folder), dicom_out=True) as run:
        films = run.films()
        clock = run.read(films, of=1)
        put("1002")
        summary, _ = run.write(films, started=datetime.now().astimezone(), clock=clock)
        assert summary.dicom_out == DicomOut(0, 0, not_dicom=0, unfit=1)
        assert not list((out / "dicom").glob("*.dcm"))
        # Once it has been read the report is its own; and it stays while the next film lies there unread.
        put("1001")
        clock = run.read(films, of=1)
        for replaced in (False, True):
            if replaced:
                put("1002")
            run.write(films, started=datetime.now().astimezone(), clock=clock)
            assert [dcmread(report).PatientID for report in (out / "dicom").glob("sr-*.dcm")] == ["1001"]


def test_what_is_written_while_a_film_is_replaced_is_taken_back(bundle: Bundle, tmp_path: Path) -> None:
    film = Path(shutil.copy(EXAMPLES / "chest-cr.dcm", tmp_path))
    with Scanner(bundle) as scanner:
        reading, pictures = scanner.read_with_pictures(film)
    writer = DicomWriter(tmp_path / "out", bundle.manifest, read_with="test")
    answers = iter([True, False])
    assert writer.write([(film, reading)], lambda _name: pictures, lambda _name: next(answers)).unfit == 1
    assert not list((tmp_path / "out" / "dicom").glob("*.dcm"))


def test_reports_of_an_earlier_run_are_told_of_by_one_that_writes_none(cli: Cli) -> None:
    said = f"{Path('out') / 'dicom'} holds 1 files of an earlier run with --dicom-out"
    for more, told in ((["--dicom-out", "--no-explain"], False), ([], True), (["--dicom-out", "--no-explain"], False)):
        run = cli("scan", EXAMPLES / "chest-cr.dcm", "--output", "out", *more)
        assert run.returncode == 0
        assert (said in run.stderr) is told
