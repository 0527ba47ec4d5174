"""A bundle that is not exactly what was built is refused, each fault with its own error."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from house import Cli
from tamper import copy_of, external_data, flip_a_byte, rehash, rewrite

from cxredge.bundle import Bundle, open_bundle, shipped_names
from cxredge.bundle.bundle import check_output, sha256_of, write_bundle
from cxredge.bundle.selftest import self_test, self_test_once
from cxredge.devices import read_profile
from cxredge.errors import (
    BundleContentError,
    BundleExternalDataError,
    BundleFileExtraError,
    BundleFileMissingError,
    BundleHashError,
    BundleMissingError,
    BundlePathError,
    BundleSchemaError,
    BundleTooNewError,
    CxredgeError,
    OutputError,
    SelfTestError,
)
from cxredge.metrics import wilson
from cxredge.runtimes import Artifact, Outputs, Session, runtime


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    """The shipped bundle, to be tampered with."""
    return copy_of(bundle, tmp_path / "copy")


def other_threshold(copy: Path) -> None:
    """One bit of a digit: 0.1 becomes 0.5."""
    text = (copy / "manifest.json").read_bytes()
    at = text.index(b'"threshold": 0.1') + len(b'"threshold": 0.')
    (copy / "manifest.json").write_bytes(text[:at] + bytes([text[at] ^ 4]) + text[at + 1 :])


def test_the_checksum_is_one_that_sha256sum_checks(copy: Path) -> None:
    digest, name = (copy / "manifest.sha256").read_text().split()
    assert name == "manifest.json"
    assert digest == sha256_of(copy / "manifest.json") == open_bundle(copy).sha256


@pytest.mark.parametrize(
    ("tamper", "error", "says"),
    [
        (flip_a_byte, BundleHashError, "model.onnx is not the file that was built"),
        (lambda c: (c / "reference.npz").unlink(), BundleFileMissingError, "reference.npz is missing"),
        (lambda c: (c / "more.txt").write_text("?"), BundleFileExtraError, "more.txt is not part of the bundle"),
        (lambda c: (c / "link").symlink_to(c), BundleFileExtraError, "link is not part of the bundle"),
        (lambda c: (c / "manifest.json").unlink(), BundleMissingError, "no bundle there"),
        (lambda c: (c / "manifest.json").write_text("{"), BundleSchemaError, "is not JSON"),
        (other_threshold, BundleHashError, "manifest.json is not the one that was written"),
        (lambda c: (c / "manifest.sha256").write_bytes(b""), BundleHashError, "manifest.json is not the one"),
        (lambda c: (c / "manifest.sha256").unlink(), BundleFileMissingError, "manifest.sha256 is missing"),
        (lambda c: rewrite(c, lambda m: m.update(files=[1])), BundleSchemaError, "files"),
        (lambda c: rewrite(c, lambda m: m["tolerance"].update(largest=1e9)), BundleSchemaError, "tolerance.largest"),
        (
            lambda c: rewrite(c, lambda m: m["findings"][0]["balanced"].update(threshold=8.15)),
            BundleSchemaError,
            "findings.0: Value error, a threshold that is no probability",
        ),
        (
            lambda c: rewrite(c, lambda m: m["findings"][0]["balanced"]["sensitivity"].update(low=0.999)),
            BundleSchemaError,
            "findings.0: Value error, a share or an AUROC that is none",
        ),
        (lambda c: rewrite(c, lambda m: m.update(schema_version=2)), BundleTooNewError, "newer cxredge"),
        (lambda c: rewrite(c, lambda m: m.update(surprise=1)), BundleSchemaError, "surprise"),
        (lambda c: rewrite(c, lambda m: m["findings"][0].pop("drift")), BundleSchemaError, "findings.0.drift"),
        (lambda c: rewrite(c, lambda m: m["files"].update({"../x": "0" * 64})), BundlePathError, "leaves the bundle"),
        (lambda c: rewrite(c, lambda m: m["files"].update({"/etc/x": "0" * 64})), BundlePathError, "leaves the bundle"),
        (lambda c: rewrite(c, lambda m: m["files"].update({"C:\\x": "0" * 64})), BundlePathError, "leaves the bundle"),
        (lambda c: rewrite(c, lambda m: m.update(full_model="x")), BundleSchemaError, "not among the files"),
        (external_data, BundleExternalDataError, "from outside itself"),
        (
            lambda c: ((c / "model.onnx").write_bytes(b"?"), rehash(c, "model.onnx")),
            BundleContentError,
            "is not an ONNX graph",
        ),
    ],
)
def test_a_bundle_is_refused_when(
    copy: Path, tamper: Callable[[Path], object], error: type[CxredgeError], says: str
) -> None:
    open_bundle(copy)
    tamper(copy)
    with pytest.raises(error, match=says) as raised:
        open_bundle(copy)
    assert type(raised.value) is error
    assert str(copy) in str(raised.value)


def test_a_link_out_of_the_bundle_is_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "model.onnx").rename(tmp_path / "elsewhere.onnx")
    (copy / "model.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(BundlePathError, match="leads out of the bundle"):
        open_bundle(copy)


def test_shipped_models_are_whole_and_small() -> None:
    assert "chestxray14" in shipped_names()
    for name in shipped_names():
        opened = open_bundle(name)
        assert opened.manifest.name == name
        assert opened.model.stat().st_size <= 3_000_000
        card = (opened.folder / "MODEL_CARD.md").read_text()
        assert "not a medical device" in card
        for finding in opened.manifest.findings:
            assert (
                f"{finding.test_auroc.value:.3f} ({finding.test_auroc.low:.3f}-{finding.test_auroc.high:.3f})" in card
            )


def test_the_shipped_default_is_no_worse_than_when_it_was_shipped(bundle: Bundle) -> None:
    accuracy = bundle.manifest.accuracy
    assert len(bundle.manifest.findings) == 14
    assert accuracy.compressed.value >= 0.72
    assert accuracy.drift.value >= -0.010
    assert accuracy.drift.value == pytest.approx(accuracy.compressed.value - accuracy.full.value, abs=1e-9)
    mean = np.mean([finding.test_auroc.value for finding in bundle.manifest.findings])
    assert accuracy.compressed.value == pytest.approx(mean, abs=1e-9)


def test_shipped_models_name_their_profiles_engines_and_count_refused_films_by_patient(bundle: Bundle) -> None:
    for manifest in (open_bundle(name).manifest for name in shipped_names()):
        assert manifest.runtimes == read_profile(manifest.target).runtimes
    assert bundle.manifest.gate is not None
    # None of 624 films, which are of 428 children.
    assert bundle.manifest.gate.refused["kermany"] == wilson(0, 428)


class Faulty:
    """A real session whose outputs go through a fault, as a broken accelerator's would."""

    def __init__(self, session: Session, fault: Callable[[Outputs], Outputs]) -> None:
        self.session, self.fault = session, fault

    def run(self, image: np.ndarray) -> Outputs:
        return self.fault(self.session.run(image))

    def close(self) -> None:
        self.session.close()


def one_output_by(factor: float) -> Callable[[Outputs], Outputs]:
    def fault(outputs: Outputs) -> Outputs:
        logits, cam = outputs.logits.copy(), outputs.cam.copy()
        logits[:, 2] *= factor
        cam[:, 2] *= factor
        return replace(outputs, logits=logits, cam=cam)

    return fault


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (one_output_by(1.3), "logits differ"),
        (one_output_by(float("nan")), "not finite"),
        (lambda o: replace(o, logits=o.logits[:, ::-1]), "logits differ"),
        (lambda o: replace(o, cam=o.cam[:, ::-1]), "heat maps"),
        (lambda o: replace(o, atypicality=None), "nothing could be refused"),
        (lambda o: replace(o, atypicality=o.atypicality * np.nan), "nothing could be refused"),
    ],
)
def test_self_test_catches_a_faulty_engine(bundle: Bundle, fault: Callable[[Outputs], Outputs], says: str) -> None:
    session = runtime("onnxruntime").load(Artifact("onnxruntime", bundle.model), 1)
    good = self_test(bundle, session)
    assert good.films == 32
    assert good.mean <= bundle.manifest.tolerance.mean
    with pytest.raises(SelfTestError, match=says):
        self_test(bundle, Faulty(session, fault))


def test_self_test_is_remembered_per_engine_and_processor_and_only_when_passed(bundle: Bundle, tmp_path: Path) -> None:
    session = runtime("onnxruntime").load(Artifact("onnxruntime", bundle.model), 1)
    broken = Faulty(session, one_output_by(1.3))
    with pytest.raises(SelfTestError):
        self_test_once(bundle, broken, runtime="a 1", processor="p", cache=tmp_path)
    first = self_test_once(bundle, session, runtime="a 1", processor="p", cache=tmp_path)
    # Remembered: the broken one is not run.
    assert self_test_once(bundle, broken, runtime="a 1", processor="p", cache=tmp_path) == first
    for changed in ({"runtime": "a 2", "processor": "p"}, {"runtime": "a 1", "processor": "q"}):
        with pytest.raises(SelfTestError):
            self_test_once(bundle, broken, **changed, cache=tmp_path)


def test_verify_passes_a_good_bundle_and_explains_every_mismatch_of_a_bad_one(cli: Cli, copy: Path) -> None:
    good = cli("verify", copy)
    assert good.returncode == 0, good.stderr
    assert "self-test passed" in good.stdout
    flip_a_byte(copy)
    (copy / "reference.npz").unlink()
    (copy / "extra.txt").write_text("?")
    bad = cli("verify", copy)
    assert bad.returncode == 2
    lines = bad.stderr.splitlines()
    assert len(lines) == 3
    for said in ("model.onnx is not the file", "reference.npz is missing", "extra.txt is not part"):
        assert sum(said in line for line in lines) == 1
    with pytest.raises(BundleFileMissingError, match="and 2 more"):
        open_bundle(copy)


def test_nothing_is_kept_for_the_engines_maker(cli: Cli) -> None:
    """ONNX Runtime would leave an identifier of the machine and a queue of reports in the user's cache."""
    assert cli("verify").returncode == 0
    assert {entry.name for entry in (cli.folder / "cache").iterdir()} == {"cxredge"}


def test_models_lists_what_was_measured(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    # A copy of one where it is listed: what comes with cxredge is no question then.
    shutil.copytree(bundle.folder, tmp_path / bundle.manifest.name)
    run = cli("models")
    assert run.returncode == 0, run.stderr
    assert "(default)" in run.stdout
    assert f"{bundle.manifest.accuracy.compressed.value:.3f}" in run.stdout


def test_self_test_catches_distances_that_are_off(bundle: Bundle, tmp_path: Path) -> None:
    """A gate that is told too small a distance lets anything through."""
    session = runtime("onnxruntime").load(Artifact("onnxruntime", bundle.model), 1)
    with np.load(bundle.reference) as stored:
        arrays = {name: stored[name] for name in stored.files}
    far = [session.run(image[None]).atypicality for image in arrays["images"]]
    kept = replace(bundle, folder=Path(shutil.copytree(bundle.folder, tmp_path / "kept")))
    np.savez(kept.reference, **(arrays | {"atypicality": np.concatenate(far)}))  # type: ignore[arg-type]
    assert self_test(kept, session).mean <= bundle.manifest.tolerance.mean
    for factor in (0.7, 1.3):
        broken = Faulty(session, lambda o, factor=factor: replace(o, atypicality=o.atypicality * factor))  # type: ignore[misc]
        with pytest.raises(SelfTestError, match="distances from the training films are off by 30 %"):
            self_test(kept, broken)


def test_what_holds_more_than_a_bundle_is_never_overwritten(copy: Path, tmp_path: Path) -> None:
    check_output(copy)
    (copy / "thesis.txt").write_text("three years")
    with pytest.raises(OutputError, match=r"holds thesis\.txt, which is not part of the bundle"):
        check_output(copy)
    (tmp_path / "extension").mkdir()
    (tmp_path / "extension" / "manifest.json").write_text('{"manifest_version": 3}')
    with pytest.raises(OutputError, match="that is no bundle's"):
        check_output(tmp_path / "extension")


def test_a_data_set_called_as_a_model_does_not_hide_it(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "chestxray14" / "images").mkdir(parents=True)
    run = cli("verify")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("chestxray14 ")


def test_a_new_bundle_that_cannot_take_the_old_ones_place_loses_neither(
    bundle: Bundle, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = Path.replace

    def held(source: Path, target: Path) -> Path:
        """As on Windows, when a scanner for viruses looks at what was just written."""
        if source.name == copy.name and source != copy:
            raise PermissionError(13, "Permission denied")
        return move(source, target)

    monkeypatch.setattr(Path, "replace", held)
    files = {name: bundle.folder / name for name in bundle.manifest.files}
    newer = bundle.manifest.model_copy(update={"version": "9.9.9"})
    with pytest.raises(OutputError, match="Permission denied") as raised:
        write_bundle(copy, files, lambda _: newer)
    assert open_bundle(copy).sha256 == bundle.sha256
    (kept,) = copy.parent.glob(".copy-*/copy")
    assert str(kept) in str(raised.value)
    assert open_bundle(kept).manifest.version == "9.9.9"


def test_writing_a_bundle_anew_leaves_nothing_beside_it(bundle: Bundle, copy: Path) -> None:
    files = {name: bundle.folder / name for name in bundle.manifest.files}
    assert write_bundle(copy, files, lambda _: bundle.manifest).sha256 == bundle.sha256
    with pytest.raises(CxredgeError):
        write_bundle(copy, files, lambda _: bundle.manifest.model_copy(update={"files": {}}))
    assert open_bundle(copy).sha256 == bundle.sha256
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]
