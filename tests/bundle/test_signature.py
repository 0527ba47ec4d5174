"""Who built a bundle: signed with a key of the lab's, checked with the public one in the clinic."""

import json
import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from house import EXAMPLES, Cli
from tamper import copy_of, flip_a_byte, rewrite

from cxredge.bundle import Bundle, open_bundle
from cxredge.bundle.archive import write_archive
from cxredge.bundle.bundle import inspect_bundle, write_bundle
from cxredge.bundle.signature import SIGNATURE, new_keys, public_fingerprint, sign
from cxredge.errors import BundleHashError, BundleSignatureError, KeyFileError, OutputError


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("lab", "other"):
        new_keys(folder / f"{name}.key")
    return folder


@pytest.fixture
def signed(bundle: Bundle, keys: Path, tmp_path: Path) -> Path:
    files = {name: bundle.folder / name for name in bundle.manifest.files}
    return write_bundle(tmp_path / "signed", files, lambda _: bundle.manifest, key=keys / "lab.key").folder


def test_a_signed_bundle_opens_with_its_key_and_without_any(signed: Path, keys: Path, tmp_path: Path) -> None:
    assert open_bundle(signed, trust=keys / "lab.pub").sha256 == open_bundle(signed).sha256
    assert open_bundle(write_archive(signed, tmp_path / "a.zip"), trust=keys / "lab.pub")


def test_the_same_manifest_and_key_give_the_same_signature(keys: Path) -> None:
    assert sign(b"{}", keys / "lab.key") == sign(b"{}", keys / "lab.key") != sign(b"{}", keys / "other.key")


def test_a_missing_signature_is_refused(bundle: Bundle, keys: Path) -> None:
    with pytest.raises(BundleSignatureError, match="is not signed"):
        open_bundle(bundle.folder, trust=keys / "lab.pub")


def test_another_key_is_refused_and_both_are_named(signed: Path, keys: Path) -> None:
    with pytest.raises(BundleSignatureError, match="signed by another key") as raised:
        open_bundle(signed, trust=keys / "other.pub")
    for name in ("lab", "other"):
        assert public_fingerprint(keys / f"{name}.pub") in str(raised.value)


def test_a_manifest_changed_after_signing_is_refused(signed: Path, keys: Path) -> None:
    rewrite(signed, lambda said: said.update(title="Something else"))
    open_bundle(signed)
    with pytest.raises(BundleSignatureError, match="changed after it was signed"):
        open_bundle(signed, trust=keys / "lab.pub")


def test_a_file_changed_after_signing_is_refused(signed: Path, keys: Path) -> None:
    flip_a_byte(signed)
    with pytest.raises(BundleHashError):
        open_bundle(signed, trust=keys / "lab.pub")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"key": "!", "signature": "!"}', "x" * 5000])
def test_a_damaged_signature_is_refused(signed: Path, keys: Path, content: str) -> None:
    (signed / SIGNATURE).write_text(content)
    with pytest.raises(BundleSignatureError, match="damaged"):
        open_bundle(signed, trust=keys / "lab.pub")


def test_one_flipped_bit_of_the_signature_is_refused(signed: Path, keys: Path) -> None:
    said = json.loads((signed / SIGNATURE).read_text())
    first = said["signature"][0]
    said["signature"] = ("B" if first == "A" else "A") + said["signature"][1:]
    (signed / SIGNATURE).write_text(json.dumps(said))
    with pytest.raises(BundleSignatureError, match="does not fit"):
        open_bundle(signed, trust=keys / "lab.pub")


def test_signature_and_files_are_judged_together(signed: Path, keys: Path) -> None:
    flip_a_byte(signed)
    _, found = inspect_bundle(signed, trust=keys / "other.pub")
    assert [type(error) for error in found] == [BundleSignatureError, BundleHashError]


def test_keys_that_are_none_are_said(signed: Path, keys: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    for trust in (tmp_path / "text", tmp_path / "absent", keys / "lab.key"):
        with pytest.raises(KeyFileError, match="no public key there"):
            open_bundle(signed, trust=trust)
    with pytest.raises(KeyFileError, match="no private key there"):
        sign(b"", keys / "lab.pub")


def test_keys_are_made_for_their_owner_alone_and_never_overwritten(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    made = cli("keys", "my.key")
    assert made.returncode == 0, made.stderr
    assert stat.S_IMODE((tmp_path / "my.key").stat().st_mode) == 0o600
    before = (tmp_path / "my.key").read_bytes()
    again = cli("keys", "my.key")
    assert again.returncode == 2
    assert "not overwritten" in again.stderr
    assert (tmp_path / "my.key").read_bytes() == before
    copy = copy_of(bundle, tmp_path / "copy")
    (copy / SIGNATURE).write_bytes(sign((copy / "manifest.json").read_bytes(), tmp_path / "my.key"))
    verified = cli("verify", "copy", "--trust", "my.pub")
    assert verified.returncode == 0, verified.stderr
    assert "Signed by my.pub" in verified.stdout


def test_the_names_of_keys_are_told_as_they_are(cli: Cli, signed: Path, keys: Path, tmp_path: Path) -> None:
    for name in ("[red]lab", "[/red]lab"):
        made = cli("keys", f"{name}.key")
        assert made.returncode == 0, made.stderr
        assert f"{name}.key: private" in made.stdout
        assert f"{name}.pub: public" in made.stdout
    key = tmp_path / "of [blue] house.pub"
    key.write_bytes((keys / "lab.pub").read_bytes())
    assert f"Signed by {key.name}" in cli("verify", signed, "--trust", key.name).stdout


def test_scan_and_verify_refuse_what_is_not_signed_by_the_key_asked_for(cli: Cli, keys: Path, tmp_path: Path) -> None:
    for words in (("verify",), ("scan", EXAMPLES, "-o", "out")):
        bad = cli(*words, "--trust", keys / "lab.pub")
        assert bad.returncode == 2
        assert "is not signed" in bad.stderr
        assert "Traceback" not in bad.stderr
    assert not (tmp_path / "out").exists()


def test_the_public_key_never_takes_the_private_ones_place(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="name the private one otherwise"):
        new_keys(tmp_path / "lab.pub")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", [".", "", "/", "there"])
def test_a_folder_in_place_of_a_keys_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyFileError, match=r"is a folder; name the private key's file, .*lab\.key"):
        new_keys(Path(folder))
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.fixture
def full_disk() -> Iterator[None]:
    """A disk that takes the first 100 bytes of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("full_disk")
def test_no_half_key_is_left_where_the_disk_does_not_take_it(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot be written there"):
        new_keys(tmp_path / "lab.key")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("full_disk")
def test_no_half_archive_is_left_where_the_disk_does_not_take_it(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_archive(bundle.folder, tmp_path / "a.zip")
    assert not list(tmp_path.iterdir())


def test_keys_are_made_on_a_stick_that_knows_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    new_keys(tmp_path / "lab.key")
    assert {path.name for path in tmp_path.iterdir()} == {"lab.key", "lab.pub"}
    assert stat.S_IMODE((tmp_path / "lab.key").stat().st_mode) == 0o600
    with pytest.raises(KeyFileError, match="not overwritten"):
        new_keys(tmp_path / "lab.key")
