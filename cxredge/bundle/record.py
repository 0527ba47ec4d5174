"""What the records of a manifest have in common."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Precision = Literal["fp32", "fp16", "int8"]


class Record(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
