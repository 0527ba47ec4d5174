"""Who built this bundle: an Ed25519 signature (RFC 8032) over its manifest, which holds the hash of every other file.

Hashes show a broken copy; only a signature that is checked against a key got by another way shows a forger.
"""

import base64
import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from cxredge.errors import BundleSignatureError, KeyFileError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE = "manifest.sig"
# Says what was signed, so that no signature made for something else fits a manifest.
_CONTEXT = b"cxredge bundle manifest\n"
_MAX_BYTES = 4096


def new_keys(private: Path) -> Path:
    """Write a new private key (PEM, for its owner alone) and its public one beside it as .pub, which is returned.

    Each is whole or not there, even after a power cut. Raises KeyFileError for a folder, for either that is there already,
    and where they cannot be written.
    """
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if private.is_dir():
        raise KeyFileError(f"{private} is a folder; name the private key's file, {private / 'lab.key'} for instance")
    public = private.with_name(f"{private.stem}.pub")
    if public == private:
        raise KeyFileError(
            f"{private}: .pub is the public key's ending; name the private one otherwise, lab.key for instance"
        )
    for file in (private, public):
        if file.exists():
            raise _there_already(file)
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    told = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    try:
        private.parent.mkdir(parents=True, exist_ok=True)
        _write_new(private, secret, 0o600)
        try:
            _write_new(public, told, 0o666)
        except BaseException:
            private.unlink()
            raise
    except OSError as error:
        raise KeyFileError(
            f"{private}: the keys cannot be written there ({error.strerror or error}); choose another folder"
        ) from error
    return public


def _write_new(file: Path, content: bytes, mode: int) -> None:
    """Write a file that is not there yet, on the disk before it gets its name. mode: permissions, less the user's mask."""
    unfinished = file.with_name(f".{file.name}-{secrets.token_hex(6)}")
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as written:
            written.write(content)
            written.flush()
            os.fsync(written.fileno())
        try:
            # Unlike a rename it never takes the place of a file that somebody else has just made.
            os.link(unfinished, file)
        except FileExistsError:
            raise _there_already(file) from None
        except OSError:  # sticks know no links
            unfinished.rename(file)
    finally:
        unfinished.unlink(missing_ok=True)


def _there_already(file: Path) -> KeyFileError:
    return KeyFileError(f"{file} exists already and is not overwritten; choose another name")


def sign(manifest: bytes, private: Path) -> bytes:
    """The content of manifest.sig; the same manifest and key give the same bytes. Raises KeyFileError."""
    key = _private_key(private)
    said = {
        "algorithm": "ed25519",
        "key": base64.b64encode(key.public_key().public_bytes_raw()).decode(),
        "signature": base64.b64encode(key.sign(_CONTEXT + manifest)).decode(),
    }
    return (json.dumps(said, indent=1) + "\n").encode()


def check_signature(folder: Path, manifest: bytes, trust: Path, where: Path | str) -> str:
    """Check a bundle's signature against a public key and return the key's fingerprint.

    where: what an error calls the bundle. Raises BundleSignatureError when it is missing, of another key or does not fit,
    KeyFileError for a public key that cannot be read.
    """
    from cryptography.exceptions import InvalidSignature

    trusted = _public_key(trust)
    stored = folder / SIGNATURE
    if not stored.is_file():
        raise BundleSignatureError(where, f"is not signed, and --trust {trust} asks for a signature; do not use it")
    try:
        if stored.stat().st_size > _MAX_BYTES:
            raise ValueError("too long")
        said = json.loads(stored.read_bytes())
        signer = base64.b64decode(said["key"], validate=True)
        signature = base64.b64decode(said["signature"], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleSignatureError(where, f"{SIGNATURE} is damaged ({error}); copy the bundle again") from None
    if signer != trusted.public_bytes_raw():
        raise BundleSignatureError(
            where,
            f"is signed by another key ({fingerprint(signer)}) than {trust} ({fingerprint(trusted)}); do not use it",
        )
    try:
        trusted.verify(signature, _CONTEXT + manifest)
    except InvalidSignature:
        raise BundleSignatureError(
            where, "the signature does not fit the manifest: it was changed after it was signed; do not use it"
        ) from None
    return fingerprint(trusted)


def fingerprint(key: "Ed25519PublicKey | bytes") -> str:
    """What two people compare over the telephone: sixteen hex digits of the key's SHA-256, in fours."""
    raw = key if isinstance(key, bytes) else key.public_bytes_raw()
    digits = hashlib.sha256(raw).hexdigest()[:16]
    return " ".join(digits[i : i + 4] for i in range(0, 16, 4))


def public_fingerprint(public: Path) -> str:
    """The fingerprint of a public key file. Raises KeyFileError."""
    return fingerprint(_public_key(public))


def _private_key(file: Path) -> "Ed25519PrivateKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise KeyFileError(f"{file}: no private key there ({error}); make one with `cxredge keys NAME.key`") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{file}: not an Ed25519 key; make one with `cxredge keys NAME.key`")
    return key


def _public_key(file: Path) -> "Ed25519PublicKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(file.read_bytes())
    except (OSError, ValueError) as error:
        raise KeyFileError(
            f"{file}: no public key there ({error}); --trust takes the .pub file of the signer"
        ) from None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(f"{file}: not an Ed25519 key; --trust takes the .pub file of the signer")
    return key
