"""A bundle as one .zip: the same bytes whenever the same bundle is packed, and opened as if a stranger had made it.

An archive is unpacked once into the user's cache, under its own hash, because engines open graphs by path and cache by it;
what is unpacked is then verified each time like any other folder.
"""

import hashlib
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from cxredge.bundle.check import MANIFEST, sha256_of
from cxredge.bundle.manifest import leaves, parse_manifest
from cxredge.errors import BundleArchiveError, BundleError, BundlePathError, BundleTooLargeError, OutputError
from cxredge.folders import cache_folder
from cxredge.report.files import atomic_write

# The largest bundle, DenseNet121 with graphs for three engines, holds about 100 MB in a dozen files.
MAX_BYTES = 512_000_000
MAX_FILES = 256
_MAX_DIRECTORY_BYTES = 1_000_000
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError, EOFError, ValueError)
_EPOCH = (1980, 1, 1, 0, 0, 0)
_CHUNK = 1 << 20


def is_archive(where: Path) -> bool:
    """Whether this is a file that is to be opened as an archive, whatever it holds."""
    return where.is_file() and where.suffix.lower() == ".zip"


def check_archive(out: Path) -> None:
    """Raise OutputError for what an archive must not overwrite: anything that is there and is no bundle's."""
    if not out.exists():
        return
    # Read as a bundle's: browser extensions are .zip files with a manifest.json too.
    with suppress(*_DAMAGE, OSError, BundleError), zipfile.ZipFile(out) as opened:
        parse_manifest(opened.read(_entries(opened, out)[MANIFEST]), out)
        return
    raise OutputError(f"{out} exists and is no bundle's archive; choose another --output")


def write_archive(folder: Path, out: Path) -> Path:
    """Pack a bundle's folder: files in the order of their names, the manifest first, one fixed time, no compression.

    Stored, because weights hardly shrink and deflated bytes differ from one zlib to the next. Raises OutputError where `out` is
    something else than a bundle's archive, or the disk does not take it: then an older archive stays as it was.
    """
    check_archive(out)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names.sort(key=lambda name: name != MANIFEST)
    with atomic_write(out, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3  # Unix on every system, or Windows would write other bytes
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, (folder / name).read_bytes())
    return out


def unpacked(archive: Path, *, again: bool = False, cache: Path | None = None) -> Path:
    """The folder of an archive's bundle in the user's cache, unpacked there unless it was before. Not verified yet.

    again: unpack it anew, because what lies there turned out damaged. cache: another folder for it.
    Raises BundleArchiveError, BundleTooLargeError, BundlePathError or OutputError.
    """
    _check_directory(archive)
    store = (cache or cache_folder()) / "bundles"
    target = store / sha256_of(archive)[:32]
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = _entries(opened, archive)
            if not again and _same_manifest(opened, entries[MANIFEST], target):
                return target
            _unpack(opened, entries, target, archive)
    except _DAMAGE as error:
        raise BundleArchiveError(
            archive, f"the archive is damaged or of an unknown kind ({error}); copy it again"
        ) from None
    return target


def _check_directory(archive: Path) -> None:
    """Refuse an archive whose list of files alone could fill the memory: zipfile reads it whole before anyone is asked."""
    if archive.stat().st_size > MAX_BYTES:
        raise BundleTooLargeError(archive, f"is larger than any bundle ({MAX_BYTES / 1e6:.0f} MB); do not use it")
    with archive.open("rb") as file:
        file.seek(max(0, archive.stat().st_size - 42))
        tail = file.read()
    # End record (22 bytes, no comment behind it) and, before it, the locator of archives beyond 4 GB.
    end = tail[-22:]
    if len(end) < 22 or end[:4] != b"PK\5\6" or end[20:] != b"\0\0":
        raise BundleArchiveError(archive, "no .zip, cut off, or with a comment at its end; copy it again")
    if tail[:-22][:4] == b"PK\6\7" or struct.unpack("<I", end[12:16])[0] > _MAX_DIRECTORY_BYTES:
        raise BundleTooLargeError(archive, f"lists more files than a bundle holds ({MAX_FILES}); do not use it")


def _entries(opened: zipfile.ZipFile, archive: Path) -> dict[str, zipfile.ZipInfo]:
    """Name in the bundle -> entry. A folder around the bundle, as people who pack it again by hand make, is taken off."""
    listed = opened.infolist()
    if len(listed) > MAX_FILES:
        raise BundleTooLargeError(archive, f"holds {len(listed)} files, a bundle at most {MAX_FILES}; do not use it")
    declared = sum(entry.file_size for entry in listed)
    if declared > MAX_BYTES:
        raise BundleTooLargeError(
            archive,
            f"would unpack to {declared / 1e6:.0f} MB, a bundle has at most {MAX_BYTES / 1e6:.0f}; do not use it",
        )
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in listed:
        # As stored: `filename` is cut at a NUL byte and its backslashes are turned.
        name = entry.orig_filename
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if leaves(name) or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise BundlePathError(archive, f"{name!r} leaves the bundle or is a link; do not use this archive")
        # What macOS puts beside the files of an archive that is packed there is none of the bundle's.
        if entry.is_dir() or name.startswith("__MACOSX/"):
            continue
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BundleArchiveError(
                archive, f"{name!r} is packed in a way that cxredge does not open; pack it as plain .zip"
            )
        if name.casefold() in {known.casefold() for known in found}:
            raise BundleArchiveError(archive, f"holds {name!r} twice; do not use it")
        found[name] = entry
    tops = {PurePosixPath(name).parts[0] for name in found}
    if MANIFEST not in found and len(tops) == 1 and f"{(top := tops.pop())}/{MANIFEST}" in found:
        found = {name.removeprefix(f"{top}/"): entry for name, entry in found.items()}
    if MANIFEST not in found:
        raise BundleArchiveError(archive, f"holds no {MANIFEST}: not a bundle")
    return found


def _same_manifest(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> bool:
    """Whether the cache holds this archive's bundle; its manifest stands for the rest, which is verified against it."""
    stored = folder / MANIFEST
    if not stored.is_file() or stored.stat().st_size != entry.file_size:
        return False
    with opened.open(entry) as inside:
        return hashlib.file_digest(inside, "sha256").hexdigest() == sha256_of(stored)  # type: ignore[arg-type]


def _unpack(opened: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], target: Path, archive: Path) -> None:
    """Unpack beside the target, then move: a power cut leaves no half bundle, and nobody who reads the target sees one."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            folder = Path(scratch) / "bundle"
            for name, entry in entries.items():
                file = folder / name
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("xb") as outside:
                    left = entry.file_size
                    for chunk in _chunks(opened, entry, archive):
                        left -= len(chunk)
                        # zipfile stops at the declared size; should it ever not, this does.
                        if left < 0:
                            raise BundleTooLargeError(
                                archive, f"{name} is larger than it says; do not use this archive"
                            )
                        outside.write(chunk)
            try:
                folder.replace(target)
            except OSError:
                _mend(folder, target)
    except OSError as error:
        raise OutputError(
            f"{archive}: cannot be unpacked into {target.parent} ({error.strerror or error}); free some space there, or unpack"
            " the archive yourself and give its folder"
        ) from None


def _chunks(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, archive: Path) -> Iterator[bytes]:
    """What an entry holds. Raises BundleArchiveError where the archive's own disk does not give it."""
    try:
        with opened.open(entry) as inside:
            while chunk := inside.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise BundleArchiveError(archive, f"cannot be read ({error.strerror or error}); copy it again") from None


def _mend(folder: Path, target: Path) -> None:
    """Make a target that is there the same as `folder`: another program has just unpacked it, or it is damaged.

    File by file, and only those that differ: it may be in use.
    """
    wanted = {file.relative_to(folder) for file in folder.rglob("*") if file.is_file()}
    for file in target.rglob("*"):
        if file.is_symlink() or (file.is_file() and file.relative_to(target) not in wanted):
            file.unlink()
    for name in wanted:
        with suppress(OSError):
            if sha256_of(target / name) == sha256_of(folder / name):
                continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).replace(target / name)
