"""PPV and NPV where a finding is as common as stated."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from house import FILMS, Cli

from cxredge.errors import DataError
from cxredge.metrics import wilson
from cxredge.train.curves import Confusion, confusion
from cxredge.train.prevalence import at_prevalence, read_prevalences


def point(tp: int, fp: int, fn: int, tn: int) -> Confusion:
    return Confusion(0.5, tp, fp, fn, tn, wilson(tp, tp + fn), wilson(tn, tn + fp), None, None, None)


def test_at_the_films_own_share_they_are_what_is_counted() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(400) < 0.3
    scores = rng.normal(size=400) + labels
    counted = confusion(labels, scores, 0.6, np.arange(400).astype(str))
    said = at_prevalence(counted, float(labels.mean()))
    assert said is not None
    assert counted.ppv is not None
    assert counted.npv is not None
    assert said.ppv is not None
    assert said.npv is not None
    assert said.ppv.value == pytest.approx(counted.ppv.value)
    assert said.npv.value == pytest.approx(counted.npv.value)


def test_intervals_hold_what_is_true_as_often_as_they_say() -> None:
    rng, sensitivity, specificity, share = np.random.default_rng(0), 0.85, 0.8, 0.05
    flagged = sensitivity * share, (1 - specificity) * (1 - share)
    left = specificity * (1 - share), (1 - sensitivity) * share
    true = flagged[0] / sum(flagged), left[0] / sum(left)
    held = np.zeros(2)
    for _ in range(2000):
        tp, tn = rng.binomial(60, sensitivity), rng.binomial(200, specificity)
        said = at_prevalence(point(tp, 200 - tn, 60 - tp, tn), share)
        assert said is not None
        held += [
            one is not None and one.low <= t <= one.high for one, t in zip((said.ppv, said.npv), true, strict=True)
        ]
    assert ((held / 2000 > 0.93) & (held / 2000 < 0.98)).all()


def test_where_nothing_errs_the_interval_says_how_little_that_is_and_where_nothing_is_flagged_there_is_none() -> None:
    perfect = at_prevalence(point(10, 0, 0, 50), 0.02)
    assert perfect is not None
    assert perfect.ppv is not None
    assert perfect.ppv.value == perfect.ppv.high == 1
    assert perfect.ppv.low < 0.3
    silent = at_prevalence(point(0, 0, 10, 50), 0.02)
    assert silent is not None
    assert silent.ppv is None
    assert silent.npv is not None
    assert silent.npv.value == pytest.approx(0.98)
    assert at_prevalence(Confusion(0.5, 0, 1, 0, 9, None, wilson(9, 10), None, None, None), 0.1) is None


def test_shares_are_for_all_findings_or_for_one() -> None:
    assert read_prevalences(["Mass=0.1", "0.02"], ["Mass", "Effusion"]) == {"Mass": 0.1, "Effusion": 0.02}
    assert read_prevalences(["Mass=0.1"], ["Mass", "Effusion"]) == {"Mass": 0.1}
    for words, says in (
        ("2", "between 0 and 1"),
        ("Mass=x", "between 0 and 1"),
        ("Gout=0.1", "none of Mass, Effusion"),
    ):
        with pytest.raises(DataError, match=says):
            read_prevalences([words], ["Mass", "Effusion"])


def test_evaluate_says_what_a_flag_would_mean_there(cli: Cli, tmp_path: Path) -> None:
    films = sorted((FILMS / "chestxray14" / "images").iterdir())[:16]
    for film in films:
        shutil.copy(film, tmp_path)
    rows = "".join(f"{film.name},{i},{i % 2}\n" for i, film in enumerate(films))
    (tmp_path / "labels.csv").write_text(f"file,patient,Effusion\n{rows}")
    run = cli(
        "evaluate",
        "chestxray14-small",
        "--data",
        "labels.csv",
        "--prevalence",
        "0.0001",
        "-o",
        "out[/b]",
        "--examples",
        "0",
    )
    assert run.returncode == 0, run.stderr
    (finding,) = json.loads((tmp_path / "out[/b]" / "evaluation.json").read_text())["findings"]
    counted, there = finding["at_point"], finding["at_prevalence"]
    sensitivity, specificity = (counted[name]["value"] for name in ("sensitivity", "specificity"))
    assert there["prevalence"] == 0.0001
    right, wrong = 0.0001 * sensitivity, 0.9999 * (1 - specificity)
    assert there["ppv"]["value"] == pytest.approx(right / (right + wrong))
    assert "PPV there" in run.stdout
    assert "Open out[/b]/evaluation.html" in run.stdout
    page = (tmp_path / "out[/b]" / "evaluation.html").read_text()
    assert "as common as stated" in page
    # A rare finding is hardly ever missed because it is hardly ever there; no flag still does not mean never.
    assert re.search(
        r"<td>0\.0\d+ \(0\.0\d+\N{EN DASH}0\.\d+\)</td><td>99\.9\d+ \(99\.\d+\N{EN DASH}99\.99\d*\)</td>", page
    )
    assert not re.search(r"\b1\.0+ \(|\b0\.0+ \(", run.stdout)
