"""Which files a scan is about: all of them, so that no film is lost because of its name."""

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cxredge.errors import DataError

# Left by file managers and DICOM media; never films, and naming them in every report would hide what matters.
COMPANIONS = {"thumbs.db", "desktop.ini", "dicomdir", ".ds_store"}
# Kept by the system on every disk: what its owner deleted, and what the system needs.
SYSTEM_FOLDERS = {"$recycle.bin", "recycler", "system volume information", "lost+found"}
# What a scan writes into its output folder: files, and folders with files of such names.
WRITTEN = {
    *("journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm", "results.csv", "results.json", "summary.json"),
    *("report.html", "in-hand"),
}
WRITTEN_IN = {
    "thumbnails": re.compile(r"[0-9a-f]{20}\.jpg"),
    "heatmaps": re.compile(r".+-[0-9a-f]{12}\.svg"),
    "dicom": re.compile(r"s[rc]-2\.25\.\d+\.dcm"),
}
# A folder with all of these is some scan's output.
_MARKS = {"journal.sqlite", "results.csv", "summary.json"}


@dataclass(frozen=True)
class Found:
    """A file to read. name: how reports call it; path: where it lies."""

    name: str
    path: Path


def discover(roots: Sequence[Path], *, output: Path | None = None, leave_out: Sequence[Path] = ()) -> list[Found]:
    """Every file below the roots, in a stable order, each once; but for what this scan or an earlier one wrote.

    output: this scan's own folder. leave_out: files that are not films, such as a labels table.
    A link that leads nowhere is kept: it may be a film whose disk is not mounted. So is a folder that cannot be listed: somebody
    must look. A link to a folder outside is followed, so that no film below it is lost; one to what is looked through anyway, or
    to a folder above, is not.
    Raises DataError for a root that is missing or cannot be listed.
    """
    out = {_real(path) for path in leave_out}
    found: dict[Path, Found] = {}
    real_roots, entered = [_real(root) for root in roots], set[Path]()
    for root in roots:
        if _is_folder(root):
            for path in _walk(root, real_roots, entered, output and _real(output)):
                if _real(path) not in out:
                    below = path.relative_to(root).as_posix()
                    name = below if len(roots) == 1 else f"{root.as_posix()}/{below}"
                    found.setdefault(_key(path), Found(printable(name), path))
        elif os.path.lexists(root):
            found.setdefault(_key(root), Found(printable(root.name if len(roots) == 1 else root.as_posix()), root))
        else:
            raise DataError(f"{root}: no such file or folder")
    return list(found.values())


def _is_folder(root: Path) -> bool:
    """Raises DataError where that cannot be told, as on a share that has gone offline, or the folder cannot be listed."""
    try:
        if root.is_dir():
            os.scandir(root).close()
            return True
    except OSError as error:
        raise DataError(f"{root}: cannot be listed ({error.strerror or error})") from None
    return False


def printable(name: str) -> str:
    """A file name as text that can be stored and shown, whatever bytes the file system holds; another one for every name.

    Control characters, which terminals obey and XML forbids, are written as \\x1b.
    """
    # Doubled, so that no name is another's escaped form.
    text = os.fsencode(name).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return "".join(f"\\x{ord(c):02x}" if unicodedata.category(c) == "Cc" else c for c in text)


def key(path: Path) -> str:
    """What a journal knows a film by: its whole path, on one line."""
    return printable(path.absolute().as_posix())


def _key(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links, which are films of their own


def _real(path: Path) -> Path:
    """Where links end; a link that leads in a circle, which Path.resolve() refuses, stays what it is."""
    return Path(os.path.realpath(path))


def _walk(
    folder: Path, roots: Sequence[Path], entered: set[Path], output: Path | None, *, linked: bool = False
) -> Iterator[Path]:
    """Files below a folder, and folders below it that cannot be listed, sorted; hidden folders are not entered.

    roots: what is looked through anyway, links resolved. entered: folders that links led to, so that none is read twice. output:
    where this scan writes, links resolved. linked: whether a link led here.
    """
    locked: list[Path] = []
    # Folders in which a scan writes, each with the names that it gives.
    written: dict[Path, re.Pattern[str]] = {}
    for at, folders, files in os.walk(folder, onerror=lambda error: locked.append(Path(error.filename))):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name.lower() not in SYSTEM_FOLDERS)
        ours = written.get(Path(at))
        if is_output := files and (set(files) >= _MARKS or _real(Path(at)) == output):
            written |= {Path(at) / name: pattern for name, pattern in WRITTEN_IN.items()}
        for name in sorted(files):
            known = name.lower() in COMPANIONS or name.startswith(".")
            if not known and not (is_output and name in WRITTEN) and not (ours and ours.fullmatch(name)):
                yield Path(at) / name
        # os.walk lists a link to a folder among the folders and does not enter it: two roads to one film are one film.
        for link in (Path(at) / name for name in folders if (Path(at) / name).is_symlink()):
            real = _real(link)
            if real not in entered and not any(real.is_relative_to(r) or r.is_relative_to(real) for r in roots):
                entered.add(real)
                yield from _walk(link, roots, entered, output, linked=True)
        if linked:
            folders[:] = [name for name in folders if _real(Path(at) / name) not in entered]
            entered |= {_real(Path(at) / name) for name in folders}
    yield from sorted(locked)
