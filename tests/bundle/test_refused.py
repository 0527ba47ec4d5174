"""A spoilt bundle on the command line: one line that names the fault and the file, exit code 2, and nothing written."""

from collections.abc import Callable
from pathlib import Path

import pytest
from house import EXAMPLES, Cli
from tamper import (
    bomb_of_many,
    bomb_of_size,
    copy_of,
    cut_off,
    external_data,
    flip_a_byte,
    packed,
    rewrite,
)

from cxredge.bundle import Bundle
from cxredge.bundle.signature import SIGNATURE, new_keys, sign

Tamper = Callable[[Path], object]


def of_another_schema(folder: Path) -> None:
    rewrite(folder, lambda said: said.update(schema_version=2))


def listing_a_path_outside(folder: Path) -> None:
    rewrite(folder, lambda said: said["files"].update({"../outside.txt": "0" * 64}))


def linked_to_outside(folder: Path) -> None:
    (folder / "model.onnx").rename(folder.parent / "elsewhere.onnx")
    (folder / "model.onnx").symlink_to(folder.parent / "elsewhere.onnx")


def of_another_preprocessing(folder: Path) -> None:
    rewrite(folder, lambda said: said["preprocessing"].update(digest="0" * 12))


def with_a_threshold_of_nan(folder: Path) -> None:
    rewrite(folder, lambda said: said["findings"][0]["balanced"].update(threshold=float("nan")))


def with_a_tolerance_of_nan(folder: Path) -> None:
    rewrite(folder, lambda said: said["tolerance"].update(mean=float("nan")))


def nested_too_deep(folder: Path) -> None:
    (folder / "manifest.json").write_text("[" * 200_000)


FOLDERS: dict[str, tuple[Tamper, str]] = {
    "one flipped byte": (flip_a_byte, "model.onnx is not the file that was built"),
    "a missing file": (lambda f: (f / "reference.npz").unlink(), "reference.npz is missing"),
    "an extra file": (lambda f: (f / "more.txt").write_text("?"), "more.txt is not part of the bundle"),
    "a newer schema": (of_another_schema, "was made by a newer cxredge (schema 2, this one reads 1)"),
    "a path that leaves the folder": (listing_a_path_outside, "names a file that leaves the bundle: ../outside.txt"),
    "a link that leaves the folder": (linked_to_outside, "model.onnx leads out of the bundle"),
    "another preprocessing": (of_another_preprocessing, "was made for another version of the preprocessing"),
    "a threshold that is no number": (
        with_a_threshold_of_nan,
        "findings.0.balanced.threshold: Input should be a finite",
    ),
    "a tolerance that is no number": (with_a_tolerance_of_nan, "tolerance.mean: Input should be a finite"),
    "ages the wrong way round": (
        lambda f: rewrite(f, lambda said: said.update(population_ages=[5, 1])),
        "population_ages: Value error, the youngest age comes first",
    ),
    "a manifest nested too deep": (nested_too_deep, "manifest.json is not JSON"),
    "external data": (external_data, "model.onnx takes the data of 1 tensor(s) from outside itself"),
}
ARCHIVES: dict[str, tuple[Callable[[Path, Path], Path], str]] = {
    "a bomb in size": (bomb_of_size, "would unpack to 5"),
    "a bomb in number": (bomb_of_many, "a bundle at most 256"),
    "a path that leaves the folder": (
        lambda f, a: packed(f, a, more={"../outside.txt": b"!"}),
        "'../outside.txt' leaves the bundle",
    ),
    "cut off": (cut_off, "cut off"),
}


def refused(cli: Cli, model: str, says: str) -> None:
    """`verify` and `scan` both end at once, and for the same reason."""
    for words in (("verify", model), ("scan", EXAMPLES, "--model", model, "--output", "out")):
        run = cli(*words)
        assert run.returncode == 2, run.stdout
        (line,) = run.stderr.strip().splitlines()
        assert line.startswith(f"cxredge: {model}: ")
        assert says in line
        assert run.stdout == ""
    assert not (cli.folder / "out").exists()
    assert not (cli.folder / "outside.txt").exists()
    assert not (cli.folder.parent / "outside.txt").exists()


@pytest.mark.parametrize("fault", FOLDERS)
def test_a_spoilt_folder(cli: Cli, bundle: Bundle, fault: str) -> None:
    spoil, says = FOLDERS[fault]
    spoil(copy_of(bundle, cli.folder / "stick"))
    refused(cli, "stick", says)


@pytest.mark.parametrize("fault", ARCHIVES)
def test_a_spoilt_archive(cli: Cli, bundle: Bundle, fault: str) -> None:
    spoil, says = ARCHIVES[fault]
    spoil(copy_of(bundle, cli.folder / "folder"), cli.folder / "stick.zip")
    refused(cli, "stick.zip", says)


@pytest.mark.parametrize("fault", ["a newer schema", "external data"])
def test_a_spoilt_folder_that_was_packed(cli: Cli, bundle: Bundle, fault: str) -> None:
    spoil, says = FOLDERS[fault]
    spoil(folder := copy_of(bundle, cli.folder / "folder"))
    packed(folder, cli.folder / "stick.zip")
    refused(cli, "stick.zip", says)


def changed_after(folder: Path) -> None:
    rewrite(folder, lambda said: said.update(title="Something else"))


@pytest.mark.parametrize(
    ("key", "spoil", "says"),
    [
        ("other", lambda _: None, "is signed by another key"),
        ("lab", changed_after, "the signature does not fit the manifest"),
        ("lab", lambda f: (f / SIGNATURE).write_text("{}"), "manifest.sig is damaged"),
    ],
)
def test_a_signature_that_is_not_the_one_asked_for(
    cli: Cli, bundle: Bundle, key: str, spoil: Tamper, says: str
) -> None:
    for name in ("lab", "other"):
        new_keys(cli.folder / f"{name}.key")
    folder = copy_of(bundle, cli.folder / "stick")
    (folder / SIGNATURE).write_bytes(sign((folder / "manifest.json").read_bytes(), cli.folder / f"{key}.key"))
    spoil(folder)
    for words in (("verify", "stick"), ("scan", EXAMPLES, "--model", "stick", "--output", "out")):
        run = cli(*words, "--trust", "lab.pub")
        assert run.returncode == 2, run.stdout
        (line,) = run.stderr.strip().splitlines()
        assert line.startswith("cxredge: stick: ")
        assert says in line
    assert not (cli.folder / "out").exists()


def test_a_finding_that_the_manifest_does_not_name(cli: Cli, bundle: Bundle) -> None:
    rewrite(copy_of(bundle, cli.folder / "stick"), lambda said: said["findings"].pop())
    for words in (("verify", "stick"), ("scan", EXAMPLES, "--model", "stick"), ("doctor", "--model", "stick")):
        run = cli(*words)
        assert run.returncode == (1 if words[0] == "doctor" else 2)
        assert "the manifest needs (1, 224, 224) and (32, 13)" in run.stderr + run.stdout
        assert "Traceback" not in run.stderr


def test_a_name_that_means_two_bundles(cli: Cli, bundle: Bundle) -> None:
    copy_of(bundle, cli.folder / "chestxray14")
    for words in (
        ("verify",),
        ("verify", "chestxray14"),
        ("scan", EXAMPLES),
        ("evaluate", "chestxray14", "--data", "x"),
    ):
        run = cli(*words)
        assert run.returncode == 2
        assert "for the folder write ./chestxray14" in run.stderr
    assert cli("verify", "./chestxray14").returncode == 0


def test_a_path_that_no_system_takes_is_one_line(cli: Cli) -> None:
    run = cli("verify", 300 * "x")
    assert run.returncode == 2
    (line,) = run.stderr.strip().splitlines()
    assert "File name too long" in line
