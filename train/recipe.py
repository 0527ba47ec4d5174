"""A training recipe: one TOML that says everything, read once into a typed record."""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cxredge.errors import RecipeError
from cxredge.imaging import Preprocessing

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Recipe(BaseModel):
    """What `cxredge train` does. Rates are per optimiser step; sizes in pixels.

    films_per_epoch: per source, how many training films an epoch draws (all of them where the source is not named);
    more than there are means that films are drawn again.
    mirror: whether films are mirrored at random; for teachers, whose student sees films as they are.
    teacher_share: weight of the teachers' probabilities in the loss, where teachers are given; the labels have the rest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: Literal["mobilenet_v2", "densenet121"] = "mobilenet_v2"
    weights: str = "imagenet"
    size: Count = 224
    clahe: bool = False
    validation_share: Share = 0.15
    seed: int = 0
    epochs: Count = 8
    batch_size: Count = 32
    films_per_epoch: dict[str, Count] = {}
    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup_share: Share = 0.15
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.995
    mirror: bool = False
    teacher_share: Annotated[float, Field(ge=0, le=1)] = 0.8

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(size=self.size, clahe=self.clahe)


def read_recipe(name: str, **overrides: object) -> Recipe:
    """A recipe by the name of a shipped one or by its path; overrides that are None are left as the recipe says.

    Raises RecipeError that lists every mistake at once.
    """
    file = Path(name) if name.endswith(".toml") else resources.files("cxredge.train") / "recipes" / f"{name}.toml"
    if not file.is_file():
        raise RecipeError(f"no recipe {name!r}; shipped ones: {', '.join(shipped())}; or give the path of a .toml file")
    try:
        said = tomllib.loads(file.read_text(encoding="utf-8"))
        return Recipe(**{**said, **{key: value for key, value in overrides.items() if value is not None}})
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{file}: not TOML: {error}") from None
    except ValidationError as error:
        mistakes = "\n".join(
            f"  {'.'.join(map(str, e['loc']))}: {e['msg']} (given: {e['input']!r})" for e in error.errors()
        )
        raise RecipeError(f"{file}: {error.error_count()} mistake(s)\n{mistakes}") from None


def shipped() -> list[str]:
    """Names of the recipes that come with cxredge."""
    folder = resources.files("cxredge.train") / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
