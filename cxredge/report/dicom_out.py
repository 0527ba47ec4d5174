"""`--dicom-out`: each DICOM film's reading as a Structured Report and a Secondary Capture, in the film's own study.

These files carry the patient's identity as the film does: a PACS could not file them otherwise. No file name, message
or error does.
"""

import hashlib
import importlib.util
from collections.abc import Callable, Iterable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from cxredge.bundle.manifest import Manifest
from cxredge.errors import OutputError, RuntimeMissingError
from cxredge.report.files import atomic_write
from cxredge.scan.discover import WRITTEN_IN
from cxredge.scan.journal import GONE, stamp
from cxredge.scan.reading import Priority, Reading, Status
from cxredge.scan.scanner import Pictures
from cxredge.scan.summary import DicomOut

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

FOLDER = "dicom"
NOT_DICOM, UNFIT = "not_dicom", "unfit"
_OURS = WRITTEN_IN[FOLDER]


# Path, size and time of change, patient, digest and priority of a film: what its files are made of, as long as a writer lives.
_Key = tuple[Path, tuple[int | None, int | None], str, str, Priority]


def require_highdicom() -> None:
    """Raises RuntimeMissingError, before an hour of reading, when the extra is not installed."""
    if importlib.util.find_spec("highdicom") is None:
        raise RuntimeMissingError('--dicom-out needs highdicom: pip install "cxredge[dicom-out]"')


class DicomWriter:
    """Writes `dicom/` into an output folder, as often as asked; films that lie there unchanged are not opened again.

    read_with: what readings depend on besides the film (bundle, engine, cxredge).
    """

    def __init__(self, out: Path, manifest: Manifest, *, read_with: str) -> None:
        require_highdicom()
        self._folder, self._manifest, self._read_with = out / FOLDER, manifest, read_with
        self._done: dict[_Key, tuple[str, list[str]]] = {}

    def write(
        self,
        films: Iterable[tuple[Path, Reading]],
        pictures: Callable[[str], Pictures],
        as_read: Callable[[str], bool],
    ) -> DicomOut:
        """A report, and the first heat map, of every film that was read.

        pictures, as_read: of a film by its name in the run; whether its file is still the one that was read, for one that took its
        place may be another patient's. A file that is there already is left as it is: its UID stands for this film, so read. Files
        of films that are no longer among `films` are removed. Raises OutputError.
        """
        kept, counts, unseen = set[str](), {NOT_DICOM: 0, UNFIT: 0}, False
        done: dict[_Key, tuple[str, list[str]]] = {}
        for path, reading in films:
            if reading.status is not Status.OK:
                continue
            looks = stamp(path)
            key = (path, looks, reading.patient, reading.digest, reading.priority)
            known = self._done.get(key)
            if known is None and (looks == GONE or not as_read(reading.file)):
                # A watch goes on showing a film whose file was moved away or written over, and so what was written of it.
                known = self._of_gone(path, reading)
                unseen |= known is None
                known = known or (UNFIT, [])
            done[key] = reason, names = known or self._film(path, reading, pictures, as_read)
            if reason:
                counts[reason] += 1
            kept.update(names)
        self._done = done
        for old in self._folder.glob("s?-2.25.*.dcm"):
            # Of a film that cannot be looked at, nobody knows which files are its own.
            if old.name not in kept and _OURS.fullmatch(old.name) and not unseen:
                with suppress(OSError):
                    old.unlink()
        kinds = [name[:2] for name in kept]
        return DicomOut(kinds.count("sr"), kinds.count("sc"), **counts)

    def _of_gone(self, path: Path, reading: Reading) -> tuple[str, list[str]] | None:
        """What was written of a film when its file was still there; of another path only where no second one could be meant."""
        alike_to = reading.patient, reading.digest, reading.priority
        alike = {key: said for key, said in self._done.items() if key[2:] == alike_to}
        own = [said for key, said in alike.items() if key[0] == path]
        return own[0] if own else next(iter(alike.values())) if len(alike) == 1 else None

    def _film(
        self, path: Path, reading: Reading, pictures: Callable[[str], Pictures], as_read: Callable[[str], bool]
    ) -> tuple[str, list[str]]:
        """The reason why a film is left out, or "", and the names of its files. Raises OutputError."""
        from cxredge.imaging.dicom_identity import is_dicom, silent

        made: list[Path] = []
        try:
            if not is_dicom(path):
                return NOT_DICOM, []
            with silent():
                names = self._files(path, reading, pictures(reading.file), made)
            if as_read(reading.file):
                return "", names
            # It was written over in between, so whose name these bear is not known.
            for file in made:
                file.unlink(missing_ok=True)
            return UNFIT, []
        except OutputError:
            raise
        except Exception:
            # pydicom and highdicom raise all manner of errors at a header that does not fit the standard, and quote it.
            return UNFIT, []

    def _files(self, path: Path, reading: Reading, shown: Pictures, made: list[Path]) -> list[str]:
        """Names of a film's files; those that were not there before are added to `made`."""
        from cxredge.imaging.dicom_identity import derived_uid, read_source
        from cxredge.report.dicom_sc import secondary_capture
        from cxredge.report.dicom_sr import structured_report

        source, manifest = read_source(path), self._manifest
        # Whose film it is, too: a corrected patient must not find the wrong one's report again.
        whose = hashlib.sha256(source.to_json().encode()).hexdigest()
        made_of = (source.SOPInstanceUID, whose, self._read_with, reading.digest, reading.priority)
        uid = derived_uid("sr", *made_of)
        names = [f"sr-{uid}.dcm"]
        if not (self._folder / names[0]).is_file():
            _save(self._folder / names[0], structured_report(source, reading, manifest, uid=uid), made)
        name, overlay = next(((name, png) for name, png in (shown.heat_maps or {}).items() if png), ("", b""))
        if overlay:
            uid = derived_uid("sc", *made_of, name)
            names.append(f"sc-{uid}.dcm")
            if not (self._folder / names[1]).is_file():
                finding = manifest.findings[manifest.names.index(name)]
                _save(
                    self._folder / names[1],
                    secondary_capture(path, source, overlay, finding, reading, manifest, uid=uid),
                    made,
                )
        return names


def _save(file: Path, dataset: "Dataset", made: list[Path]) -> None:
    folder = file.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror or error}); choose another --output") from error
    # pydicom would put a whole traceback into the error of a full disk.
    content = BytesIO()
    dataset.save_as(content, enforce_file_format=True)
    with atomic_write(file, "wb") as stream:
        stream.write(content.getbuffer())
    made.append(file)
