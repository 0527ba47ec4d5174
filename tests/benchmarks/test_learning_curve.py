"""What more films bring, with networks trained on real ones."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from house import FILMS

from cxredge.benchmarks.learning_curve import main
from cxredge.train.evaluate import evaluate
from cxredge.train.subject import RUN_RUNTIME, open_subject


def test_each_network_has_half_the_films_of_the_next_and_all_are_told_on_the_same(tmp_path: Path) -> None:
    runs, output = tmp_path / "runs", tmp_path / "curve.json"

    def curve() -> list[dict[str, Any]]:
        main(FILMS / "chest_xray", weights="none", size=64, epochs=1, halvings=1, seeds=1, runs=runs, output=output)
        return list(json.loads(output.read_text())["points"])

    half, whole = curve()
    assert (half["gain"], half["patients"], whole["films"]) == (None, whole["patients"] // 2, 24)
    trained = {}
    for parts in (2, 1):
        with (runs / f"seed-0-of-{parts}" / "splits.csv").open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        trained[parts] = {(row["file"], row["patient"].split("/", 1)[1]) for row in rows}
    assert trained[2] < trained[1]
    assert not {patient for _, patient in trained[2]} & {patient for _, patient in trained[1] - trained[2]}
    subjects = [open_subject(runs / f"seed-0-of-{parts}") for parts in (2, 1)]
    areas = [
        evaluate(one, [runs / f"{one.path.name}.csv"], runtime=RUN_RUNTIME, examples=0)[0].mean_auroc
        for one in subjects
    ]
    assert whole["gain"]["value"] == pytest.approx(areas[1].value - areas[0].value)
    assert "<svg" in output.with_suffix(".svg").read_text()
    # What is trained is not trained again.
    before = {file: file.stat().st_mtime_ns for file in runs.rglob("last.ckpt")}
    assert curve() == [half, whole]
    assert {file: file.stat().st_mtime_ns for file in runs.rglob("last.ckpt")} == before
