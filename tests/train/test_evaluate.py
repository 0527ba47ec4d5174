"""`cxredge evaluate`, on real films through a real engine, and its figures against their definitions."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from house import FILMS, Cli

from cxredge.bundle import Bundle
from cxredge.errors import DataError, RuntimeMissingError
from cxredge.metrics import auroc, mean_auroc_interval, youden_point
from cxredge.train.curves import average_precision, calibration_error, confusion, precision_recall, reliability, roc
from cxredge.train.engine import open_engine
from cxredge.train.evaluate import evaluate
from cxredge.train.evaluate_command import show
from cxredge.train.facts import Box, read_boxes, read_facts
from cxredge.train.judge import judge_finding, subgroups
from cxredge.train.labels import read_table
from cxredge.train.scores import score
from cxredge.train.subject import open_subject
from cxredge.train.tables import read_films

NIH = FILMS / "chestxray14"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """All 24 small films as a labels table with two findings, sex, age and view, and one file that is no film."""
    (tmp_path / "films").mkdir()
    with (NIH / "Data_Entry_2017_v2020.csv").open() as lines, (tmp_path / "labels.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["file", "patient", "Effusion", "Hernia", "sex", "age", "view"])
        for row in csv.DictReader(lines):
            film = next((NIH / "images").glob(Path(row["Image Index"]).stem + ".*"))
            shutil.copy(film, tmp_path / "films")
            named = row["Finding Labels"].split("|")
            facts = [row["Patient Gender"], row["Patient Age"], row["View Position"]]
            found = [str(int(finding in named)) for finding in ("Effusion", "Hernia")]
            writer.writerow([f"films/{film.name}", row["Patient ID"], *found, *facts])
        (tmp_path / "films" / "empty.jpg").touch()
        writer.writerow(["films/empty.jpg", "none", "1", "", "M", "50", "PA"])
    return tmp_path / "labels.csv"


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    labels = rng.random(300) < 0.3
    return labels, np.round(1 / (1 + np.exp(-rng.normal(size=300) - 1.2 * labels)), 2)


def test_a_shipped_model_is_evaluated_from_the_command_line_without_torch(
    cli: Cli, table: Path, tmp_path: Path
) -> None:
    command = ("evaluate", "chestxray14", "--against", "chestxray14-small", "--data", table, "-o", "out")
    run = cli(*command, python=("-X", "importtime"))
    assert run.returncode == 0, run.stderr[-2000:]
    loaded = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in run.stderr.splitlines() if "|" in line}
    assert "matplotlib" in loaded
    assert not loaded & {"torch", "torchvision", "onnx", "pandas"}
    told = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert [finding["finding"] for finding in told["findings"]] == ["Effusion", "Hernia"]
    assert len(told["unread"]) == 1
    assert "empty.jpg" in told["unread"][0]
    assert {(group["axis"], group["name"]) for group in told["subgroups"]} >= {("sex", "female"), ("view", "PA")}
    page = (tmp_path / "out" / "evaluation.html").read_text()
    # One file that asks nobody for anything.
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "default-src 'none'" in page
    assert page.count("<svg") >= 4
    assert "data:image/jpeg" in page
    assert "could not be read" in page
    apart = told["against"]
    assert apart["model"]["name"] == "chestxray14-small"
    assert apart["films"] == 24
    assert [one["finding"] for one in apart["findings"]] == ["Effusion", "Hernia"]
    assert "Against chestxray14-small" in page
    assert f"{apart['mean_auroc']['value']:+.4f}".replace("-", "\N{MINUS SIGN}") in run.stdout


def test_no_figure_is_cut_off_in_a_narrow_terminal(
    table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    one, other = open_subject("chestxray14"), open_subject("chestxray14-small")
    found, _ = evaluate(one, [table], against=other, prevalence=["0.1"], samples=50, examples=0)
    show(found, tmp_path)
    said = capsys.readouterr().out
    assert "\N{HORIZONTAL ELLIPSIS}" not in said


def test_two_models_are_apart_by_what_their_areas_differ(table: Path) -> None:
    one, other, child = (open_subject(name) for name in ("chestxray14", "chestxray14-small", "paediatric-pneumonia"))
    found, _ = evaluate(one, [table], against=other, samples=50, examples=0)
    alone, _ = evaluate(other, [table], samples=50, examples=0)
    assert found.against is not None
    for apart, ours, theirs in zip(found.against.findings, found.findings, alone.findings, strict=True):
        assert ours.auroc is not None
        assert theirs.auroc is not None
        assert apart.auroc.value == pytest.approx(ours.auroc.value - theirs.auroc.value)
        assert apart.auroc.low < apart.auroc.value < apart.auroc.high
    assert found.against.mean_auroc.value == pytest.approx(found.mean_auroc.value - alone.mean_auroc.value)
    with pytest.raises(DataError, match="chestxray14 and paediatric-pneumonia share no finding"):
        evaluate(one, [table], against=child, samples=50, examples=0)


def test_the_figures_are_those_of_the_films(table: Path, bundle: Bundle) -> None:
    found, examples = evaluate(open_subject("chestxray14"), [table], samples=50)
    films = read_films([table], "test")
    probabilities = score(open_subject("chestxray14"), films.files, "onnxruntime").probabilities
    column = bundle.manifest.names.index("Effusion")
    read = ~np.isnan(probabilities[:, column])
    labels = films.labels[:, films.findings.index("Effusion")]
    effusion = found.findings[0]
    assert effusion.auroc is not None
    assert effusion.auroc.value == pytest.approx(auroc(labels[read], probabilities[read, column]))
    threshold = bundle.manifest.findings[column].balanced.threshold
    assert effusion.at_point is not None
    assert effusion.at_point.true_positive == (labels[read][probabilities[read, column] >= threshold] == 1).sum()
    assert effusion.films == read.sum()
    assert {example.finding for example in examples} <= {"Effusion", "Hernia"}
    assert all(example.film.startswith(b"\xff\xd8") for example in examples)


def test_another_engine_gives_the_same_areas(table: Path) -> None:
    pytest.importorskip("openvino")
    one, other = (
        evaluate(open_subject("chestxray14"), [table], runtime=runtime, samples=20, examples=0)[0]
        for runtime in ("onnxruntime", "openvino")
    )
    assert other.runtime.startswith("openvino")
    assert other.mean_auroc.value == pytest.approx(one.mean_auroc.value, abs=0.05)


def test_a_lone_onnx_file_needs_a_bundle_that_names_its_findings(bundle: Bundle, tmp_path: Path) -> None:
    lone = Path(shutil.copy(bundle.model, tmp_path / "lone.onnx"))
    with pytest.raises(DataError, match="--like BUNDLE"):
        open_subject(lone)
    subject = open_subject(lone, like="chestxray14")
    assert subject.findings == bundle.manifest.names
    assert open_subject(bundle.model).thresholds == subject.thresholds
    with pytest.raises(RuntimeMissingError, match="no engine 'torch' for it"):
        open_engine(lone, "torch", 1, tmp_path)


def test_what_is_no_model_and_no_fitting_data_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a model"):
        open_subject(tmp_path / "nothing")
    with pytest.raises(DataError, match="these films are labelled for Paediatric_Pneumonia"):
        evaluate(open_subject("chestxray14"), [FILMS / "chest_xray"])
    (tmp_path / "bad.csv").write_text("file,Effusion\nx.jpg,maybe\n")
    (tmp_path / "x.jpg").touch()
    with pytest.raises(DataError, match=r"line 2, Effusion: 'maybe' is neither 0, 1 nor empty"):
        read_table(tmp_path / "bad.csv")


def test_boxes_and_facts_of_the_published_tables(tmp_path: Path) -> None:
    (tmp_path / "BBox_List_2017.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000003_000.png,Infiltrate,256,512,128,64\n"
    )
    box = read_boxes([tmp_path])["00000003_000"]["Infiltration"][0]
    assert box == Box(0.25, 0.5, 0.125, 0.0625)
    assert box.holds(0.3, 0.52)
    assert not box.holds(0.5, 0.52)
    films = read_films([NIH], "all")
    facts = read_facts([NIH], films)
    assert set(facts.sex) <= {"F", "M"}
    assert not np.isnan(facts.age).any()
    assert sum(rows.sum() for rows in facts.groups["age"].values()) == len(films)


def test_curves_by_their_definitions(scored: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = scored
    false, true = roc(labels, scores)
    assert float(np.trapezoid(true, false)) == pytest.approx(auroc(labels.astype(float), scores))
    for at in np.unique(scores)[::7]:
        flagged = scores >= at
        spot = np.flatnonzero(np.isclose(true, flagged[labels].mean()) & np.isclose(false, flagged[~labels].mean()))
        assert len(spot)
    recall, precision = precision_recall(labels, scores)
    assert (recall[-1], precision[-1]) == (1, pytest.approx(labels.mean()))
    by_hand = sum((r - before) * p for before, r, p in zip(np.r_[0, recall[:-1]], recall, precision, strict=True))
    assert average_precision(labels, scores) == pytest.approx(by_hand)
    counts = confusion(labels, scores, 0.5, np.arange(len(labels)).astype(str))
    assert counts.true_positive + counts.false_negative == labels.sum()
    assert counts.true_positive + counts.false_positive == (scores >= 0.5).sum()
    assert counts.f1 == pytest.approx(2 * counts.true_positive / ((scores >= 0.5).sum() + labels.sum()))


def test_a_curve_of_many_films_keeps_its_best_point_on_the_page() -> None:
    rng = np.random.default_rng(5)
    labels = (rng.random(3000) < 0.2).astype(float)
    scores = 1 / (1 + np.exp(2 - rng.normal(size=3000) - labels))
    best = youden_point(labels, scores)
    told = judge_finding("Mass", labels, scores, best.threshold, np.arange(3000).astype(str))
    assert len(told.roc) <= 201
    assert told.roc[0] == (0, 0)
    assert told.roc[-1] == (1, 1)
    highest = max(true - false for false, true in told.roc)
    assert highest == pytest.approx(best.sensitivity.value + best.specificity.value - 1, abs=2e-5)


def test_calibration_error_is_small_when_probabilities_are_true_and_large_when_they_are_not() -> None:
    rng = np.random.default_rng(0)
    told = rng.random(20_000)
    labels = rng.random(20_000) < told
    assert calibration_error(labels, told) < 0.02
    assert calibration_error(labels, np.full(20_000, 0.9)) == pytest.approx(abs(0.9 - labels.mean()), abs=0.01)
    # Tied scores in another order say the same.
    coarse, order = np.round(told, 1), np.argsort(labels, kind="stable")
    assert calibration_error(labels, coarse) == pytest.approx(
        calibration_error(labels[order], coarse[order]), abs=1e-12
    )
    cells = reliability(labels, told)
    assert sum(cell.films for cell in cells) == 20_000
    assert [cell.predicted for cell in cells] == sorted(cell.predicted for cell in cells)


def test_a_finding_without_both_kinds_of_film_has_no_figure(scored: tuple[np.ndarray, np.ndarray]) -> None:
    _, scores = scored
    judged = judge_finding("Mass", np.zeros(300), scores, 0.5, np.arange(300).astype(str))
    assert judged.auroc is None
    assert judged.at_point is not None
    assert judged.at_point.sensitivity is None


def test_groups_of_one_axis_are_averaged_over_the_same_findings() -> None:
    rng = np.random.default_rng(0)
    films = read_films([NIH], "all")
    facts = read_facts([NIH], films)
    labels = rng.integers(0, 2, (len(films), 2)).astype(float)
    groups = subgroups(("A", "B"), labels, rng.random(labels.shape), films.patients, facts, None, samples=20)
    for axis in ("sex", "age", "view"):
        assert len({group.findings for group in groups if group.axis == axis}) <= 1
    assert all(group.auroc is None for group in groups if not group.findings)


def test_patients_are_drawn_whole_and_a_draw_without_positives_is_left_out() -> None:
    labels = np.array([[1.0], [0.0], [0.0], [0.0], [0.0], [0.0]])
    scores = np.array([[0.9], [0.1], [0.2], [0.95], [0.3], [0.4]])
    found = mean_auroc_interval(labels, scores, np.arange(6), samples=200)
    assert found.value == pytest.approx(0.8)
    assert np.isfinite([found.low, found.high]).all()
    assert found.low < found.value <= found.high


def test_films_that_a_bundle_was_not_validated_on_are_no_validation_films() -> None:
    with pytest.raises(
        DataError, match="was validated on 338 films of chestxray14, and of those given 1 would be carved"
    ):
        evaluate(open_subject("chestxray14"), [NIH], split="validation")


def test_a_finding_of_several_data_sets_is_ranked_within_each(cli: Cli, table: Path, tmp_path: Path) -> None:
    """Film by film as good as one table alone, and beside it what all of them together would make of the difference."""
    with table.open(newline="") as lines:
        rows = list(csv.reader(lines))[:-1]
    for name, own in (("north", rows[1:13]), ("south", rows[13:])):
        with (tmp_path / f"{name}.csv").open("w", newline="") as out:
            # Hernia is labelled in the south alone.
            csv.writer(out).writerows(
                [rows[0], *([*row[:3], row[3] if name == "south" else "", *row[4:]] for row in own)]
            )
    data = [tmp_path / "north.csv", tmp_path / "south.csv"]
    subject = open_subject("chestxray14")
    found, _ = evaluate(subject, data, samples=50, examples=0, against=open_subject("chestxray14-small"))
    alone = [evaluate(subject, [path], samples=50, examples=0)[0].findings[0] for path in data]
    effusion, hernia = found.findings
    assert [own.source for own in effusion.within] == ["north", "south"]
    assert [own.auroc for own in effusion.within] == [one.auroc for one in alone]
    areas = [own.auroc.value for own in effusion.within if own.auroc]
    assert effusion.auroc is not None
    assert effusion.auroc.value == pytest.approx(np.mean(areas))
    together = evaluate(subject, [table], samples=50, examples=0)[0].findings[0].auroc
    assert effusion.pooled is not None
    assert effusion.pooled.value == pytest.approx(together.value if together else None)
    assert (hernia.within, hernia.pooled) == ([], None)
    assert found.mean_pooled is not None
    assert found.mean_auroc.value == pytest.approx(
        np.mean([one.auroc.value for one in (effusion, hernia) if one.auroc])
    )
    run = cli("evaluate", "chestxray14", "--data", "north.csv", "--data", "south.csv", "-o", "out", "--examples", "0")
    assert run.returncode == 0, run.stderr
    page = (tmp_path / "out" / "evaluation.html").read_text()
    for told in (run.stdout, page):
        assert "Labelled by several data sets: Effusion. AUROC is the mean within each" in told
        assert "anked together" in told
    assert "Within each data set" in page


def test_a_table_that_does_not_say_whose_films_these_are_is_said_to(table: Path) -> None:
    found, _ = evaluate(open_subject("chestxray14"), [table], samples=20, examples=0)
    assert not found.cautions
    rows = [line.split(",") for line in table.read_text().splitlines()]
    table.write_text("".join(f"{','.join([row[0], *row[2:]])}\n" for row in rows))
    found, _ = evaluate(open_subject("chestxray14"), [table], samples=20, examples=0)
    (said,) = found.cautions
    assert said.startswith("labels names no patients: each film counts as another one's")


def test_columns_without_a_label_are_not_called_another_finding(table: Path) -> None:
    lines = [line.split(",") for line in table.read_text().splitlines()]
    table.write_text("file,Effusion\n" + "".join(f"{file},\n" for file, *_ in lines[1:]))
    with pytest.raises(DataError, match="these 25 films have columns for Effusion, and not one of them a label"):
        evaluate(open_subject("chestxray14"), [table], examples=0)


def test_labels_under_nearly_a_findings_name_are_refused(cli: Cli, tmp_path: Path) -> None:
    """Left out in silence, the mean would be over the others."""
    films = sorted((FILMS / "chestxray14" / "images").glob("*.jpg"))[:6]
    lines = ["file,Effusion,infiltration", *(f"{film},{i % 2},{i % 3 % 2}" for i, film in enumerate(films))]
    (tmp_path / "lab.csv").write_text("\n".join(lines))
    run = cli("evaluate", "chestxray14-small", "--data", "lab.csv", "-o", "out")
    assert run.returncode == 2
    assert "labelled for 'infiltration', which chestxray14-small calls Infiltration" in run.stderr
