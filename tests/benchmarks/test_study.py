"""What a lever brought, on real films, through a real engine."""

import csv
import json
from pathlib import Path

import pytest
from house import FILMS

from cxredge.benchmarks.study import main
from cxredge.errors import DataError, RecipeError
from cxredge.train.evaluate import evaluate
from cxredge.train.sources import read_source
from cxredge.train.subject import open_subject

NIH = FILMS / "chestxray14"
PLAN = """splits_of = "run"
[[rows]]
lever = "8 bits"
model = "chestxray14"
against = "chestxray14/model.fp32.onnx"
[[rows]]
lever = "more films"
model = "runs/absent"
against = "chestxray14"
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that says which films validate: all that are no test films."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    films = read_source(NIH)
    with (tmp_path / "run" / "splits.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["file", "source", "patient", "split"])
        for file, source, split in zip(films.files, films.sources, films.splits, strict=True):
            writer.writerow([file.name, source, "", split if split == "test" else "validation"])
    return tmp_path / "run"


def test_a_study_says_what_each_lever_brought_and_what_could_not_be_held_against(run: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    main(tmp_path / "plan.toml", [NIH], tmp_path / "study.json")
    told = json.loads((tmp_path / "study.json").read_text())
    (row,) = told["rows"]
    for split in ("validation", "test"):
        one, other = (
            evaluate(open_subject(model), [NIH], split=split, splits_of=run, examples=0)[0]
            for model in ("chestxray14", Path(str(open_subject("chestxray14").full)))
        )
        assert row[split]["difference"]["value"] == pytest.approx(one.mean_auroc.value - other.mean_auroc.value)
        # Thresholds chosen on these very films flatter.
        assert row[split]["youden"]["best_on_these_films"] >= row[split]["youden"]["as_chosen"]
    assert row["validation"]["films"] + row["test"]["films"] == 24
    assert told["left_out"][0].startswith("more films: runs/absent: not a model")
    assert "<svg" in (tmp_path / "study.svg").read_text()
    (tmp_path / "none.toml").write_text(PLAN[: PLAN.index("[[rows]]")] + PLAN[PLAN.rindex("[[rows]]") :])
    with pytest.raises(DataError, match="none of its models is here"):
        main(tmp_path / "none.toml", [NIH], tmp_path / "none.json")
    (tmp_path / "wrong.toml").write_text("[[rows]]\nlever = 'x'\n")
    with pytest.raises(RecipeError, match="not a TOML of `splits_of` and rows"):
        main(tmp_path / "wrong.toml", [NIH], tmp_path / "wrong.json")
