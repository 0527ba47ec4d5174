"""What the records of a manifest have in common."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

Precision = Literal["fp32", "fp16", "int8"]


def _youngest_first(ages: tuple[float, float]) -> tuple[float, float]:
    if ages[0] > ages[1]:
        raise ValueError("the youngest age comes first")
    return ages


# Youngest and oldest age in whole years.
Ages = Annotated[tuple[float, float], AfterValidator(_youngest_first)]


class Record(BaseModel):
    """Frozen; an unknown key is an error, and so is a number that is none: no film lies above a threshold of NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
