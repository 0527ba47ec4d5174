"""`--labels`: how well the model did on these very films, or one line that says why it cannot be told."""

import json
import re
import shutil
from pathlib import Path

import pytest
from house import EXAMPLES, FILMS, Cli, rows_of

from cxredge.errors import LabelsError
from cxredge.scan.labels import match, read_labels


def test_labels_give_this_runs_auroc(cli: Cli, tmp_path: Path) -> None:
    run = cli("scan", EXAMPLES, "--output", "out", "--labels", EXAMPLES / "labels.csv")
    assert run.returncode == 0, run.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert "labels.csv" not in {row["file"] for row in rows_of(tmp_path / "out")}
    assert summary["labels"]
    judged = {row["finding"]: row for row in summary["labels"]}
    both = [row for row in summary["labels"] if row["positives"] and row["negatives"]]
    assert both
    for row in summary["labels"]:
        assert (row["auroc"] is not None) == bool(row["positives"] and row["negatives"])
    # Two films in order are 1.000, which without its interval looks like a perfect model.
    area = both[0]["auroc"]
    said = f"{area['value']:.3f} ({area['low']:.3f}\N{EN DASH}{area['high']:.3f}), {both[0]['positives']} with it"
    assert re.search(rf"this run, {both[0]['finding']} +AUROC {re.escape(said)}", run.stdout)
    assert judged


def test_films_of_one_patient_by_the_table_are_counted_together(cli: Cli, tmp_path: Path) -> None:
    """Copies of a film are as sure as one of it, however many there are."""
    films = sorted((FILMS / "chestxray14" / "images").iterdir())[:8:2]
    (tmp_path / "films").mkdir()
    rows = {"once": ["file,patient,Effusion"], "alone": ["file,patient,Effusion"], "twice": ["file,patient,Effusion"]}
    for number, film in enumerate(films):
        for copy in range(3):
            name = f"{number}-{copy}.jpg"
            shutil.copy(film, tmp_path / "films" / name)
            rows["alone"].append(f"{name},,{number % 2}")
            rows["twice"].append(f"{name}, P{number} ,{number % 2}")
        rows["once"].append(f"{name},P{number},{number % 2}")
    told = {}
    for name, table in rows.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(table) + "\n")
        run = cli("scan", "films", "--output", "out", "--labels", f"{name}.csv")
        assert run.returncode == 0, run.stderr
        told[name] = json.loads((tmp_path / "out" / "summary.json").read_text())["labels"][0]
    once, twice, alone = (told[name]["at_point"]["specificity"] for name in ("once", "twice", "alone"))
    assert twice == pytest.approx(once)
    assert told["twice"]["auroc"] == pytest.approx(told["once"]["auroc"])
    assert alone["high"] - alone["low"] < twice["high"] - twice["low"]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("name,Effusion\na.jpg,1\n", "needs a column `file`"),
        ("file,Sprain\na.jpg,1\n", "at least one of the model's findings"),
        ("file,Effusion\na.jpg,maybe\n", "line 2, Effusion: 'maybe' is neither"),
        ("file,Effusion\na.jpg,1\na.jpg,0\n", "line 3: a.jpg stands there twice"),
        ("file,Effusion\nabsent.jpg,1\n", "none of the 1 films"),
        ("file,Effusion,Effusion\na.jpg,1,0\n", "holds the column Effusion twice"),
        ("file,Mass,pleural thickening\na.jpg,1,0\n", "'pleural thickening' is called Pleural_Thickening"),
        ("file,Effusion\n00028351_000.jpg,\n", "says nothing of any film"),
    ],
)
def test_wrong_labels_stop_the_run_before_it_reads(cli: Cli, tmp_path: Path, table: str, says: str) -> None:
    (tmp_path / "labels.csv").write_text(table)
    run = cli("scan", EXAMPLES, "--output", "out", "--labels", "labels.csv")
    assert run.returncode == 2
    assert says in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "out" / "results.csv").exists()


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("Effusion,file\n1,00028351_000.jpg\n1\n", "line 3: names no file"),
        (f"file,Effusion\n{'x' * 200_000},1\n", "cannot be read as a table"),
        ('file,"Effusion\n00028351_000.jpg,1\n', "cannot be read as a table"),
        # These would count the first film alone, and a label from under another heading.
        (
            'file,Effusion\n00028351_000.jpg,1\n"00000457_002.jpg,0\n00001836_041.jpg,1\n',
            "after line 2: cannot be read as",
        ),
        ("file,Effusion,Mass\n00028351_000.jpg,1,0,1\n", "line 2: not as many cells as in the first line"),
        ("file,Effusion,Mass\n00028351_000.jpg,1\n", "line 2: not as many cells as in the first line"),
        ("file,Effusion\n\n\n00028351_000.jpg,yes\n", "line 4, Effusion: 'yes'"),
    ],
)
def test_labels_tables_that_do_not_hold_together_are_one_line(cli: Cli, tmp_path: Path, table: str, says: str) -> None:
    (tmp_path / "labels.csv").write_text(table)
    run = cli("scan", EXAMPLES, "--labels", "labels.csv")
    assert run.returncode == 2
    assert says in run.stderr
    assert "Traceback" not in run.stderr


def test_labels_saved_by_a_spreadsheet_of_another_country(tmp_path: Path) -> None:
    table, text = tmp_path / "labels.csv", "\ufefffile;Effusion\r\n00028351_000.jpg;0\r\n00000457_002.jpg;1\r\n"
    table.write_text(text, encoding="utf-8", newline="")
    assert {name: row.values for name, row in read_labels(table, ("Effusion",)).items()} == {
        "00028351_000.jpg": [0.0], "00000457_002.jpg": [1.0],
    }  # fmt: skip
    table.write_text(text, encoding="utf-16", newline="")
    with pytest.raises(LabelsError, match="save it as 'CSV UTF-8'"):
        read_labels(table, ("Effusion",))


def test_labels_that_count_nowhere_are_said(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(
        "file,Effusion\n00028351_000.jpg,0\n00000457_002.jpg,1\nleg-cr.dcm,1\ngone.jpg,1\n"
    )
    run = cli("scan", EXAMPLES, "--output", "out", "--labels", "labels.csv")
    assert run.returncode == 0, run.stderr
    said = (
        "3 of the 4 films in the labels table are in this run; 1 of its labelled films got no score and count nowhere"
    )
    assert said in " ".join(run.stdout.split())
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["labelled"] == {"named": 4, "found": 3, "scored": 2, "note": said}
    assert said in (tmp_path / "out" / "report.html").read_text()
    assert (summary["labels"][0]["positives"], summary["labels"][0]["negatives"]) == (1, 1)


def test_a_label_finds_the_one_film_that_can_be_meant() -> None:
    def matched(table: list[str], files: list[str]) -> dict[str, str]:
        found = match({name: [float(i)] for i, name in enumerate(table)}, files)
        return {file: table[int(value)] for file, (value,) in found.items()}

    files = ["a/IM1.jpg", "b/IM1.jpg", "b/IM2.dcm", "-1.jpg", "w\\\\x.jpg"]
    # By the end of the path, whichever is longer, and without the suffix where a copy was re-encoded.
    assert matched(["/data/a/IM1.jpg", "D:\\films\\b\\IM2.dcm"], files) == {
        "a/IM1.jpg": "/data/a/IM1.jpg", "b/IM2.dcm": "D:\\films\\b\\IM2.dcm",
    }  # fmt: skip
    assert matched(["IM2.png"], files) == {"b/IM2.dcm": "IM2.png"}
    # As results.csv guards it, and as it prints a backslash.
    assert matched(["'-1.jpg", "w\\\\x.jpg"], files) == {"-1.jpg": "'-1.jpg", "w\\\\x.jpg": "w\\\\x.jpg"}
    # Archives name films by UID: the last number tells two films of a series apart, and is no suffix.
    uids = ["1.2.840.7.1", "1.2.840.7.2.dcm"]
    assert matched(["1.2.840.7.1.dcm", "1.2.840.7.2", "1.2.840.7.3"], uids) == {
        "1.2.840.7.1": "1.2.840.7.1.dcm", "1.2.840.7.2.dcm": "1.2.840.7.2",
    }  # fmt: skip
    with pytest.raises(LabelsError, match="none of the 1 films"):
        matched(["1.2.840.7.3"], uids)
    # Another folder's film, and one of two: nobody's.
    for table in (["c/IM1.jpg"], ["c/IM2.jpg"], ["IM1.jpg"]):
        with pytest.raises(LabelsError, match="none of the 1 films"):
            matched(table, files)
