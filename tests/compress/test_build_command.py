"""`cxredge build` as a user types it: reproducible, signed, or refused with nothing written."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from house import EXAMPLES, FILMS, Cli, rows_of

from cxredge.bundle import Bundle, open_bundle
from cxredge.bundle.built import NOT_MEASURED
from cxredge.compress.build import OutsideGateError
from cxredge.compress.tensorrt_check import take
from cxredge.compress.verdict import BuildGate

BuildFor = Callable[..., Bundle]


def test_a_bundle_for_a_jetson_is_legal_signed_reproducible_and_scans_here(
    cli: Cli, source: Bundle, tmp_path: Path, build_for: BuildFor
) -> None:
    assert cli("keys", "lab.key").returncode == 0
    words = ("build", "--target", "jetson", "--model", source.folder, "--archive", "--sign", "lab.key")
    # A name that the screen's markup would take for its own.
    name = "[first] one"
    made = cli(*words, "-o", name)
    assert made.returncode == 0, made.stderr
    assert f"cxredge verify {name}.zip" in made.stdout
    assert NOT_MEASURED in made.stdout
    packed = (tmp_path / f"{name}.zip").read_bytes()
    # Over what it wrote, named by its archive.
    again = cli(*words, "-o", f"{name}.zip")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / f"{name}.zip").read_bytes() == packed
    # Another cache, so everything was made and measured anew: the same but for the signature, which this one lacks.
    other = build_for(source, "jetson", tmp_path / "other")
    for file in other.manifest.files:
        assert (other.folder / file).read_bytes() == (tmp_path / name / file).read_bytes(), file
    assert (other.folder / "manifest.json").read_bytes() == (tmp_path / name / "manifest.json").read_bytes()

    built = open_bundle(tmp_path / f"{name}.zip", trust=tmp_path / "lab.pub")
    assert built.manifest.runtimes[0] == "tensorrt"
    taken, said = take(built.graph("tensorrt"), ["8.7"])
    assert taken, said
    assert "every node parsed and engines built" in said
    for model, out in ((f"{name}.zip", "jetson"), (source.folder, "shipped")):
        scanned = cli("scan", EXAMPLES, "--model", model, "-o", out)
        assert scanned.returncode == 0, scanned.stderr
    one, other = ({row["file"]: row["priority"] for row in rows_of(tmp_path / out)} for out in ("jetson", "shipped"))
    assert one == other


def test_outside_the_gate_nothing_is_written(cli: Cli, source: Bundle, tmp_path: Path, build_for: BuildFor) -> None:
    with pytest.raises(OutsideGateError) as raised:
        build_for(source, "generic", tmp_path / "built", gate=BuildGate(max_disagreement=0))
    record = raised.value.build
    assert all(row.verdict.startswith("outside the gate") for row in record.candidates)
    # Labels would not lift the limit that was broken.
    assert "--data" not in str(raised.value)
    assert "--max-drift, --max-disagreement, --max-flipped" in str(raised.value)
    words = ("build", "--target", "generic", "--model", source.folder, "--max-disagreement", "0", "-o", "built")
    refused = cli(*words, "--archive")
    assert refused.returncode == 1
    assert "nothing was written" in refused.stderr
    assert "outside the gate" in refused.stdout
    assert not (tmp_path / "built").exists()
    assert not (tmp_path / "built.zip").exists()


def test_a_run_an_unknown_device_and_a_folder_of_films_are_refused(cli: Cli, tmp_path: Path, own_profile: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    own_profile.write_text(own_profile.read_text().replace("openvino", "abacus"))
    for words, says in (
        (("--target", "jetson", "--model", "run"), "give the data sets it was trained on: --data DATA"),
        (("--target", "toaster"), "no device profile 'toaster'"),
        (("--target", "jetson", "--model", FILMS), "no bundle there"),
        (("--target", "generic", "-o", "run"), "exists and is not a bundle"),
        (("--target", "generic", "--sign", "absent.key"), "no private key there"),
        # Before the run is compressed, for hours: this one could not even be read.
        (("--target", "generic", "--model", "run", "--data", FILMS, "--sign", "absent.key"), "no private key there"),
        (("--target", "mine.toml"), "'abacus' is no engine"),
        (("--target", "generic", "--max-drift", "0.1"), "there is no AUROC to lose: give --data"),
        (("--target", "generic", "--recipe", "nonsense"), "chestxray14 is no training run"),
    ):
        refused = cli("build", *words)
        assert refused.returncode == 2
        assert says in refused.stderr
        assert "Traceback" not in refused.stderr


def test_afresh_makes_graphs_again_too(cli: Cli, source: Bundle, tmp_path: Path, own_profile: Path) -> None:
    # Of another machine: nothing to time.
    own_profile.write_text(own_profile.read_text().replace("threads", 'boards = ["Some Board"]\nthreads', 1))
    words = ("build", "--target", own_profile.name, "--model", source.folder, "-o", "built")
    assert cli(*words).returncode == 0
    (kept,) = (tmp_path / "cache").rglob("graphs/*/model.bin")
    before = kept.stat().st_mtime_ns
    again = cli(*words, "--afresh")
    assert again.returncode == 0, again.stderr
    assert kept.stat().st_mtime_ns > before


def test_what_was_measured_is_not_trusted_once_a_digit_of_it_is_another(
    cli: Cli, source: Bundle, tmp_path: Path, own_profile: Path
) -> None:
    own_profile.write_text(own_profile.read_text().replace("threads", 'boards = ["Some Board"]\nthreads', 1))
    words = ("build", "--target", own_profile.name, "--model", source.folder, "-o", "built")
    assert cli(*words).returncode == 0
    honest = (tmp_path / "built" / "manifest.json").read_bytes()
    for stored in (tmp_path / "cache").rglob("measured/*.json"):
        text = stored.read_text()
        digit = text.index(".", text.index("logits")) - 1
        stored.write_text(f"{text[:digit]}{(int(text[digit]) + 3) % 10}{text[digit + 1 :]}")
    assert cli(*words).returncode == 0
    assert (tmp_path / "built" / "manifest.json").read_bytes() == honest


def test_where_a_link_leads_the_bundle_goes(cli: Cli, source: Bundle, tmp_path: Path) -> None:
    (tmp_path / "stick").mkdir()
    (tmp_path / "new").symlink_to("stick/bundle")
    words = ("build", "--target", "generic", "--model", source.folder, "-o", "new")
    # Nothing there yet; then over what it wrote.
    for _ in range(2):
        made = cli(*words)
        assert made.returncode == 0, made.stderr
        assert (tmp_path / "new").is_symlink()
        assert open_bundle(tmp_path / "stick" / "bundle").manifest.target == "generic"


def test_a_build_loads_no_torch(cli: Cli, source: Bundle) -> None:
    run = cli("build", "--target", "generic", "--model", source.folder, "-o", "built", python=("-X", "importtime"))
    assert run.returncode == 0, run.stderr[-2000:]
    loaded = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in run.stderr.splitlines() if "|" in line}
    assert "onnx" in loaded
    assert not loaded & {"torch", "torchvision", "nncf", "onnxscript"}


def test_a_strangers_zip_is_not_overwritten(cli: Cli, source: Bundle, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as archive:
        archive.writestr("0001.jpg", b"the only copy")
    before = (tmp_path / "films.zip").read_bytes()
    (tmp_path / "notes.zip").write_text("no archive")
    with zipfile.ZipFile(tmp_path / "extension.zip", "w") as archive:
        archive.writestr("manifest.json", '{"manifest_version": 3}')
    for out in ("films.zip", "notes.zip", "extension.zip"):
        refused = cli("build", "--target", "generic", "--model", source.folder, "-o", out)
        assert refused.returncode == 2
        assert "is no bundle's archive" in refused.stderr
        assert not (tmp_path / out).with_suffix("").exists()
    assert (tmp_path / "films.zip").read_bytes() == before
