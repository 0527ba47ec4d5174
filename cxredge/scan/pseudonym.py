"""One patient, one pseudonym: the same wherever this user reads the patient's films, and of no use to anybody else."""

import base64
import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

from cxredge.folders import data_folder
from cxredge.imaging.plane import Person

SALT_BYTES = 16
_LENGTH = 10


def pseudonym(person: Person | None, salt: bytes) -> str:
    """ "P-" and ten letters or digits from the patient's number, else from name and date of birth; "" where a file has neither.

    HMAC-SHA256 under a salt, 50 bits of it. Who holds the salt could find out a number by trying; who holds the results cannot.
    """
    if person is None or not (person.patient_id or person.name):
        return ""
    said = ["id", person.patient_id] if person.patient_id else ["name", person.name, person.birth_date]
    digest = hmac.new(salt, "\0".join(said).encode("utf-8", "backslashreplace"), hashlib.sha256).digest()
    return f"P-{base64.b32encode(digest).decode()[:_LENGTH]}"


def own_salt(folder: Path | None = None) -> bytes | None:
    """This user's salt on this machine, made at first use and readable to nobody else; None where it cannot be kept.

    It lies outside every output folder, so that passing on results never passes on the salt. folder: where it is kept, the
    user's data folder unless told.
    """
    file = (folder or data_folder()) / "pseudonym.salt"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        made = file.with_name(f".{file.name}-{secrets.token_hex(6)}")
        if not file.exists():
            try:
                with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
                    opened.write(secrets.token_bytes(SALT_BYTES))
                    opened.flush()
                    os.fsync(opened.fileno())
                # Two scans may start at once: the first to link wins, and both read what it made.
                with suppress(FileExistsError):
                    os.link(made, file)
            finally:
                made.unlink(missing_ok=True)
        salt = file.read_bytes()
    except OSError:
        return None
    return salt if len(salt) == SALT_BYTES else None
