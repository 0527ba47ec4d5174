"""One film to one reading; the Python API and `cxredge scan` are the same code."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from cxredge.bundle import Bundle, open_bundle
from cxredge.bundle.bundle import DEFAULT
from cxredge.bundle.selftest import SelfTest, self_test_once
from cxredge.devices import this_machine
from cxredge.errors import BundleSchemaError, FilmFailedError, FilmRefusedError, Refusal, RuntimeMissingError
from cxredge.imaging import Film, Preprocessing, read_film
from cxredge.imaging.overlay import heat_map, thumbnail
from cxredge.runtimes import MODULES, Artifact, Outputs, runtime
from cxredge.scan.decide import decide, probabilities_of
from cxredge.scan.reading import Priority, Reading, Status


@dataclass(frozen=True)
class Pictures:
    """JPEG bytes for the report: the film, and the heat map of its top finding; None where there is none."""

    thumbnail: bytes | None = None
    heat_map: bytes | None = None


class Scanner:
    """A bundle, opened, verified and self-tested, ready to read films.

    bundle: a folder, or the name of a shipped one. threads: of the engine per film. `read` may be called from several
    threads at once. Raises the errors of `open_bundle`, RuntimeMissingError and SelfTestError.

    >>> with Scanner() as scanner:
    ...     print(scanner.read(Path("film.dcm")).priority)
    """

    def __init__(self, bundle: str | Path | Bundle = DEFAULT, *, threads: int = 1) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
        manifest = self.bundle.manifest
        self.preprocessing = Preprocessing(size=manifest.preprocessing.size, clahe=manifest.preprocessing.clahe)
        if self.preprocessing.digest != manifest.preprocessing.digest:
            raise BundleSchemaError(
                self.bundle.folder,
                "was made for another version of the preprocessing; use the cxredge it was built with, or rebuild it",
            )
        self.runtime = self._engine()
        self.threads = threads
        self._session = runtime(self.runtime).load(Artifact(self.runtime, self.bundle.model), threads)
        self.engine = f"{self.runtime} {runtime(self.runtime).version()}"
        self.self_test: SelfTest = self_test_once(
            self.bundle, self._session, runtime=self.engine, processor=this_machine().processor
        )

    def _engine(self) -> str:
        """The first engine of the manifest's order that is installed."""
        reasons = []
        for name in self.bundle.manifest.runtimes:
            if name not in MODULES:
                reasons.append(f"{name} is not known to this cxredge")
            elif (reason := runtime(name).available()) is True:
                return name
            else:
                reasons.append(reason)
        raise RuntimeMissingError(f"no engine for {self.bundle.folder.name}: {'; '.join(reasons)}")

    def read(self, path: str | Path, *, name: str | None = None) -> Reading:
        """Read one film. Never raises for a bad file: the reading says what is wrong with it.

        name: how the reading calls it; its file name unless told.
        """
        return self.read_with_pictures(Path(path), name=name)[0]

    def read_with_pictures(self, path: Path, *, name: str | None = None) -> tuple[Reading, Pictures]:
        """A reading and what the report shows of it: the film, and where the top finding's evidence lies."""
        name = name or path.name
        started = time.perf_counter()
        try:
            film = read_film(path, self.preprocessing)
            decoded = time.perf_counter()
            outputs = self._session.run(film.image[None])
            self._check(outputs)
        except FilmRefusedError as refused:
            return self._unread(name, Status.REFUSED, refused.reason.code, _sentence(refused), started), Pictures()
        except FilmFailedError as failed:
            return self._unread(name, Status.FAILED, "cannot_be_read_here", str(failed), started), Pictures()
        except OSError as error:
            detail = f"the file cannot be opened ({error.strerror or error}); check its permissions and the disk"
            return self._unread(name, Status.FAILED, "cannot_be_opened", detail, started), Pictures()
        except MemoryError:
            return self._unread(
                name, Status.FAILED, "out_of_memory", "not enough memory to decode it", started
            ), Pictures()
        done = time.perf_counter()
        reading = self._reading(name, film, outputs, (decoded - started) * 1000, (done - decoded) * 1000)
        return reading, self._pictures(film, outputs, reading)

    def _check(self, outputs: Outputs) -> None:
        if not all(math.isfinite(logit) for logit in outputs.logits[0].tolist()):
            raise FilmFailedError("the engine gave a number that is not finite")
        gate = self.bundle.manifest.gate
        if gate is None:
            return
        # Fails safe: without a distance that is a number, no film passes.
        if outputs.atypicality is None or not math.isfinite(outputs.atypicality[0]):
            raise FilmFailedError("the engine did not say how unlike the training films it is")
        if outputs.atypicality[0] > gate.threshold:
            times = outputs.atypicality[0] / gate.threshold
            raise FilmRefusedError(
                Refusal.NOT_A_CHEST_FILM, f"unlike the training films by {times:.2f} times the limit"
            )

    def _reading(self, name: str, film: Film, outputs: Outputs, decode_ms: float, infer_ms: float) -> Reading:
        probabilities = probabilities_of(outputs.logits[0], self.bundle.manifest)
        decision = decide(probabilities, self.bundle.manifest)
        return Reading(
            file=name,
            status=Status.OK,
            priority=decision.priority,
            top_finding=decision.top_finding,
            probabilities=probabilities,
            flags=decision.flags,
            view=film.tags.get("view", ""),
            decode_ms=decode_ms,
            infer_ms=infer_ms,
            model_sha256=self.bundle.model_sha256,
        )

    def _pictures(self, film: Film, outputs: Outputs, reading: Reading) -> Pictures:
        if not reading.top_finding:
            return Pictures(thumbnail(film))
        column = self.bundle.manifest.names.index(reading.top_finding)
        return Pictures(thumbnail(film), heat_map(film, outputs.cam[0, column]))

    def _unread(self, name: str, status: Status, reason: str, detail: str, started: float) -> Reading:
        return Reading(
            file=name,
            status=status,
            priority=Priority.REFUSED,
            reason=reason,
            detail=detail,
            decode_ms=(time.perf_counter() - started) * 1000,
            model_sha256=self.bundle.model_sha256,
        )

    def close(self) -> None:
        """Give the engine's memory back."""
        self._session.close()

    def __enter__(self) -> "Scanner":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _sentence(refused: FilmRefusedError) -> str:
    return f"{refused.reason.value} ({refused.detail})" if refused.detail else refused.reason.value
