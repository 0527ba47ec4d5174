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
    reason: code of a refusal or failure ("ends_early"), or "duplicate" for a scored film whose very picture the run holds twice.
    detail: the sentence for a person on a refusal or failure. note: what a person should know of a scored film (its header
    contradicts the picture, a finding lies just below its threshold, another file holds the same picture).
    probabilities, flags: per finding, in the model's order; empty unless ok.
    top_finding: the flagged finding that lies furthest above its operating point; empty when nothing is flagged.
    near: findings with evidence that lie just below their threshold, as near as compression moves a score.
    patient: pseudonym, the same for films of the same patient wherever this user reads them; "" where the file names nobody.
    patient_id, patient_name: as the file says, only when asked for (`--with-patient-ids`).
    says_age: whether the file says the patient's age; pictures other than DICOM never do.
    digest: of what the network saw; equal for equal pictures. decode_ms, infer_ms: wall time in milliseconds.
    """

    file: str
    status: Status
    priority: Priority
    reason: str = ""
    detail: str = ""
    note: str = ""
    top_finding: str = ""
    probabilities: dict[str, float] = field(default_factory=dict)
    flags: dict[str, bool] = field(default_factory=dict)
    near: tuple[str, ...] = ()
    view: str = ""
    patient: str = ""
    patient_id: str = ""
    patient_name: str = ""
    says_age: bool = False
    digest: str = ""
    decode_ms: float = 0.0
    infer_ms: float = 0.0
    model_sha256: str = ""
