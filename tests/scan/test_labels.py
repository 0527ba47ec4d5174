"""`--labels`: how well the model did on these very films, or one line that says why it cannot be told."""

import json
from pathlib import Path

import pytest
from house import EXAMPLES, Cli, rows_of


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
    assert f"this run, {both[0]['finding']}" in run.stdout
    assert judged


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("name,Effusion\na.jpg,1\n", "needs a column `file`"),
        ("file,Sprain\na.jpg,1\n", "at least one of the model's findings"),
        ("file,Effusion\na.jpg,maybe\n", "line 2, Effusion: 'maybe' is neither"),
        ("file,Effusion\na.jpg,1\na.jpg,0\n", "line 3: a.jpg stands there twice"),
        ("file,Effusion\nabsent.jpg,1\n", "none of the 1 films"),
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
    ],
)
def test_labels_tables_that_do_not_hold_together_are_one_line(cli: Cli, tmp_path: Path, table: str, says: str) -> None:
    (tmp_path / "labels.csv").write_text(table)
    run = cli("scan", EXAMPLES, "--labels", "labels.csv")
    assert run.returncode == 2
    assert says in run.stderr
    assert "Traceback" not in run.stderr
