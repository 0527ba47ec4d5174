"""Ways to spoil a copy of a bundle, as a bad stick or a bad sender would."""

import hashlib
import json
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from cxredge.bundle import Bundle
from cxredge.bundle.archive import MAX_BYTES, MAX_FILES
from cxredge.bundle.check import CHECKSUM, MANIFEST, checksum


def copy_of(bundle: Bundle, where: Path) -> Path:
    return Path(shutil.copytree(bundle.folder, where))


def rewrite(copy: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """As who writes manifests would: with its checksum."""
    said = json.loads((copy / MANIFEST).read_text())
    change(said)
    (copy / MANIFEST).write_text(json.dumps(said))
    seal(copy)


def seal(copy: Path) -> None:
    (copy / CHECKSUM).write_bytes(checksum((copy / MANIFEST).read_bytes()))


def rehash(copy: Path, name: str) -> None:
    """As a forger would: the manifest gets the hash of the changed file."""
    digest = hashlib.sha256((copy / name).read_bytes()).hexdigest()
    rewrite(copy, lambda said: said["files"].update({name: digest}))


def flip_a_byte(copy: Path) -> None:
    model = bytearray((copy / "model.onnx").read_bytes())
    model[len(model) // 2] ^= 1
    (copy / "model.onnx").write_bytes(bytes(model))


def point_elsewhere(tensor: onnx.TensorProto, location: str = "../../../etc/passwd") -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


def external_data(copy: Path) -> None:
    model = onnx.load(copy / "model.onnx")
    point_elsewhere(model.graph.initializer[0])
    (copy / "model.onnx").write_bytes(model.SerializeToString())
    rehash(copy, "model.onnx")


def packed(
    folder: Path, archive: Path, *, inside: str = "", more: dict[str, bytes] | None = None, mode: int = 0
) -> Path:
    """A .zip of a folder as other tools make it. more: further entries; mode: of those, as Unix knows it."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            out.write(file, inside + file.relative_to(folder).as_posix())
        for name, content in (more or {}).items():
            entry = zipfile.ZipInfo("placeholder")
            entry.filename = entry.orig_filename = name
            entry.external_attr = mode << 16
            out.writestr(entry, content)
    return archive


LINK = stat.S_IFLNK | 0o777


def declare(archive: Path, name: str, size: int) -> Path:
    """Make an archive lie about a file's unpacked size, in its directory and before the file itself."""
    content = bytearray(archive.read_bytes())
    for signature, size_at, name_at in ((b"PK\x01\x02", 24, 46), (b"PK\x03\x04", 22, 30)):
        at = -1
        while (at := content.find(signature, at + 1)) >= 0:
            if content[at + name_at : at + name_at + len(name)] == name.encode():
                struct.pack_into("<I", content, at + size_at, size)
    archive.write_bytes(bytes(content))
    return archive


def bomb_of_many(folder: Path, archive: Path) -> Path:
    return packed(folder, archive, more={f"{i}.txt": b"" for i in range(MAX_FILES)})


def bomb_of_size(folder: Path, archive: Path) -> Path:
    return declare(packed(folder, archive, more={"zeros": bytes(1000)}), "zeros", MAX_BYTES)


def bomb_of_names(folder: Path, archive: Path) -> Path:
    """So many entries that their list alone fills the memory."""
    return packed(folder, archive, more={f"{'x' * 60}{i}": b"" for i in range(10_000)})


def liar(folder: Path, archive: Path) -> Path:
    return declare(packed(folder, archive, more={"zeros": bytes(1_000_000)}), "zeros", 10)


def cut_off(folder: Path, archive: Path) -> Path:
    packed(folder, archive)
    archive.write_bytes(archive.read_bytes()[:-1000])
    return archive
