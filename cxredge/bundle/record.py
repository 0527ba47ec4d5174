"""What the records of a manifest have in common."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Precision = Literal["fp32", "fp16", "int8"]


class Record(BaseModel):
    """Frozen; an unknown key is an error, and so is a number that is none: no film lies above a threshold of NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
