"""Which files a scan is about: all of them, so that no film is lost because of its name."""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cxredge.errors import DataError

# Left by file managers and DICOM media; never films, and naming them in every report would hide what matters.
COMPANIONS = {"thumbs.db", "desktop.ini", "dicomdir", ".ds_store"}


@dataclass(frozen=True)
class Found:
    """A file to read. name: how reports call it; path: where it lies."""

    name: str
    path: Path


def discover(roots: Sequence[Path], *, leave_out: Sequence[Path] = ()) -> list[Found]:
    """Every file below the roots, in a stable order, each once.

    leave_out: folders and files that are not films (the run's own output, a labels table).
    A link that leads nowhere is kept: it may be a film whose disk is not mounted. A link to a folder outside is followed, so that
    no film below it is lost; one to what is looked through anyway, or to a folder above, is not.
    Raises DataError for a missing root.
    """
    out = {_real(path) for path in leave_out}
    found: dict[Path, Found] = {}
    real_roots, entered = [_real(root) for root in roots], set[Path]()
    for root in roots:
        if _is_folder(root):
            for path in _walk(root, real_roots, entered):
                real = _real(path)
                if out.isdisjoint((real, *real.parents)):
                    below = path.relative_to(root).as_posix()
                    name = below if len(roots) == 1 else f"{root.as_posix()}/{below}"
                    found.setdefault(_key(path), Found(printable(name), path))
        elif os.path.lexists(root):
            found.setdefault(_key(root), Found(printable(root.name if len(roots) == 1 else root.as_posix()), root))
        else:
            raise DataError(f"{root}: no such file or folder")
    return list(found.values())


def _is_folder(root: Path) -> bool:
    """Raises DataError where that cannot be told, as on a share that has gone offline."""
    try:
        return root.is_dir()
    except OSError as error:
        raise DataError(f"{root}: cannot be looked at ({error.strerror or error})") from None


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


def _walk(folder: Path, roots: Sequence[Path], entered: set[Path], *, linked: bool = False) -> Iterator[Path]:
    """Files below a folder, sorted; hidden folders are not entered.

    roots: what is looked through anyway, links resolved. entered: folders that links led to, so that none is read twice. linked:
    whether a link led here. Raises DataError for a folder that cannot be listed.
    """

    def stop(error: OSError) -> None:
        raise DataError(f"{error.filename}: the folder cannot be listed ({error.strerror})")

    for at, folders, files in os.walk(folder, onerror=stop):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower() not in COMPANIONS and not name.startswith("."):
                yield Path(at) / name
        # os.walk lists a link to a folder among the folders and does not enter it: two roads to one film are one film.
        for link in (Path(at) / name for name in folders if (Path(at) / name).is_symlink()):
            real = _real(link)
            if real not in entered and not any(real.is_relative_to(r) or r.is_relative_to(real) for r in roots):
                entered.add(real)
                yield from _walk(link, roots, entered, linked=True)
        if linked:
            folders[:] = [name for name in folders if _real(Path(at) / name) not in entered]
            entered |= {_real(Path(at) / name) for name in folders}
