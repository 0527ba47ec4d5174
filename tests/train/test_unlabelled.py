"""Films without labels: they are learned from through a teacher, and never validated or tested on."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from house import EXAMPLES, FILMS

from cxredge.errors import DataError
from cxredge.train.fit import fit
from cxredge.train.recipe import Recipe
from cxredge.train.sources import carve_validation, read_source
from cxredge.train.unlabelled import add_unlabelled


def test_they_are_training_films_of_which_nothing_is_known(tmp_path: Path) -> None:
    films = carve_validation(read_source(FILMS / "chest_xray"), share=0.3, seed=0)
    pictures = sorted(EXAMPLES.glob("*.jp*g"))
    table = tmp_path / "found.csv"
    table.write_text("file,remark\n" + "".join(f"{file},who knows\n" for file in pictures))
    more = add_unlabelled(films, [table])
    assert more.files[: len(films)] == films.files
    assert more.files[len(films) :] == tuple(pictures)
    assert set(more.splits[len(films) :]) == {"train"}
    assert np.isnan(more.labels[len(films) :]).all()
    assert more.findings == films.findings
    # A folder, as deep as it likes.
    assert set(add_unlabelled(films, [FILMS / "chestxray14"]).sources) == {"kermany", "unlabelled-chestxray14"}
    with pytest.raises(DataError, match="are in the labelled data already"):
        add_unlabelled(films, [FILMS / "chest_xray" / "test"])
    # A copy of a test film, under another name.
    shutil.copyfile(films.split("test").files[0], tmp_path / "from-a-colleague.jpg")
    with pytest.raises(DataError, match=r"from-a-colleague\.jpg first, the same as .*chest_xray"):
        add_unlabelled(films, [tmp_path])
    (tmp_path / "from-a-colleague.jpg").unlink()
    table.write_text("file\nnowhere.png\n")
    with pytest.raises(DataError, match=r"nowhere\.png is not there"):
        add_unlabelled(films, [table])
    with pytest.raises(DataError, match="no films"):
        add_unlabelled(films, [tmp_path])


def test_without_a_teacher_they_teach_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give a teacher"):
        fit(Recipe(), [FILMS / "chest_xray"], tmp_path / "run", cache=tmp_path, unlabelled=[EXAMPLES])
