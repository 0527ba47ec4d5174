"""Is a bundle exactly what was built? Every way in which it is not, so that one look is enough."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cxredge.bundle.manifest import Manifest
from cxredge.bundle.signature import SIGNATURE, check_signature
from cxredge.bundle.wire import external_tensors
from cxredge.errors import (
    BundleContentError,
    BundleError,
    BundleExternalDataError,
    BundleFileExtraError,
    BundleFileMissingError,
    BundleHashError,
    BundlePathError,
    BundleSchemaError,
    BundleSignatureError,
)

# The second as sha256sum writes and checks it: all else is hashed in the manifest, and one bit of that can move a threshold.
MANIFEST, CHECKSUM = "manifest.json", "manifest.sha256"


def mismatches(folder: Path, manifest: Manifest, *, trust: Path | None, where: Path | str) -> list[BundleError]:
    """All that is wrong with a bundle, an error each; none when it may be used.

    where: what the errors call it. trust: public key it must be signed with. Raises KeyFileError for a key that cannot be read.
    """
    found: list[BundleError] = []
    if trust is not None:
        try:
            check_signature(folder, (folder / MANIFEST).read_bytes(), trust, where)
        except BundleSignatureError as error:
            found.append(error)
    if (found_by := _other_preprocessing(manifest, where)) is not None:
        found.append(found_by)
    everything = _present(folder)
    present = everything - {MANIFEST, CHECKSUM, SIGNATURE}
    found += [
        BundleFileMissingError(where, f"{name} is missing; copy the bundle again, whole")
        for name in sorted({*manifest.files, CHECKSUM} - everything)
    ]
    if CHECKSUM in everything and not _is_as_written(folder):
        said = f"{MANIFEST} is not the one that was written (its hash is another than {CHECKSUM} says)"
        found.append(BundleHashError(where, f"{said}; copy the bundle again"))
    found += [
        BundleFileExtraError(where, f"{name} is not part of the bundle; remove it or copy the bundle again")
        for name in sorted(present - set(manifest.files))
    ]
    return found + list(_changed(folder, manifest, present, where))


def _other_preprocessing(manifest: Manifest, where: Path | str) -> BundleError | None:
    """The network must see films as it saw them in training, and this cxredge prepares them in one way only."""
    # Only here, so that who merely reads manifests does not load the decoders.
    from cxredge.imaging import Preprocessing

    said = manifest.preprocessing
    if Preprocessing(size=said.size, clahe=said.clahe).digest == said.digest:
        return None
    return BundleSchemaError(
        where,
        "was made for another version of the preprocessing; use the cxredge it was built with, or compress its run anew",
    )


def checksum(manifest: bytes) -> bytes:
    """What `manifest.sha256` holds."""
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode()


def _is_as_written(folder: Path) -> bool:
    """Whether the manifest is the one that the checksum beside it was made of."""
    with suppress(OSError), (folder / CHECKSUM).open("rb") as file:
        # What is longer is no checksum, whatever it is.
        return file.read(200).split()[:1] == checksum((folder / MANIFEST).read_bytes()).split()[:1]
    return False


def sha256_of(file: Path) -> str:
    """Hex digest of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _present(folder: Path) -> set[str]:
    """Every file and link below a folder, relative, with forward slashes; links are not followed."""
    present = set()
    for top, folders, files in os.walk(folder):
        names = files + [name for name in folders if (Path(top) / name).is_symlink()]
        present |= {(Path(top) / name).relative_to(folder).as_posix() for name in names}
    return present


def _changed(folder: Path, manifest: Manifest, present: set[str], where: Path | str) -> Iterator[BundleError]:
    """What is wrong with the files that are there."""
    loaded = {
        manifest.model,
        manifest.full_model,
        manifest.float_model,
        *(graph.file for graph in manifest.graphs.values()),
    }
    graphs = {name for name in manifest.files if name.endswith(".onnx") or (name in loaded and name[-4:] != ".xml")}
    for name in sorted(set(manifest.files) & present):
        file = folder / name
        if not file.resolve().is_relative_to(folder.resolve()):
            yield BundlePathError(where, f"{name} leads out of the bundle")
        elif not file.is_file():
            yield BundleContentError(where, f"{name} is no regular file; copy the bundle again")
        elif sha256_of(file) != manifest.files[name]:
            yield BundleHashError(
                where, f"{name} is not the file that was built (its hash differs); copy the bundle again"
            )
        elif name in graphs:
            yield from _pointing_elsewhere(file, name, where)


def _pointing_elsewhere(graph: Path, name: str, where: Path | str) -> Iterator[BundleError]:
    try:
        tensors = external_tensors(graph)
    except ValueError as error:
        yield BundleContentError(where, f"{name} is not an ONNX graph ({error}); the bundle was not made by cxredge")
        return
    if tensors:
        yield BundleExternalDataError(
            where,
            f"{name} takes the data of {len(tensors)} tensor(s) from outside itself ({tensors[0]}); do not use this bundle",
        )
