"""A bundle's model card and evidence made anew from its own graphs and the published films; graphs, weights and thresholds stay.

python -m cxredge.compress.recard BUNDLE --data DATA
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, cast

import numpy as np
import typer
from rich.console import Console

from cxredge.bundle import Bundle, Manifest, open_bundle, write_bundle
from cxredge.bundle.archive import is_archive
from cxredge.bundle.bundle import check_output
from cxredge.bundle.manifest import Finding, Gate
from cxredge.bundle.signature import SIGNATURE, sign
from cxredge.cli import complain
from cxredge.compress.build_card import with_build
from cxredge.compress.card import model_card
from cxredge.compress.evidence import DIAGRAM, RUNTIME, SHEET, Evidence, gather, labelled_as
from cxredge.compress.records import EXPERIMENTAL_BELOW
from cxredge.devices import read_profile
from cxredge.errors import CxredgeError, DataError, TooFewFilmsError
from cxredge.metrics import at_threshold, auroc, auroc_drift, auroc_interval, proportion
from cxredge.train.facts import read_facts
from cxredge.train.scores import Tick, score
from cxredge.train.sources import Films, Uncertain, join
from cxredge.train.subject import full_precision_of, open_subject
from cxredge.train.tables import read_data, read_films

CARD = "MODEL_CARD.md"
# Another processor rounds otherwise; other films or other labels differ by more.
SAME_AUROC = 0.01


def recard(
    bundle: Bundle,
    data: Sequence[Path],
    out: Path,
    *,
    key: Path | None = None,
    version: str | None = None,
    note: str = "",
    tick: Tick | None = None,
) -> Bundle:
    """Write the bundle with the evidence for each finding, its subgroups, calibration, known failures and films refused by mistake
    measured, and its card made from them, to `out`.

    data: data sets in their published layout; those validation and test films are scored that the bundle's own figures were
    measured on, through ONNX Runtime and its portable graph. Whether a finding is `experimental` follows from what is found.
    The engines of a bundle that no build has measured are those of its device's profile.
    key: private key to sign with. version: of the bundle from now on; the old one unless told. note: added to its history. out:
    may be the bundle's own folder.
    Raises DataError when the data do not hold those films, CxredgeError when a signature would be lost, OutputError.
    """
    check_output(out)
    if key is not None:
        sign(b"", key)
    elif (bundle.folder / SIGNATURE).is_file():
        raise CxredgeError(f"{bundle.folder} is signed, and a new card needs a new signature: give the key with --sign")
    manifest = bundle.manifest
    source = manifest.accuracy.source.removesuffix(" test")
    everything = _read(manifest, data)
    tested = labelled_as(_test_films(everything, source), manifest.names)
    # Those that nobody labelled were not measured on.
    films = tested.take(np.flatnonzero(~np.isnan(tested.labels).all(1)))
    _check_count(manifest, films, source, manifest.accuracy.films)
    found = gather(open_subject(bundle.folder), manifest.findings, films, read_facts(data, films), source, tick=tick)
    _check_same(manifest, films, found)
    new = manifest.model_copy(
        update={
            "version": version or manifest.version,
            "training": manifest.training.model_copy(
                update={"history": " ".join(filter(None, (manifest.training.history, note)))}
            ),
            "runtimes": manifest.runtimes if manifest.build else read_profile(manifest.target).runtimes,
            "findings": _findings(bundle, data, films, found, source),
            "gate": _gate(bundle, everything),
            "subgroups": found.subgroups,
            "calibration": found.calibration,
            "failures": found.failures,
        }
    )
    card = model_card(new, _float_bytes(bundle.full_model), bundle.model.stat().st_size)
    if new.build is not None:
        card = with_build(card, new)
    kept = [name for name in manifest.files if name not in (CARD, DIAGRAM, SHEET, *manifest.pictures)]
    files: dict[str, Path | bytes] = {name: bundle.folder / name for name in kept}
    return write_bundle(
        out,
        files | found.pictures | {CARD: card.encode()},
        lambda hashes: new.model_copy(update={"files": hashes}),
        key=key,
    )


def _read(manifest: Manifest, data: Sequence[Path]) -> Films:
    uncertain = cast(Uncertain, manifest.training.recipe.get("uncertain", "ignore"))
    return join([read_data(path, uncertain=uncertain) for path in data])


def _test_films(films: Films, source: str) -> Films:
    return films.take((films.sources == source) & (films.splits == "test"))


def _check_count(manifest: Manifest, own: Films, source: str, wanted: int) -> None:
    """Raise DataError where a source's test films are not so many as the bundle was measured on."""
    if len(own) != wanted:
        raise DataError(
            f"{manifest.name} was measured on {wanted} {source} test films, and the data given hold {len(own)}; give the same data"
            " sets"
        )


def _gate(bundle: Bundle, films: Films) -> Gate | None:
    """The share of test films that the network's distance alone turns away, of every source; thresholds as they are."""
    gate = bundle.manifest.gate
    if gate is None:
        return None
    refused = {}
    for source in gate.refused:
        own = _test_films(films, source)
        _check_count(bundle.manifest, own, source, bundle.manifest.training.films[source]["test"])
        told = score(open_subject(bundle.folder), own.files, RUNTIME)
        if told.unread:
            raise DataError(f"{len(told.unread)} test film(s) cannot be read: {next(iter(told.unread.values()))}")
        assert told.atypicality is not None  # noqa: S101 - for the type checker: a graph with a gate says it
        refused[source] = proportion(told.atypicality > gate.threshold, own.patients)
    return gate.model_copy(update={"refused": refused})


def _findings(
    bundle: Bundle, data: Sequence[Path], films: Films, found: Evidence, source: str
) -> tuple[Finding, ...]:  # fmt: skip
    """The evidence for each finding, thresholds as they are. films, found: of the test split."""
    subject, truth = open_subject(bundle.folder), films.labels.astype(np.float64)
    full = full_precision_of(subject)
    whole = None if full is None else score(full, films.files, RUNTIME).probabilities
    known = read_films(data, "validation", splits_of=bundle.folder)
    known = labelled_as(known.take(known.sources == source), bundle.manifest.names)
    if len(known) != (counted := bundle.manifest.training.films[source]["validation"]):
        raise DataError(
            f"{bundle.manifest.name} was validated on {counted} {source} films, and the data given hold {len(known)}; give the same"
            " data sets"
        )
    told, labels = score(subject, known.files, RUNTIME).probabilities, known.labels.astype(np.float64)
    rows = []
    for i, finding in enumerate(bundle.manifest.findings):
        area = auroc_interval(labels[:, i], told[:, i], known.patients)
        if abs(area.value - finding.validation_auroc.value) > SAME_AUROC:
            raise DataError(
                f"{finding.name}: validation AUROC {area.value:.3f} on these films, {finding.validation_auroc.value:.3f} in the"
                f" manifest; these are not the films that {bundle.manifest.name} was validated on"
            )
        points = {
            name: at_threshold(labels[:, i], told[:, i], getattr(finding, name).threshold, known.patients)
            for name in ("sensitive", "balanced", "specific")
        }
        drift = finding.drift
        if whole is not None:
            drift = auroc_drift(truth[:, i], whole[:, i], found.probabilities[:, i], films.patients)
        measured = {
            "experimental": area.low < EXPERIMENTAL_BELOW,
            "validation_auroc": area,
            "test_auroc": auroc_interval(truth[:, i], found.probabilities[:, i], films.patients),
            "drift": drift,
        }
        rows.append(finding.model_copy(update=measured | points))
    return tuple(rows)


def _check_same(manifest: Manifest, films: Films, found: Evidence) -> None:
    """New figures stand beside old ones, so they must be of the same films. Raises DataError."""
    for i, finding in enumerate(manifest.findings):
        try:
            area = auroc(films.labels[:, i].astype(np.float64), found.probabilities[:, i])
        except TooFewFilmsError:
            area = float("nan")
        if not abs(area - finding.test_auroc.value) <= SAME_AUROC:
            raise DataError(
                f"{finding.name}: AUROC {area:.3f} on these films, {finding.test_auroc.value:.3f} in {manifest.name}'s manifest;"
                " these are not the films, or not the labels, that it was measured on"
            )


def _float_bytes(stored: Path | None) -> int | None:
    """Size of the full-precision graph with weights in 32-bit floats; the bundle carries them in 16 bits (`store_half`)."""
    if stored is None:
        return None
    import onnx
    from onnx import numpy_helper

    model = onnx.load(stored)
    halves = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16]
    names = {tensor.name for tensor in halves}
    for tensor in halves:
        whole = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(whole, tensor.name.removesuffix(".half")))
    for cast_back in [node for node in model.graph.node if node.op_type == "Cast" and node.input[0] in names]:
        model.graph.node.remove(cast_back)
    return int(model.ByteSize())


def recard_command(
    bundle: Annotated[
        str, typer.Argument(help="A bundle's folder or .zip, or a shipped model's name.", show_default=False)
    ],
    data: Annotated[
        list[Path],
        typer.Option(
            help="All data sets that it was made from, in their published layout; repeat for each.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write; the bundle's own unless told.", show_default=False),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option("--sign", help="Private key to sign with; `cxredge keys` makes one.", show_default=False),
    ] = None,
    version: Annotated[
        str | None, typer.Option("--as-version", help="Of the bundle from now on.", show_default=False)
    ] = None,
    note: Annotated[str, typer.Option(help="A sentence for the model's history.", show_default=False)] = "",
) -> None:
    """Measure the evidence for a bundle's findings, its subgroups, calibration, known failures and films refused by mistake.

    Its card is written anew. Reads the validation and test films that it was measured on; graphs, weights and thresholds stay.

    Example: `python -m cxredge.compress.recard my-model --data data/chestxray14`
    """
    if output is None and is_archive(Path(bundle)):
        raise CxredgeError(f"{bundle} is an archive; give a folder to write with --output")
    opened = open_bundle(bundle)
    made = recard(opened, data, output or opened.folder, key=key, version=version, note=note)
    calibration = made.manifest.calibration
    assert calibration is not None  # noqa: S101 - for the type checker: it was just measured
    Console().print(f"{made.folder / CARD}: mean ECE {calibration.mean.value:.3f}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    try:
        typer.run(recard_command)
    except CxredgeError as error:
        complain(str(error))
        sys.exit(2)
