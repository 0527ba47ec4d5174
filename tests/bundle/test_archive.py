"""A bundle as one .zip: the same bytes each time, and opened as if a stranger had made it."""

import hashlib
import shutil
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from house import EXAMPLES, Cli
from tamper import (
    LINK,
    bomb_of_many,
    bomb_of_names,
    bomb_of_size,
    cut_off,
    external_data,
    flip_a_byte,
    liar,
    packed,
    rewrite,
)

from cxredge.bundle import Bundle, open_bundle
from cxredge.bundle.archive import MAX_FILES, unpacked, write_archive
from cxredge.errors import (
    BundleArchiveError,
    BundleExternalDataError,
    BundleHashError,
    BundlePathError,
    BundleTooLargeError,
    BundleTooNewError,
    CxredgeError,
    OutputError,
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cxredge" / "bundles"


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle.folder, tmp_path / "copy"))


def test_the_same_bundle_gives_the_same_archive_whatever_its_files_times(
    bundle: Bundle, copy: Path, tmp_path: Path
) -> None:
    for file in copy.iterdir():
        shutil.copystat(EXAMPLES, file)
        file.chmod(0o600)
    ours = write_archive(bundle.folder, tmp_path / "a.zip").read_bytes()
    assert ours == write_archive(copy, tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist()[0] == "manifest.json"
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


def test_an_archive_opens_as_the_folder_it_was_made_of_and_is_unpacked_once(
    bundle: Bundle, tmp_path: Path, cache: Path
) -> None:
    archive = write_archive(bundle.folder, tmp_path / "a.zip")
    opened = open_bundle(archive)
    assert opened.sha256 == bundle.sha256
    assert opened.folder.parent == cache
    marked = opened.model.stat().st_ino
    assert open_bundle(archive).model.stat().st_ino == marked
    assert len(list(cache.iterdir())) == 1
    # What the clinic's disk did to the copy is not the archive's fault.
    flip_a_byte(opened.folder)
    assert hashlib.sha256(open_bundle(archive).model.read_bytes()).hexdigest() == bundle.model_sha256


def test_a_stick_that_does_not_give_an_archive_is_not_taken_for_a_full_disk(bundle: Bundle, tmp_path: Path) -> None:
    content = bytearray(write_archive(bundle.folder, tmp_path / "a.zip").read_bytes())
    # Where its list of files begins: reading then starts before the file does, which no disk gives.
    content[-6:-2] = (int.from_bytes(content[-6:-2], "little") + 1000).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(BundleArchiveError, match=r"cannot be read .*copy it again"):
        open_bundle(tmp_path / "a.zip")


@pytest.mark.skipif(sys.platform != "linux", reason="reads what no system gives")
@pytest.mark.parametrize("name", ["a.zip", "a/manifest.json"])
def test_what_its_disk_does_not_give_is_named(cli: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / name).symlink_to("/proc/self/mem")
    said = cli("verify", name.removesuffix("/manifest.json"))
    assert said.returncode == 2
    assert said.stderr.startswith(
        f"cxredge: {name.removesuffix('/manifest.json')}: cannot be read (Input/output error)"
    )


def test_programs_that_open_an_archive_at_once_do_not_disturb_each_other(bundle: Bundle, tmp_path: Path) -> None:
    archive, programs = write_archive(bundle.folder, tmp_path / "a.zip"), 4
    for attempt in range(10):
        together = Barrier(programs)

        def read(_: int, cache: Path = tmp_path / f"cache{attempt}", together: Barrier = together) -> list[int]:
            together.wait()
            folder = unpacked(archive, cache=cache)
            # A scan opens the files one by one, and needs those that it verified.
            return [file.stat().st_ino for _ in range(20) for file in (folder / name for name in bundle.manifest.files)]

        with ThreadPoolExecutor(programs) as pool:
            seen = list(pool.map(read, range(programs)))
        assert all(one == seen[0] for one in seen)


def test_a_damaged_copy_in_the_cache_is_mended_where_it_is_damaged(bundle: Bundle, tmp_path: Path) -> None:
    archive = write_archive(bundle.folder, tmp_path / "a.zip")
    folder = open_bundle(archive).folder
    inodes = {file.name: file.stat().st_ino for file in folder.iterdir()}
    flip_a_byte(folder)
    (folder / "more.txt").write_text("?")
    (folder / "link").symlink_to(tmp_path)
    (folder / "reference.npz").unlink()
    open_bundle(archive)
    changed = {file.name for file in folder.iterdir() if file.stat().st_ino != inodes.get(file.name)}
    assert changed <= {"model.onnx", "reference.npz"}
    assert {file.name for file in folder.iterdir()} == inodes.keys()


def test_an_archive_packed_by_hand_with_its_folder_around_it_opens(bundle: Bundle, tmp_path: Path) -> None:
    archive = packed(bundle.folder, tmp_path / "hand.zip", inside="my model/")
    assert open_bundle(archive).sha256 == bundle.sha256
    # As macOS packs it.
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr("__MACOSX/my model/._manifest.json", b"\0\5\26\7")
    assert open_bundle(archive).sha256 == bundle.sha256


def flipped(folder: Path, archive: Path) -> Path:
    content = bytearray(write_archive(folder, archive).read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(bytes(content))
    return archive


def packed_after(tamper: Callable[[Path], object]) -> Callable[[Path, Path], Path]:
    def make(folder: Path, archive: Path) -> Path:
        tamper(folder)
        return packed(folder, archive)

    return make


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (bomb_of_size, BundleTooLargeError, "would unpack to 5"),
        (bomb_of_many, BundleTooLargeError, f"a bundle at most {MAX_FILES}"),
        (bomb_of_names, BundleTooLargeError, "lists more files"),
        (liar, BundleArchiveError, "damaged"),
        (cut_off, BundleArchiveError, "cut off"),
        (flipped, BundleArchiveError, "damaged"),
        (lambda f, a: packed(f, a, more={"../x": b""}), BundlePathError, "leaves the bundle"),
        (lambda f, a: packed(f, a, more={"/etc/x": b""}), BundlePathError, "leaves the bundle"),
        (lambda f, a: packed(f, a, more={"a\\..\\x": b""}), BundlePathError, "leaves the bundle"),
        (lambda f, a: packed(f, a, more={"x": b"/etc/passwd"}, mode=LINK), BundlePathError, "is a link"),
        (lambda f, a: packed(f, a, more={"MODEL.onnx": b""}), BundleArchiveError, "twice"),
        (lambda f, a: packed(f / "nothing", a), BundleArchiveError, "not a bundle"),
        (lambda _, a: (a.write_bytes(b"PK"), a)[1], BundleArchiveError, "cut off"),
        (packed_after(flip_a_byte), BundleHashError, "not the file that was built"),
        (packed_after(external_data), BundleExternalDataError, "outside itself"),
        (packed_after(lambda f: rewrite(f, lambda m: m.update(schema_version=2))), BundleTooNewError, "newer"),
    ],
)
def test_an_archive_is_refused_when(
    copy: Path, tmp_path: Path, make: Callable[[Path, Path], Path], error: type[CxredgeError], says: str
) -> None:
    archive = make(copy, tmp_path / "a.zip")
    with pytest.raises(error, match=says) as raised:
        open_bundle(archive)
    assert type(raised.value) is error
    assert "a.zip" in str(raised.value)
    outside = {path.name for path in tmp_path.iterdir()} - {"a.zip", "copy", "cache"}
    assert not outside


def test_a_bomb_writes_nothing(copy: Path, tmp_path: Path, cache: Path) -> None:
    for number, make in enumerate((bomb_of_size, bomb_of_many, bomb_of_names, liar)):
        with pytest.raises(BundleArchiveError):
            unpacked(make(copy, tmp_path / f"{number}.zip"))
    assert not cache.exists() or not list(cache.iterdir())


def test_a_cache_that_cannot_be_written_is_said(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be unpacked"):
        unpacked(write_archive(bundle.folder, tmp_path / "a.zip"), cache=tmp_path / "file")


def test_an_archive_scans_and_verifies(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    write_archive(bundle.folder, tmp_path / "good.zip")
    good = cli("verify", "good.zip")
    assert good.returncode == 0, good.stderr
    scanned = cli("scan", EXAMPLES / "00000457_002.jpg", "--model", "good.zip", "-o", "out")
    assert scanned.returncode == 0, scanned.stderr
