"""A training recipe: one TOML that says everything, read once into a typed record."""

import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cxredge.errors import RecipeError
from cxredge.imaging import Preprocessing
from cxredge.train.sources import Uncertain

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
# Epochs and processes multiply it, within what torch's generators take.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
NotNegative = Annotated[float, Field(ge=0)]


class Recipe(BaseModel):
    """What `cxredge train` does. Rates are per optimiser step; sizes in pixels.

    weights: `imagenet`, `none`, a .safetensors file, or a run or bundle to train on from.
    uncertain: what CheXpert's uncertain labels stand for, see `train.chexpert`; other sources have none.
    split_seed, validation_share: how validation is carved from the training patients. seed: everything else that is drawn, so
    that networks of several seeds share one validation set and can be averaged.
    batch_size: films per optimiser step, whatever the number of processes, which share them, and of `accumulate`, the pieces
    in which a process goes through its share where memory is short. Batch norms see a piece at a time, which is two films or more.
    films_per_epoch: per source, how many training films an epoch draws (all of them where the source is not named);
    more than there are means that films are drawn again.
    sampling: `plain`, or `balanced`: rarer findings more often, by patient; see `train.sampling`.
    head_epochs: that many of the `epochs` train the head alone on a frozen backbone before all layers are trained.
    patience: stop when the mean validation AUROC has not risen for so many epochs, and keep the best one; 0: never.
    loss, focal_gamma, asymmetric_gamma, asymmetric_margin, positive_weight, positive_weight_cap, label_smoothing: see
    `train.losses`. mixup: alpha of `train.films.mixup`; 0: none.
    metadata: train a branch on age, sex and view too, see `train.branch`; the network works without them. metadata_dropout: how
    often each is withheld in training, and how often all three are.
    mirror: whether films are mirrored at random; for teachers, whose student sees films as they are.
    teacher_share: weight of the teachers' probabilities in the loss, where teachers are given; the labels have the rest.
    cam_weight: of the difference of class activation maps between student and teachers, added to the loss; 0: none. See
    `train.attention`; 0.5 to 2 are usual.
    temperature: above 1 the student learns more of what the teachers hold unlikely; see `train.losses.teacher_total`.
    checkpoint_minutes: how much work a power cut may cost; a checkpoint is written at each epoch's end in any case.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    architecture: Literal[
        "mobilenet_v2", "densenet121", "resnet50", "efficientnet_b3", "vgg19", "inception_v3", "alexnet"
    ] = "mobilenet_v2"
    weights: str = "imagenet"
    size: Count = 224
    clahe: bool = False
    uncertain: Uncertain = "ignore"
    validation_share: Share = 0.15
    split_seed: Seed = 0
    seed: Seed = 0
    epochs: Count = 8
    batch_size: Annotated[int, Field(ge=2)] = 32
    accumulate: Count = 1
    films_per_epoch: dict[str, Count] = {}
    sampling: Literal["plain", "balanced"] = "plain"
    head_epochs: Natural = 0
    patience: Natural = 0
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 0.01
    warmup_share: Share = 0.15
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.995
    loss: Literal["bce", "focal", "asymmetric"] = "bce"
    focal_gamma: NotNegative = 2.0
    asymmetric_gamma: NotNegative = 4.0
    asymmetric_margin: Annotated[float, Field(ge=0, lt=1)] = 0.05
    positive_weight: Literal["none", "balanced"] = "none"
    positive_weight_cap: Annotated[float, Field(ge=1)] = 10.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mixup: NotNegative = 0.0
    metadata: bool = False
    metadata_dropout: Share = 0.3
    mirror: bool = False
    teacher_share: Annotated[float, Field(ge=0, le=1)] = 0.8
    cam_weight: NotNegative = 0.0
    temperature: Positive = 1.0
    checkpoint_minutes: Positive = 10.0

    @model_validator(mode="after")
    def _phases_fit(self) -> "Recipe":
        if self.head_epochs >= self.epochs:
            raise ValueError(f"head_epochs is {self.head_epochs} of {self.epochs} epochs: none is left for all layers")
        return self

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
        # Windows' editors put a mark before the first line.
        said = tomllib.loads(file.read_text(encoding="utf-8").removeprefix("\ufeff"))
        return Recipe(**{**said, **{key: value for key, value in overrides.items() if value is not None}})
    except UnicodeDecodeError as error:
        raise RecipeError(f"{file}: not UTF-8 text ({error}); save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{file}: not TOML: {error}") from None
    except ValidationError as error:
        mistakes = "\n".join(
            f"  {'.'.join(map(str, e['loc']))}: {e['msg']} (given: {e['input']!r})" for e in error.errors()
        )
        raise RecipeError(f"{file}: {error.error_count()} mistake(s)\n{mistakes}") from None


def written(recipe: Recipe, header: str) -> str:
    """A recipe as TOML that `read_recipe` reads back, every key said but an architecture that nobody chose: what it trains on from
    has its own. header: lines that become its comment."""
    said = recipe.model_dump(exclude={"architecture"} - recipe.model_fields_set)
    tables = {key: value for key, value in said.items() if isinstance(value, dict)}
    # What JSON writes of texts, numbers and truths is TOML too.
    lines = [f"# {line}" for line in header.splitlines()]
    lines += [f"{key} = {json.dumps(value)}" for key, value in said.items() if key not in tables]
    for key, table in tables.items():
        if table:
            lines += ["", f"[{key}]", *(f"{json.dumps(name)} = {json.dumps(value)}" for name, value in table.items())]
    return "\n".join([*lines, ""])


def shipped() -> list[str]:
    """Names of the recipes that come with cxredge."""
    folder = resources.files("cxredge.train") / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
