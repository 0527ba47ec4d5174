"""A compression recipe: which findings of a run are carried, how they are quantized, and what the bundle says of itself."""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cxredge.bundle.record import Ages
from cxredge.compress.steps import Step
from cxredge.errors import RecipeError

Engine = Literal["onnxruntime", "openvino"]
# Of the exported family, what comes beside the portable graphs.
Form = Literal["tensorrt", "openvino"]


class AccuracyControl(BaseModel):
    """Leave in floats, besides the first `float_layers`, the convolutions whose rounding moves the logits most (see
    `accuracy_control`), as post-training quantization leaves them.

    films: training films to look at. logit_difference: the mean absolute difference from full precision that is near enough.
    most: that many at the most. slower: of the quantized network's time in `engine`, so many times at the most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    films: Annotated[int, Field(ge=8)] = 64
    logit_difference: Annotated[float, Field(ge=0)] = 0.0
    most: Annotated[int, Field(ge=1)] = 4
    slower: Annotated[float, Field(gt=1)] = 1.15
    engine: Engine = "onnxruntime"


class QuantizationAware(BaseModel):
    """Training through the rounding, with the full-precision parent as the teacher. Rates are per optimiser step.

    calibration_films: training films that set the activation ranges to begin with. percentile: of the activations that a range
    covers at each of its ends. float_layers: how many of the first convolutions stay in float; `AccuracyControl` finds those
    anywhere. equalize: bring the channels of a layer to like ranges first (MobileNetV2; see `equalize`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: Annotated[int, Field(ge=1)] = 3
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    batch_size: Annotated[int, Field(ge=2)] = 32
    calibration_films: Annotated[int, Field(ge=8)] = 300
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.9
    float_layers: Annotated[int, Field(ge=1)] = 1
    equalize: bool = True


class Recipe(BaseModel):
    """What `cxredge compress` does.

    source: the data set whose findings the bundle carries and whose test films it is judged on.
    findings: those of them to carry, where it is not all: one without films to judge it by cannot be.
    steps: what is done to the network before it is quantized, in order: take, distil, prune, finetune (see `steps`).
    urgent: findings that can make a film urgent. calibration_films: training films that set the activation ranges.
    percentile: of the activations that a range covers; the outermost ones are clipped.
    float_layers: how many of the first convolutions stay in float.
    quantization_aware: train through the rounding; without it the network is only rounded, by the three above.
    accuracy_control: leave further convolutions in float, those that measurement picks; without it, none.
    speedup: engine -> how many times as fast as full precision INT8 has to be, measured on this machine; where it is not, nothing
    is written. A processor without instructions for 8-bit products is not judged by time, see `speedup`.
    mirrored: the bundle's graphs read each film and its mirror image and give the mean: twice the work, steadier logits.
    export: beside the portable graphs, for which engines the network is written and checked (see `family`).
    gate_films: per data set, the training films that say what a chest film looks like. gate_components: of their features, at
    most, and fewer than the films.
    population_ages: youngest and oldest age in whole years that the model is for; without it, any.
    reference_films: validation films that the self-test carries. history: how the run came about, where its recipe does not
    say it all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # As a manifest takes it.
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: str
    version: str
    source: str
    findings: tuple[str, ...] = ()
    urgent: tuple[str, ...]
    calibration_films: Annotated[int, Field(ge=8)] = 96
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    float_layers: Annotated[int, Field(ge=0)] = 3
    steps: tuple[Step, ...] = ()
    quantization_aware: QuantizationAware | None = None
    accuracy_control: AccuracyControl | None = None
    speedup: dict[Engine, Annotated[float, Field(gt=0)]] = {}
    mirrored: bool = False
    export: tuple[Form, ...] = ("tensorrt", "openvino")
    gate_films: Annotated[int, Field(ge=16)] = 750
    gate_components: Annotated[int, Field(ge=1)] = 32
    reference_films: Annotated[int, Field(ge=8)] = 32
    intended_use: str
    population: str
    population_ages: Ages | None = None
    licence: str
    history: str = ""
    sources: dict[str, str]

    @field_validator("steps")
    @classmethod
    def _taken_first(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        if any(step.do == "take" for step in steps[1:]):
            raise ValueError("only the first step can be `take`: it brings a network of its own")
        return steps


def read_recipe(name: str) -> Recipe:
    """A recipe by the name of a shipped one or by its path. Raises RecipeError that lists every mistake at once."""
    shipped = resources.files("cxredge.compress") / "recipes"
    file = Path(name) if name.endswith(".toml") else shipped / f"{name}.toml"
    if not file.is_file():
        names = sorted(entry.name.removesuffix(".toml") for entry in shipped.iterdir() if entry.name.endswith(".toml"))
        raise RecipeError(f"no recipe {name!r}; shipped ones: {', '.join(names)}; or give the path of a .toml file")
    try:
        return Recipe(**tomllib.loads(file.read_text(encoding="utf-8")))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{file}: not TOML: {error}") from None
    except ValidationError as error:
        mistakes = "\n".join(f"  {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise RecipeError(f"{file}: {error.error_count()} mistake(s)\n{mistakes}") from None
