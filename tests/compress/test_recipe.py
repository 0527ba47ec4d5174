"""What a compression recipe may not say, told before anything is done."""

from importlib import resources
from pathlib import Path

import pytest

from cxredge.compress.recipe import read_recipe
from cxredge.errors import RecipeError

DEFAULT = (resources.files("cxredge.compress") / "recipes" / "default.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("told", "instead", "says"),
    [
        ('name = "smoke"', 'name = "Smoke_Test"', "name: "),
        (
            "gate_films = 64",
            "gate_films = 64\npopulation_ages = [5, 1]",
            "population_ages: .* youngest age comes first",
        ),
    ],
)
def test_a_recipe_that_no_bundle_could_come_of_is_refused_by_key(
    tmp_path: Path, told: str, instead: str, says: str
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(DEFAULT.replace(told, instead), encoding="utf-8")
    with pytest.raises(RecipeError, match=says):
        read_recipe(str(recipe))
