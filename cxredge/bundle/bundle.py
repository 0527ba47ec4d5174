"""Opening a bundle, which verifies it, and writing one."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from cxredge.bundle.manifest import Manifest, parse_manifest
from cxredge.errors import BundleContentError, BundleHashError, BundleMissingError, OutputError

MANIFEST = "manifest.json"
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
    def model_sha256(self) -> str:
        return self.manifest.files[self.manifest.model]

    @property
    def reference(self) -> Path:
        """The self-test's films and logits."""
        return self.folder / "reference.npz"


def shipped_names() -> list[str]:
    """Names of the bundles that come with cxredge."""
    folder = resources.files("cxredge.models")
    return sorted(entry.name for entry in folder.iterdir() if entry.joinpath(MANIFEST).is_file())


def open_bundle(where: str | Path = DEFAULT) -> Bundle:
    """Open a bundle by its folder or by the name of a shipped one, and verify every byte of it.

    Raises BundleMissingError, BundleSchemaError, BundleContentError (a file missing, unlisted, or outside the folder)
    or BundleHashError (a file that is not the one that was built).
    """
    folder = Path(where)
    if not folder.is_dir() and str(where) in shipped_names():
        folder = Path(str(resources.files("cxredge.models") / str(where)))
    if not (folder / MANIFEST).is_file():
        raise BundleMissingError(
            where,
            f"no bundle there (a folder with {MANIFEST}) and no shipped model of that name ({', '.join(shipped_names())})",
        )
    if (folder / MANIFEST).stat().st_size > _MAX_MANIFEST_BYTES:
        raise BundleContentError(where, f"{MANIFEST} is larger than any manifest")
    text = (folder / MANIFEST).read_bytes()
    manifest = parse_manifest(text, folder)
    _verify(folder, manifest)
    return Bundle(folder, manifest, hashlib.sha256(text).hexdigest())


def _verify(folder: Path, manifest: Manifest) -> None:
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()} - {MANIFEST}
    if missing := sorted(set(manifest.files) - present):
        raise BundleContentError(folder, f"{missing[0]} is missing; copy the bundle again, whole")
    if extra := sorted(present - set(manifest.files)):
        raise BundleContentError(folder, f"{extra[0]} is not part of the bundle; remove it or copy the bundle again")
    for name, wanted in manifest.files.items():
        file = folder / name
        if not file.resolve().is_relative_to(folder.resolve()):
            raise BundleContentError(folder, f"{name} leads out of the bundle")
        if sha256_of(file) != wanted:
            raise BundleHashError(
                folder, f"{name} is not the file that was built (its hash differs); copy the bundle again"
            )


def sha256_of(file: Path) -> str:
    """Hex digest of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write_bundle(
    out: Path, files: Mapping[str, Path | bytes], describe: Callable[[dict[str, str]], Manifest]
) -> Bundle:
    """Write a whole bundle or nothing: it is put together beside `out`, verified by opening it, then moved there.

    files: name in the bundle -> file to copy, or its bytes. describe: hashes of them -> manifest.
    Raises OutputError when `out` exists and is not a bundle, which is never overwritten.
    """
    if out.exists() and not (out / MANIFEST).is_file() and any(out.iterdir()):
        raise OutputError(f"{out} exists and is not a bundle; choose another --output")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        folder = Path(scratch) / out.name
        folder.mkdir()
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                (folder / name).write_bytes(content)
            else:
                shutil.copyfile(content, folder / name)
        hashes = {name: sha256_of(folder / name) for name in sorted(files)}
        text = describe(hashes).model_dump_json(indent=1) + "\n"
        (folder / MANIFEST).write_text(text, encoding="utf-8")
        open_bundle(folder)
        if out.exists():
            shutil.rmtree(out)
        folder.replace(out)
    return open_bundle(out)
