"""Labels tables of a lab's own: which film is which, and which films may judge a network that learned from others."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from house import FILMS, Cli

from cxredge.compress.calibrate import LEAST_SCALE, platt
from cxredge.compress.parent import open_parent
from cxredge.compress.records import unnamed_patients
from cxredge.errors import DataError
from cxredge.train.evaluate import evaluate
from cxredge.train.facts import read_facts
from cxredge.train.fit import fit
from cxredge.train.labels import read_table
from cxredge.train.network import load_network
from cxredge.train.recipe import Recipe
from cxredge.train.sources import carve_validation, join
from cxredge.train.subject import open_subject
from cxredge.train.tables import read_films, validation_hash
from cxredge.train.teacher import open_run
from cxredge.train.unseen import learned_from
from cxredge.train.validate import means_by_source, validation_auroc

PICTURES = sorted((FILMS / "chestxray14" / "images").glob("*.jpg"))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two sites that call their films alike; the first has the young women, the second the old men."""
    lines = ["file,patient,split,Effusion,age,sex,view"]
    for i, picture in enumerate(PICTURES[:24]):
        site, number = divmod(i, 12)
        folder = tmp_path / f"site{site}"
        folder.mkdir(exist_ok=True)
        shutil.copy(picture, folder / f"{number:04}.jpg")
        split = "test" if number > 9 else "train"
        lines.append(f"site{site}/{number:04}.jpg,{site}-{number},{split},{i % 2},{(17.5, 70)[site]},{'FM'[site]},PA")
    (tmp_path / "sites.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "sites.csv"


SMALL = Recipe(weights="none", size=64, epochs=1, batch_size=8, validation_share=0.3)


def test_films_of_like_names_are_told_apart(table: Path, tmp_path: Path) -> None:
    films = read_table(table)
    assert len(set(films.names)) == 24
    facts = read_facts([table], films)
    first = np.array([name.startswith("site0") for name in films.names])
    assert set(facts.sex[first]) == {"F"}
    assert set(facts.age[~first]) == {70.0}
    # Until the 18th birthday somebody is 17.
    assert facts.groups["age"]["0-17"].tolist() == first.tolist()
    fitted = fit(SMALL, [table], tmp_path / "run", cache=tmp_path)
    carved = {name for name, split in _carved(table) if split == "validation"}
    assert 0 < len(carved) < 12
    for held in (
        read_films([table], "validation", splits_of=fitted.run),
        open_parent(fitted.run, [table], tmp_path).films.split("validation"),
    ):
        assert set(held.names) == carved


def _carved(table: Path) -> list[tuple[str, str]]:
    films = carve_validation(read_table(table), share=SMALL.validation_share, seed=SMALL.split_seed)
    return list(zip(films.names, films.splits.tolist(), strict=True))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("0-11,test", "0-3,test"), "patient 0-3 has films in both train and test"),
        (("0-11,test", " 0-3 ,test"), "patient 0-3 has films in both train and test"),
        (("site0/0003", "site0/0002"), r"line 5: site0/0002\.jpg stands in line 4 already"),
        (("0-3,train", "0-3,val"), "line 5: split 'val' is neither train nor test"),
        ((",0,17.5,F,PA", ",0,17.5,F,PA,more"), "line 2 has more cells than the first line"),
        (("site0/0003", "site1/../site0/0002"), r"line 5: site1/\.\./site0/0002\.jpg stands in line 4 already"),
        ((",view", ",view,"), "column 8 has no name"),
        ((",age", ",Effusion"), "2 columns are called Effusion"),
        ((",age", ",Split"), "2 columns are called split"),
        ((",0,17.5,F,PA", ',"0,17.5,F,PA'), "from line 2: no table with commas .* quotation mark not closed"),
        (("site0/0003.jpg", ""), "line 5 names no film"),
        (("site0/0003.jpg", "a\0.jpg"), r"line 5: no film can be called 'a\\x00\.jpg' \(embedded null byte\)"),
        (("site0/0003.jpg", "a" * 300), "line 5: no film can be called 'aaaa.*File name too long"),
        # A spreadsheet's 12.0 is 12.
        (("0-11,test", "3.0,test"), "patient 3 has films in both train and test"),
    ],
)
def test_a_table_that_would_mislead_is_refused(table: Path, change: tuple[str, str], said: str) -> None:
    table.write_text(table.read_text().replace("0-3,train", "3,train" if "patient 3 " in said else "0-3,train"))
    table.write_text(table.read_text().replace(*change, 1))
    with pytest.raises(DataError, match=said):
        read_table(table)


def test_a_table_reads_the_same_however_its_columns_and_lines_are_written(table: Path) -> None:
    films, facts = read_table(table), read_facts([table], read_table(table))
    written = table.read_text().replace("file,patient,split,Effusion,age,sex", "File, PATIENT,Split , Effusion,Age,Sex")
    table.write_bytes(written.replace("\n", "\r\n,,,,,,\r\n").encode("utf-8-sig"))
    again = read_table(table)
    assert again.findings == films.findings == ("Effusion",)
    assert (again.names, again.patients.tolist()) == (films.names, films.patients.tolist())
    assert np.array_equal(read_facts([table], again).age, facts.age)
    assert read_facts([table], again).sex.tolist() == facts.sex.tolist()


def test_a_film_is_in_one_data_set_only(table: Path, tmp_path: Path) -> None:
    films = read_table(table)
    with pytest.raises(DataError, match="two data sets are called sites"):
        join([films, films])
    (tmp_path / "again.csv").write_text(table.read_text())
    with pytest.raises(DataError, match="is a film of both sites and again"):
        join([films, read_table(tmp_path / "again.csv")])
    with pytest.raises(DataError, match="kermany is the name of the published data set"):
        read_table(table.rename(tmp_path / "kermany.csv"))


def test_changed_labels_are_not_taken_for_those_learned_from(table: Path, tmp_path: Path) -> None:
    run = fit(SMALL, [table], tmp_path / "run", cache=tmp_path).run
    before = validation_hash(open_parent(run, [table], tmp_path).films)
    assert open_parent(run, [table], tmp_path).facts["validation_sha256"] == before
    table.write_text(table.read_text().replace("0-3,train,1", "0-3,train,0"))
    with pytest.raises(DataError, match="trained on other films or labels"):
        open_parent(run, [table], tmp_path)


def test_films_that_cannot_be_read_count_nowhere(table: Path, tmp_path: Path) -> None:
    run = fit(SMALL, [table], tmp_path / "run", cache=tmp_path).run
    (tmp_path / "site1" / "0011.jpg").write_bytes(b"no film")
    found, _ = evaluate(open_subject(str(run)), [table], split="test", runtime="torch", samples=100)
    assert found.data["films"] == found.data["patients"] == 3


def test_a_network_trained_on_keeps_its_kind(table: Path, tmp_path: Path) -> None:
    """The recipe's own architecture is a default that nobody chose here."""
    dense = SMALL.model_copy(update={"architecture": "resnet50"})
    first = fit(dense, [table], tmp_path / "first", cache=tmp_path).run
    second = fit(SMALL.model_copy(update={"weights": str(first)}), [table], tmp_path / "second", cache=tmp_path).run
    assert load_network(second)[0].architecture == "resnet50"


def test_a_network_is_taken_on_whatever_order_its_findings_come_in(table: Path, tmp_path: Path) -> None:
    lines = [line.split(",") for line in table.read_text().splitlines()]
    both = tmp_path / "both.csv"
    both.write_text(
        "".join(",".join([*line, "Mass" if i == 0 else str(i % 3 // 2)]) + "\n" for i, line in enumerate(lines))
    )
    run = fit(SMALL, [both], tmp_path / "run", cache=tmp_path).run
    films = carve_validation(join([read_table(both)]), share=0.3, seed=0)
    planes = torch.randint(0, 256, (4, 1, 64, 64), dtype=torch.uint8)
    here, there = (open_run(run, given)(planes) for given in (films, films.ordered(films.findings[::-1])))
    assert torch.allclose(here, there.flip(1), atol=1e-6)
    assert not torch.allclose(here, there, atol=1e-2)


def test_a_teacher_that_is_none_is_named(table: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nosuchrun: neither a finished run"):
        fit(SMALL, [table], tmp_path / "run", cache=tmp_path, teachers=[tmp_path / "nosuchrun"])


def test_a_teacher_that_sees_films_otherwise_is_refused(table: Path, tmp_path: Path) -> None:
    teacher = fit(SMALL, [table], tmp_path / "teacher", cache=tmp_path).run
    with pytest.raises(DataError, match="takes films without clahe"):
        fit(SMALL.model_copy(update={"clahe": True}), [table], tmp_path / "student", cache=tmp_path, teachers=[teacher])


def test_a_score_that_knows_the_hospital_and_nothing_else_has_no_auroc(table: Path) -> None:
    rng = np.random.default_rng(0)
    films = read_table(table).take(rng.integers(0, 24, 4000))
    hospital = rng.integers(0, 2, len(films))
    labels = (rng.random((len(films), 1)) < np.where(hospital, 0.4, 0.1)[:, None]).astype(np.float32)
    films = replace(films, sources=np.where(hospital, "one", "other"), labels=labels)
    logits = hospital[:, None] + 0.01 * rng.normal(size=(len(films), 1))
    assert validation_auroc(labels, logits, ("Effusion",), films.sources)["Effusion"] == pytest.approx(0.5, abs=0.04)
    means = dict(part.split() for part in means_by_source(films, logits).split(", "))
    assert all(abs(float(mean) - 0.5) < 0.05 for mean in means.values())
    assert set(means) == {"one", "other"}


def test_a_finding_ranked_the_wrong_way_round_keeps_its_share() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((2000, 1)) < 0.12).astype(float)
    logits = -2 * labels + rng.normal(size=labels.shape)
    scale, bias = platt(labels, logits)
    assert scale[0] == LEAST_SCALE
    assert (1 / (1 + np.exp(-(scale * logits + bias)))).mean() == pytest.approx(labels.mean(), abs=0.002)


def test_a_folder_that_holds_something_else_gets_no_run(cli: Cli, table: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("one")
    (tmp_path / "file").write_text("two")
    for out, says in (("thesis", "thesis holds chapter.txt and is no training run"), ("file", "file is a file")):
        for more in ((), ("--tune", "2")):
            refused = cli("train", "--data", table, "-o", out, *more)
            assert refused.returncode == 2
            assert says in refused.stderr
    assert [file.name for file in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]


def test_a_run_does_not_go_on_with_other_ages_than_it_began_with(table: Path, tmp_path: Path) -> None:
    recipe = SMALL.model_copy(update={"metadata": True, "epochs": 2})

    def stop(_epoch: int, _area: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(recipe, [table], tmp_path / "run", cache=tmp_path, watch=stop)
    table.write_text(table.read_text().replace("17.5", "44"))
    with pytest.raises(DataError, match="another recipe or other films"):
        fit(recipe, [table], tmp_path / "run", cache=tmp_path)


def test_a_model_is_not_compared_on_validation_films_that_it_learned_from(table: Path, tmp_path: Path) -> None:
    one = fit(SMALL, [table], tmp_path / "one", cache=tmp_path).run
    other = fit(SMALL.model_copy(update={"split_seed": 5}), [table], tmp_path / "other", cache=tmp_path).run

    def compared(against: Path, split: str) -> None:
        evaluate(
            open_subject(one),
            [table],
            split=split,
            runtime="torch",
            against=open_subject(against),
            samples=20,
            examples=0,
        )

    with pytest.raises(DataError, match=r"other was trained on \d+ of these \d+ validation films"):
        compared(other, "validation")
    compared(one, "validation")
    compared(other, "test")
    # A model of other data has seen none of these.
    shipped = open_subject("chestxray14").bundle
    assert shipped is not None
    assert learned_from(shipped.folder, [table], read_table(table)) == []
    assert len(learned_from(one, [table], read_table(table))) == 20 - len(
        read_films([table], "validation", splits_of=one)
    )


def test_one_patient_cannot_both_train_and_validate(table: Path, tmp_path: Path) -> None:
    lines = [line.split(",") for line in table.read_text().splitlines()]
    same = [",".join((cells[0], "one" if cells[2] == "train" else cells[1], *cells[2:])) for cells in lines[1:]]
    table.write_text("\n".join([",".join(lines[0]), *same]) + "\n")
    with pytest.raises(DataError, match="sites: all 20 training films are of one patient"):
        fit(SMALL, [table], tmp_path / "run", cache=tmp_path)


def test_a_slip_in_the_name_of_a_source_is_found(table: Path, tmp_path: Path) -> None:
    slipped = SMALL.model_copy(update={"films_per_epoch": {"site": 4}})
    with pytest.raises(
        DataError, match="films_per_epoch names 'site', which none of the data sets is called; they are sites"
    ):
        fit(slipped, [table], tmp_path / "run", cache=tmp_path)
    # A recipe for two published sets does for one of them.
    fit(
        SMALL.model_copy(update={"films_per_epoch": {"sites": 4, "kermany": 2}}),
        [table],
        tmp_path / "run",
        cache=tmp_path,
    )


def test_a_table_without_patients_is_said_in_the_card(table: Path) -> None:
    assert unnamed_patients(read_table(table)) == []
    unnamed = [
        ",".join((cells[0], *cells[2:])) for cells in (line.split(",") for line in table.read_text().splitlines())
    ]
    table.write_text("\n".join(unnamed) + "\n")
    (said,) = unnamed_patients(read_table(table))
    assert said.startswith("The table of sites names no patients")
