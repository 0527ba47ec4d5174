"""Subgroups against the rows themselves, and a bundle that gets its card anew."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from house import FILMS, ROOT
from tamper import rewrite, seal

from cxredge.bundle import open_bundle
from cxredge.bundle.signature import SIGNATURE, new_keys, sign
from cxredge.compress.card_evidence import calibration_lines, subgroup_lines
from cxredge.compress.evidence import measure_calibration, measure_subgroups
from cxredge.compress.recard import recard
from cxredge.errors import BundleSchemaError, CxredgeError, DataError
from cxredge.metrics import auroc, auroc_interval
from cxredge.train.facts import Facts
from cxredge.train.sources import Films

CHILDREN = ROOT / "cxredge" / "models" / "paediatric-pneumonia"


@pytest.fixture(scope="module")
def table() -> tuple[Films, Facts, np.ndarray]:
    """Six hundred rows: 30 of people below 18, of the rest a third above 65; B is rare in men; a tenth of no known sex."""
    rng = np.random.default_rng(0)
    n = 600
    sex = np.array(["F", "M"])[rng.integers(0, 2, n)]
    sex[:60] = ""
    age = np.where(np.arange(n) < 30, 9.0, np.where(np.arange(n) % 3 == 0, 70.0, 50.0))
    labels = np.column_stack([rng.random(n) < 0.3, (rng.random(n) < 0.3) & ((sex == "F") | (np.arange(n) > 590))])
    told = 1 / (1 + np.exp(-rng.normal(size=(n, 2)) - labels))
    films = Films(
        tuple(Path(f"{i}.jpg") for i in range(n)),
        np.array([f"p{i // 2}" for i in range(n)]),
        np.full(n, "mine"),
        np.full(n, "test"),
        ("A", "B"),
        labels.astype(np.float32),
    )
    return films, Facts(sex, age, np.full(n, "")), told


def test_subgroup_figures_are_those_of_the_rows(table: tuple[Films, Facts, np.ndarray]) -> None:
    films, facts, told = table
    found = measure_subgroups(films, facts, told, "mine", samples=50)
    groups = {(group.axis, group.name): group for group in found.groups}
    assert set(groups) == {
        ("sex", "female"),
        ("sex", "male"),
        ("age", "0-17"),
        ("age", "40-64"),
        ("age", "65 and over"),
    }
    assert found.unknown == {"sex": 60, "age": 0, "view": 600}
    women = facts.sex == "F"
    female, male = groups["sex", "female"], groups["sex", "male"]
    for i, name in enumerate("AB"):
        labels = films.labels[women, i].astype(float)
        one = female.findings[name]
        assert one.auroc == auroc_interval(labels, told[women, i], films.patients[women])
        assert (one.positives, one.negatives) == (labels.sum(), (1 - labels).sum())
    assert (female.films, female.patients) == (women.sum(), len(set(films.patients[women])))
    # B is too rare in men, so means by sex are over A alone, for women too.
    assert male.findings["B"].auroc is None
    assert male.averaged == female.averaged == ("A",)
    assert female.mean is not None
    assert female.mean.value == pytest.approx(auroc(films.labels[women, 0].astype(float), told[women, 0]))
    assert female.mean.low < female.mean.value < female.mean.high
    # Thirty films have no mean and do not narrow what the others are averaged over.
    assert groups["age", "0-17"].films == 30
    assert groups["age", "0-17"].mean is None
    assert groups["age", "40-64"].averaged == ("A", "B")
    card = "\n".join(subgroup_lines(found))
    assert f"too few ({male.findings['B'].positives} / {male.findings['B'].negatives})" in card
    assert f"female: {female.films} films, {female.patients} patients" in card
    assert "Not in the mean: B." in card
    assert "Of 60 films the sex is not known" in card
    assert "The data set tells view of none of its films" in card


def test_the_card_says_why_probabilities_are_off(table: tuple[Films, Facts, np.ndarray]) -> None:
    films, _, told = table
    finding = open_bundle(CHILDREN).manifest.findings[0]
    validation = finding.balanced
    truth = films.labels[:, 0] > 0.5
    known = validation.positives / (validation.positives + validation.negatives)
    # Right at the validation films' share of 75 %, while 30 % of these have it.
    odds = truth.mean() / (1 - truth.mean())
    rng = np.random.default_rng(4)
    evidence = rng.normal(size=len(truth)) + 2.0 * truth - 1.0
    right_here = 1 / (1 + np.exp(-(2.0 * evidence + np.log(odds))))
    moved = right_here / (1 - right_here) / odds * known / (1 - known)
    told = np.column_stack([moved / (1 + moved), np.where(films.labels[:, 1] == 1, 0.9, 0.02)])
    other = finding.model_copy(update={"name": "B"})
    found = measure_calibration([finding.model_copy(update={"name": "A"}), other], films, told, "mine", samples=50)
    one = found.findings["A"]
    assert one.error.value > 0.15 > 3 * one.at_this_share
    assert one.share.value == pytest.approx(truth.mean())
    assert one.known_share == known
    card = "\n".join(calibration_lines(found))
    assert "- A: 3" in card or "- A: 2" in card
    assert "75 % of the validation films" in card
    assert "the share accounts for it" in card
    assert f"mean of 2** | {found.mean.value:.3f} ({found.mean.low:.3f}-{found.mean.high:.3f})" in card


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CHILDREN, tmp_path / "copy"))


def test_a_card_is_only_made_of_the_films_that_the_bundle_was_measured_on(copy: Path, tmp_path: Path) -> None:
    before = (copy / "manifest.json").read_bytes()
    with pytest.raises(DataError, match="was measured on 624 kermany test films, and the data given hold 12"):
        recard(open_bundle(copy), [FILMS / "chest_xray"], copy)
    # As many films, and not the same.
    rewrite(copy, lambda said: said["accuracy"].update(films=12))
    with pytest.raises(DataError, match="these are not the films, or not the labels"):
        recard(open_bundle(copy), [FILMS / "chest_xray"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (copy / "manifest.json").write_bytes(before)
    seal(copy)
    open_bundle(copy)


def test_a_signed_bundle_gets_no_card_without_the_key(copy: Path, tmp_path: Path) -> None:
    new_keys(tmp_path / "lab.key")
    (copy / SIGNATURE).write_bytes(sign((copy / "manifest.json").read_bytes(), tmp_path / "lab.key"))
    with pytest.raises(CxredgeError, match="needs a new signature"):
        recard(open_bundle(copy), [FILMS / "chest_xray"], copy)


def test_shipped_pictures_are_part_of_the_bundle_and_a_bundle_without_them_still_opens(copy: Path) -> None:
    manifest = open_bundle(copy).manifest
    assert manifest.pictures == ("calibration.png", "failures.jpg")
    assert (copy / "calibration.png").stat().st_size < 60_000
    assert (copy / "failures.jpg").stat().st_size < 150_000
    assert manifest.calibration is not None
    assert set(manifest.calibration.findings) == set(manifest.names)
    card = (copy / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert all(f"]({name})" in card for name in manifest.pictures)
    said = json.loads((copy / "manifest.json").read_text())
    said["files"].pop("calibration.png")
    rewrite(copy, lambda old: old.update(said))
    with pytest.raises(BundleSchemaError, match=r"the picture 'calibration\.png' is not among the files"):
        open_bundle(copy)
    # As bundles were before: neither records nor pictures.
    said["files"].pop("failures.jpg")
    for name in ("calibration.png", "failures.jpg"):
        (copy / name).unlink()
    for record in ("subgroups", "calibration", "failures"):
        said.pop(record)
    (copy / "manifest.json").write_text(json.dumps(said))
    seal(copy)
    assert open_bundle(copy).manifest.calibration is None
