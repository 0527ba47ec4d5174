"""One film to one reading; the Python API and `cxredge scan` are the same code."""

import hashlib
import math
import secrets
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from cxredge.bundle import Bundle, open_bundle
from cxredge.bundle.bundle import DEFAULT
from cxredge.errors import FilmFailedError, FilmRefusedError
from cxredge.imaging import Film, Preprocessing, read_film
from cxredge.imaging.overlay import thumbnail
from cxredge.imaging.plane import Person
from cxredge.runtimes import Outputs
from cxredge.scan.decide import decide, probabilities_of
from cxredge.scan.engine import Say, open_engine
from cxredge.scan.explain import explain
from cxredge.scan.gate import check, years
from cxredge.scan.pseudonym import SALT_BYTES, own_salt, pseudonym
from cxredge.scan.reading import Priority, Reading, Status


@dataclass(frozen=True)
class Pictures:
    """What the report shows of a film.

    thumbnail: JPEG; None where there is no film. heat_maps: per explained finding a transparent PNG to be stretched over
    the thumbnail, empty where no place stands out; None when they were not asked for.
    """

    thumbnail: bytes | None = None
    heat_maps: dict[str, bytes] | None = None


class _OfFilm(TypedDict):
    """The fields of a reading that tell one film from another."""

    view: str
    patient: str
    patient_id: str
    patient_name: str
    says_age: bool
    digest: str


class Scanner:
    """A bundle, opened, verified and self-tested, ready to read films.

    bundle: a folder, a .zip or the name of a shipped one. trust: a public key that must have signed it. runtime: an engine,
    such as "openvino" or "openvino:GPU"; the first of the bundle's order that can be trusted here unless told, and `notices`
    says why others before it are not used. threads: of the engine per film. say: is told in a line of such notices and of
    what takes long. salt: of the pseudonyms; the user's own unless told, as `cxredge scan` has it.
    with_patient_ids: whether readings also carry the patient's number and name. reduced_decoding: decode DICOM films in JPEG 2000
    and JPEG no larger than the network needs, see `imaging.preprocess.decode`. `read` may be called from several threads at
    once.
    Raises the errors of `open_bundle`, RuntimeMissingError and SelfTestError.

    >>> with Scanner() as scanner:
    ...     print(scanner.read(Path("film.dcm")).priority)
    """

    def __init__(
        self,
        bundle: str | Path | Bundle = DEFAULT,
        *,
        trust: Path | None = None,
        runtime: str | None = None,
        threads: int | None = None,
        salt: bytes | None = None,
        with_patient_ids: bool = False,
        reduced_decoding: bool = False,
        say: Say = lambda _line: None,
    ) -> None:
        if isinstance(bundle, Bundle):
            # It may have been opened without the key.
            self.bundle = bundle if trust is None else open_bundle(bundle.folder, trust=trust)
        else:
            self.bundle = open_bundle(bundle, trust=trust)
        manifest = self.bundle.manifest
        self.preprocessing = Preprocessing(size=manifest.preprocessing.size, clahe=manifest.preprocessing.clahe)
        self.with_patient_ids, self.reduced_decoding = with_patient_ids, reduced_decoding
        self._salt = salt or own_salt() or secrets.token_bytes(SALT_BYTES)
        opened = open_engine(self.bundle, asked=runtime, threads=threads, say=say)
        self.runtime, self.engine, self.threads = opened.name, opened.text, opened.threads
        self.notices, self.self_test, self._session = opened.notices, opened.self_test, opened.session

    def read(self, path: str | Path, *, name: str | None = None) -> Reading:
        """Read one film. Never raises for a bad file: the reading says what is wrong with it.

        name: how the reading calls it; its file name unless told.
        """
        return self.read_with_pictures(Path(path), name=name)[0]

    def read_with_pictures(
        self, path: Path, *, name: str | None = None, heat_maps_too: bool = True
    ) -> tuple[Reading, Pictures]:
        """A reading and what the report shows of it: the film, and where the evidence for its findings lies."""
        name = name or path.name
        started = time.perf_counter()
        film = None
        try:
            film = read_film(path, self.preprocessing, reduced=self.reduced_decoding)
            decoded = time.perf_counter()
            outputs = self._session.run(film.image[None])
            note = self._check(film, outputs)
        except FilmRefusedError as refused:
            unread = self._unread(name, Status.REFUSED, refused.reason.code, _sentence(refused), started)
            return (unread if film is None else replace(unread, **self._of_film(film))), Pictures()
        except FilmFailedError as failed:
            return self._unread(name, Status.FAILED, "cannot_be_read_here", str(failed), started), Pictures()
        except OSError as error:
            kind = "folder" if path.is_dir() else "file"
            detail = f"the {kind} cannot be opened ({error.strerror or error}); check its permissions and the disk"
            return self._unread(name, Status.FAILED, "cannot_be_opened", detail, started), Pictures()
        except MemoryError:
            return self._unread(
                name, Status.FAILED, "out_of_memory", "not enough memory to decode it", started
            ), Pictures()
        except Exception as error:  # one file must not end the reading of all others, whatever is wrong with it
            # Its message may quote the header, so its kind alone is told.
            detail = f"it could not be read, for a reason that cxredge does not know ({type(error).__name__})"
            return self._unread(name, Status.FAILED, "cannot_be_read_here", detail, started), Pictures()
        done = time.perf_counter()
        reading = self._reading(name, film, outputs, note, (decoded - started) * 1000, (done - decoded) * 1000)
        heat_maps = explain(film, outputs, reading, self.bundle.manifest) if heat_maps_too else None
        return reading, Pictures(thumbnail(film), heat_maps)

    def _check(self, film: Film, outputs: Outputs) -> str:
        """What a person should know of a film that passes; raises for one that does not, see `gate.check`."""
        if not all(math.isfinite(logit) for logit in outputs.logits[0].tolist()):
            raise FilmFailedError("the engine gave a number that is not finite")
        return check(film, _atypicality(outputs), self.bundle.manifest, self._atypicality_of)

    def _atypicality_of(self, image: NDArray[np.uint8]) -> float:
        """Of an image, uint8 [1, size, size]; infinite where the engine gives none: no film becomes typical by it."""
        atypicality = _atypicality(self._session.run(image[None]))
        return math.inf if atypicality is None else atypicality

    def _reading(
        self, name: str, film: Film, outputs: Outputs, note: str, decode_ms: float, infer_ms: float
    ) -> Reading:
        probabilities = probabilities_of(outputs.logits[0], self.bundle.manifest)
        decision = decide(probabilities, self.bundle.manifest)
        priority = decision.priority
        if note and priority is Priority.ROUTINE:
            # Header and picture contradict each other: one of them is wrong, and somebody has to find out which.
            priority = Priority.REVIEW
        near = f"just below the threshold: {', '.join(decision.near).replace('_', ' ')}" if decision.near else ""
        return Reading(
            file=name,
            status=Status.OK,
            priority=priority,
            note="; ".join(filter(None, (note, near))),
            top_finding=decision.top_finding,
            probabilities=probabilities,
            flags=decision.flags,
            near=decision.near,
            decode_ms=decode_ms,
            infer_ms=infer_ms,
            model_sha256=self.bundle.graph_sha256(self.runtime),
            **self._of_film(film),
        )

    def _of_film(self, film: Film) -> _OfFilm:
        person = film.person or Person()
        return {
            "view": film.tags.get("view", ""),
            "patient": pseudonym(film.person, self._salt),
            "patient_id": person.patient_id if self.with_patient_ids else "",
            "patient_name": person.name if self.with_patient_ids else "",
            "says_age": years(film.tags.get("patient_age", "")) is not None,
            "digest": hashlib.blake2b(film.image.tobytes(), digest_size=16).hexdigest(),
        }

    def _unread(self, name: str, status: Status, reason: str, detail: str, started: float) -> Reading:
        return Reading(
            file=name,
            status=status,
            priority=Priority.REFUSED,
            reason=reason,
            detail=detail,
            decode_ms=(time.perf_counter() - started) * 1000,
            model_sha256=self.bundle.graph_sha256(self.runtime),
        )

    def deadly(self, name: str) -> Reading:
        """What is said of a film whose decoding a process does not survive."""
        detail = "its decoder broke down over it, so it was not read"
        return self._unread(name, Status.FAILED, "decoder_broke_down", detail, time.perf_counter())

    def close(self) -> None:
        """Give the engine's memory back."""
        self._session.close()

    def __enter__(self) -> "Scanner":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _atypicality(outputs: Outputs) -> float | None:
    return None if outputs.atypicality is None else float(outputs.atypicality[0])


def _sentence(refused: FilmRefusedError) -> str:
    return f"{refused.reason.value} ({refused.detail})" if refused.detail else refused.reason.value
