"""Opening a bundle, which verifies it, and writing one."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from cxredge.bundle.archive import is_archive, unpacked
from cxredge.bundle.check import CHECKSUM, MANIFEST, checksum, mismatches, sha256_of
from cxredge.bundle.manifest import Manifest, parse_manifest
from cxredge.bundle.signature import SIGNATURE, sign
from cxredge.errors import BundleAmbiguousError, BundleContentError, BundleError, BundleMissingError, OutputError

__all__ = ["MANIFEST", "Bundle", "inspect_bundle", "open_bundle", "sha256_of", "shipped_names", "write_bundle"]
DEFAULT = "chestxray14"
_MAX_MANIFEST_BYTES = 4_000_000


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    sha256: of its manifest, which holds the hash of every other file, so it stands for the whole.
    """

    folder: Path
    manifest: Manifest
    sha256: str

    @property
    def model(self) -> Path:
        """The portable ONNX model."""
        return self.folder / self.manifest.model

    @property
    def full_model(self) -> Path | None:
        """The full-precision parent as ONNX, where the bundle carries it."""
        name = self.manifest.full_model
        return None if name is None else self.folder / name

    @property
    def float_model(self) -> Path | None:
        """Full precision of the very network that was quantized: the parent, unless steps came between."""
        name = self.manifest.float_model or self.manifest.full_model
        return None if name is None else self.folder / name

    @property
    def model_sha256(self) -> str:
        """Of the portable model."""
        return self.manifest.files[self.manifest.model]

    def graph(self, runtime: str) -> Path:
        """The file that an engine loads: its own graph, or the portable model."""
        return self.folder / self.manifest.graph_for(runtime).file

    def graph_sha256(self, runtime: str) -> str:
        """Hash that says which model an engine computes: the portable one in whatever form, or the engine's own graph."""
        graph = self.manifest.graph_for(runtime)
        if graph.logits == "logits":
            return self.model_sha256
        # OpenVINO's weights lie beside the graph.
        return self.manifest.files[
            graph.file.removesuffix(".xml") + ".bin" if graph.file.endswith(".xml") else graph.file
        ]

    @property
    def reference(self) -> Path:
        """The self-test's films and logits."""
        return self.folder / "reference.npz"


def shipped_names() -> list[str]:
    """Names of the bundles that come with cxredge."""
    folder = resources.files("cxredge.models")
    return sorted(entry.name for entry in folder.iterdir() if entry.joinpath(MANIFEST).is_file())


def shipped(name: str) -> Path:
    """The folder of the bundle that comes with cxredge under that name, whatever else is called so."""
    return Path(str(resources.files("cxredge.models") / name))


def open_bundle(where: str | Path = DEFAULT, *, trust: Path | None = None) -> Bundle:
    """Open a bundle by its folder, its .zip or the name of a shipped one, and verify every byte of it.

    trust: a public key; the bundle must carry a signature of it. Raises BundleMissingError, BundleArchiveError, and what
    `inspect_bundle` finds first, which says how much more there is.
    """
    bundle, found = inspect_bundle(where, trust=trust)
    if found:
        first = found[0]
        if len(found) > 1:
            first = type(first)(first.bundle, f"{first.what} (and {len(found) - 1} more: `cxredge verify` lists them)")
        raise first
    return bundle


def inspect_bundle(where: str | Path = DEFAULT, *, trust: Path | None = None) -> tuple[Bundle, list[BundleError]]:
    """A bundle and everything that is wrong with it: files missing, unlisted, changed or leading elsewhere, the signature.

    where: a string that is a shipped model's name means that model; a Path is always a folder or an archive, if it is one.
    Raises BundleMissingError, BundleAmbiguousError, BundleSchemaError, BundleTooNewError, BundlePathError, BundleContentError for
    what its disk does not give, or for an archive BundleArchiveError, where there is nothing that could be looked at further.
    """
    try:
        return _found(where, trust)
    except OSError as error:
        name = f"{error.filename} " if error.filename else ""
        raise BundleContentError(
            where, f"{name}cannot be read ({error.strerror or error}); check its permissions, or copy the bundle again"
        ) from error


def _found(where: str | Path, trust: Path | None) -> tuple[Bundle, list[BundleError]]:
    folder = Path(where)
    if is_archive(folder):
        bundle, found = _inspect(unpacked(folder), where, trust)
        # The copy in the cache may be what is damaged: look at the archive itself before blaming it.
        return _inspect(unpacked(folder, again=True), where, trust) if found else (bundle, found)
    if str(where) in shipped_names():
        # A data set may be called as the model for it is; a bundle that is would be taken for the shipped one, or that for it.
        here = (folder / MANIFEST).is_file()
        if here and isinstance(where, str):
            raise BundleAmbiguousError(
                where,
                f"a bundle's folder of this name lies here, and a model that comes with cxredge is called so too; for the"
                f" folder write .{os.sep}{where}, for the shipped model start cxredge in another folder",
            )
        folder = folder if here else shipped(str(where))
    if not (folder / MANIFEST).is_file():
        raise BundleMissingError(
            where,
            f"no bundle there (a folder with {MANIFEST}, or its .zip) and no shipped model of that name"
            f" ({', '.join(shipped_names())})",
        )
    return _inspect(folder, where, trust)


def _inspect(folder: Path, where: str | Path, trust: Path | None) -> tuple[Bundle, list[BundleError]]:
    if (folder / MANIFEST).stat().st_size > _MAX_MANIFEST_BYTES:
        raise BundleContentError(where, f"{MANIFEST} is larger than any manifest")
    text = (folder / MANIFEST).read_bytes()
    manifest = parse_manifest(text, where)
    bundle = Bundle(folder, manifest, hashlib.sha256(text).hexdigest())
    return bundle, mismatches(folder, manifest, trust=trust, where=where)


def check_output(out: Path) -> None:
    """Raise OutputError for what a bundle must not overwrite: anything that is there and is no bundle, or more than one."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / MANIFEST).is_file():
        raise OutputError(f"{out} exists and is not a bundle; choose another --output")
    try:
        listed = {*parse_manifest((out / MANIFEST).read_bytes(), out).files, MANIFEST, CHECKSUM, SIGNATURE}
    except BundleError:
        # Web sites and browser extensions have files of that name too.
        raise OutputError(f"{out} holds a {MANIFEST} that is no bundle's; choose another --output") from None
    others = sorted(
        name for file in out.rglob("*") if file.is_file() and (name := file.relative_to(out).as_posix()) not in listed
    )
    if others:
        raise OutputError(f"{out} holds {others[0]}, which is not part of the bundle there; choose another --output")


def write_bundle(
    out: Path,
    files: Mapping[str, Path | bytes],
    describe: Callable[[dict[str, str]], Manifest],
    *,
    key: Path | None = None,
) -> Bundle:
    """Write a whole bundle or nothing: it is put together beside `out`, verified by opening it, then moved there.

    files: name in the bundle -> file to copy, or its bytes. describe: hashes of them -> manifest. key: private key to sign
    it with. Raises OutputError when `out` exists and is not a bundle, which is never overwritten, and when it cannot be moved
    there: then the old bundle is as it was, and the error says where the new one lies.
    """
    check_output(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    try:
        folder = scratch / out.name
        _put_together(folder, files, describe, key)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    _take_place(folder, out)
    shutil.rmtree(scratch, ignore_errors=True)
    return open_bundle(out)


def _put_together(
    folder: Path, files: Mapping[str, Path | bytes], describe: Callable[[dict[str, str]], Manifest], key: Path | None
) -> None:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            shutil.copyfile(content, folder / name)
    hashes = {name: sha256_of(folder / name) for name in sorted(files)}
    text = describe(hashes).model_dump_json(indent=1) + "\n"
    # Bytes, not text: Windows would turn the line ends.
    (folder / MANIFEST).write_bytes(text.encode())
    (folder / CHECKSUM).write_bytes(checksum(text.encode()))
    if key is not None:
        (folder / SIGNATURE).write_bytes(sign(text.encode(), key))
    open_bundle(folder)
    # The old bundle is deleted for this one, so this one has to be on the disk by then.
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb+") as written:
                os.fsync(written.fileno())


def _take_place(folder: Path, out: Path) -> None:
    """Move a finished bundle to `out`, what is there aside into the folder around it. A power cut in between deletes neither."""
    aside = folder.with_name("before")
    try:
        if out.exists():
            out.replace(aside)
        try:
            folder.replace(out)
        except OSError:
            if aside.exists():
                aside.replace(out)
            raise
    except OSError as error:
        old = f", the old one in {aside}" if aside.exists() else ""
        raise OutputError(
            f"{out}: the new bundle cannot be moved there ({error.strerror or error}) and lies whole in {folder}{old}; close what"
            " has the old one open, then move it"
        ) from error
