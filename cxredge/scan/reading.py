"""What is known of one film after it was read; the same fields in the journal, the tables, the report and the Python API."""

from dataclasses import dataclass, field
from enum import StrEnum


class Status(StrEnum):
    """`refused`: the file holds no film that may be scored. `failed`: it could not be read now; the next run tries again."""

    OK = "ok"
    REFUSED = "refused"
    FAILED = "failed"


class Priority(StrEnum):
    """Order of the worklist, most pressing first."""

    URGENT = "urgent"
    REVIEW = "review"
    ROUTINE = "routine"
    REFUSED = "refused"


# A film that could not be read stands beside the urgent ones: somebody has to look at it.
ORDER = {Priority.URGENT: 0, Priority.REVIEW: 1, Priority.REFUSED: 2, Priority.ROUTINE: 3}


@dataclass(frozen=True)
class Reading:
    """One film's row.

    file: path below the folder that was scanned, with forward slashes.
    reason: code of a refusal or failure ("ends_early"); detail: the sentence for a person. Both empty when ok.
    probabilities, flags: per finding, in the model's order; empty unless ok.
    top_finding: the flagged finding that lies furthest above its operating point; empty when nothing is flagged.
    decode_ms, infer_ms: wall time in milliseconds.
    """

    file: str
    status: Status
    priority: Priority
    reason: str = ""
    detail: str = ""
    top_finding: str = ""
    probabilities: dict[str, float] = field(default_factory=dict)
    flags: dict[str, bool] = field(default_factory=dict)
    view: str = ""
    decode_ms: float = 0.0
    infer_ms: float = 0.0
    model_sha256: str = ""
