"""The published layouts, read as they are published; patients never stand on both sides of a split."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from house import FILMS

from cxredge.errors import DataError
from cxredge.train.sources import CHESTXRAY14, KERMANY, carve_validation, join, read_source


def test_chestxray14_keeps_its_official_lists_and_labels() -> None:
    films = read_source(FILMS / "chestxray14")
    assert films.findings == CHESTXRAY14
    assert (len(films.split("train")), len(films.split("test"))) == (16, 8)
    row = {file.stem: i for i, file in enumerate(films.files)}["00000001_001"]
    named = {finding for finding, label in zip(films.findings, films.labels[row], strict=True) if label}
    assert named == {"Cardiomegaly", "Emphysema"}
    assert not set(films.split("train").patients) & set(films.split("test").patients)


def test_kermany_reads_kind_and_patient_from_the_name() -> None:
    films = read_source(FILMS / "chest_xray")
    assert films.findings == KERMANY
    for file, patient, labels in zip(films.files, films.patients, films.labels, strict=True):
        pneumonia, bacterial, viral = labels
        assert pneumonia == (file.parent.name == "PNEUMONIA")
        assert (bacterial, viral) == ("bacteria" in file.name, "virus" in file.name)
        assert patient.startswith(f"kermany/{file.parent.parent.name}/")


def test_a_finding_that_a_source_does_not_label_is_unknown_there() -> None:
    films = join([read_source(FILMS / "chestxray14"), read_source(FILMS / "chest_xray")])
    assert films.findings == CHESTXRAY14 + KERMANY
    nih = films.sources == "chestxray14"
    assert np.isnan(films.labels[nih][:, 14:]).all()
    assert np.isnan(films.labels[~nih][:, :14]).all()
    assert not np.isnan(films.labels[nih][:, :14]).any()


def test_validation_is_carved_by_patient_seeded_and_never_from_the_test_films() -> None:
    films = join([read_source(FILMS / "chestxray14"), read_source(FILMS / "chest_xray")])
    carved = carve_validation(films, share=0.3, seed=3)
    assert (carved.splits == carve_validation(films, share=0.3, seed=3).splits).all()
    assert ((films.splits == "test") == (carved.splits == "test")).all()
    for source in ("chestxray14", "kermany"):
        own = carved.take(carved.sources == source)
        sides = {split: set(own.patients[own.splits == split]) for split in ("train", "validation", "test")}
        assert sides["validation"]
        assert not sides["validation"] & (sides["train"] | sides["test"])
    kermany = carved.take((carved.sources == "kermany") & (carved.splits == "validation"))
    # Stratified: each kind of film is there to be validated on.
    assert (kermany.labels[:, -2:].sum(0) > 0).all()
    assert (kermany.labels[:, -3] == 0).any()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FILMS / "chestxray14", tmp_path / "chestxray14"))


def test_a_film_in_both_lists_is_an_error(copy: Path) -> None:
    with (copy / "test_list.txt").open("a") as listing:
        listing.write((copy / "train_val_list.txt").read_text().split()[0] + "\n")
    with pytest.raises(DataError, match=r"both train_val_list\.txt and test_list\.txt"):
        read_source(copy)


def test_a_patient_in_two_splits_is_an_error(copy: Path) -> None:
    table = copy / "Data_Entry_2017_v2020.csv"
    rows = table.read_text().splitlines()
    test = (copy / "test_list.txt").read_text().split()[0]
    train = (copy / "train_val_list.txt").read_text().split()[0]
    patient = next(row for row in rows if row.startswith(train)).split(",")[3]
    leaked = [
        ",".join([*row.split(",")[:3], patient, *row.split(",")[4:]]) if row.startswith(test) else row for row in rows
    ]
    table.write_text("\n".join(leaked) + "\n")
    with pytest.raises(DataError, match=f"patient {patient} has films in both"):
        read_source(copy)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda c: (c / "train_val_list.txt").unlink(), "official split lists"),
        (lambda c: shutil.rmtree(c / "images"), "none of them is there"),
        (lambda c: (c / "Data_Entry_2017_v2020.csv").unlink(), "neither ChestX-ray14"),
    ],
)
def test_a_broken_layout_says_what_is_missing(copy: Path, spoil, says: str) -> None:
    spoil(copy)
    with pytest.raises(DataError, match=says):
        read_source(copy)


def test_a_film_that_cannot_be_read_is_named_before_training(copy: Path, tmp_path: Path) -> None:
    from cxredge.imaging import Preprocessing
    from cxredge.train.planes import cached_planes

    bad = sorted((copy / "images").iterdir())[0]
    bad.write_bytes(bad.read_bytes()[:500])
    with pytest.raises(DataError, match=f"{bad.name}.*ends early"):
        cached_planes(read_source(copy).files, Preprocessing(size=64), tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
