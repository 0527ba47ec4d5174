"""What an engine compiled for this machine, kept between runs.

Each file starts with the SHA-256 of what follows: a file cut short by a power cut or changed on the disk is compiled anew
instead of being trusted. Its name is a hash of everything it depends on (graph, engine, version, device, options), so a
change of any of them finds no file.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

# Engines of earlier models and versions are of no use to anybody; a clinic's disk is small.
KEPT = 16


def key_of(graph: bytes, *parts: object) -> str:
    """Name for what is compiled from `graph` under these conditions."""
    digest = hashlib.sha256(hashlib.sha256(graph).digest())
    for part in parts:
        digest.update(f"{part!r}\n".encode())
    return digest.hexdigest()


def kept(folder: Path | None, name: str) -> bytes | None:
    """What was kept under that name; None where nothing was, or where it is no longer what was written."""
    if folder is None:
        return None
    try:
        stored = (folder / name).read_bytes()
    except OSError:
        return None
    digest, content = stored[:32], stored[32:]
    return content if hashlib.sha256(content).digest() == digest else None


def keep(folder: Path | None, name: str, content: bytes) -> None:
    """Keep `content` under that name, whole or not at all, and forget the oldest.

    A folder that cannot be written only costs time next time.
    """
    if folder is None:
        return
    scratch = folder / f"{name}.{os.getpid()}.part"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(hashlib.sha256(content).digest() + content)
        scratch.replace(folder / name)
        # A board without a clock of its own may date this one before all others: it stays all the same.
        others = (file for file in folder.iterdir() if file.name != name)
        for old in sorted(others, key=lambda file: file.stat().st_mtime)[: 1 - KEPT]:
            old.unlink()
    with suppress(OSError):
        scratch.unlink(missing_ok=True)
