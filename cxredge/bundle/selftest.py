"""The self-test: does the engine at hand give the numbers the bundle was built with?

It runs before the first scan on a machine, and again whenever bundle, engine, cxredge or processor change, so that a
broken or subtly wrong accelerator is found before a patient is.
"""

import hashlib
import json
import zipfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxredge import __version__
from cxredge.bundle.bundle import Bundle
from cxredge.bundle.manifest import EngineGraph
from cxredge.errors import BundleContentError, SelfTestError
from cxredge.folders import cache_folder
from cxredge.runtimes import Session

# Share by which an engine's distances from the training films may be off. OpenVINO's were by 1.2 % at most; the gate's
# threshold lies some 20 % above a usual film.
ASTRAY = 0.05


@dataclass(frozen=True)
class SelfTest:
    """Largest and mean absolute logit difference over the reference films; against_full: mean, to the full-precision model."""

    films: int
    mean: float
    largest: float
    against_full: float


def self_test(bundle: Bundle, session: Session, *, graph: EngineGraph | None = None) -> SelfTest:
    """Run the reference films through a session.

    graph: what the session was loaded from (`manifest.graph_for`), the portable model unless told.
    `reference.npz`: images uint8 [N, 1, H, W]; logits float32 [N, L] of the bundle's model as built; full float32 [N, L]
    of its full-precision parent; and logits of the graphs made for other engines, under the names the manifest says. Beside
    each, float32 [N], how atypical the films are (`distances_name`); bundles made before these were kept have none.
    Class activation maps are checked too: their mean must be the logit.
    Raises SelfTestError when a difference exceeds the manifest's tolerance or a number is not finite.
    """
    graph = graph or bundle.manifest.graph_for("")
    reference = _read_reference(bundle, graph)
    logits, from_maps, distances = _answers(bundle, session, reference.images)
    off = np.abs(logits - reference.logits)
    tolerance = graph.tolerance
    result = SelfTest(len(off), float(off.mean()), float(off.max()), float(np.abs(logits - reference.full).mean()))
    if not (result.mean <= tolerance.mean and result.largest <= tolerance.largest):
        raise SelfTestError(
            f"the engine's logits differ from those the model was built with by {result.mean:.3f} on average and"
            f" {result.largest:.3f} at most (allowed: {tolerance.mean:.3f} and {tolerance.largest:.3f})"
        )
    if np.abs(from_maps - logits).max() > tolerance.largest:
        raise SelfTestError("the engine's heat maps do not belong to its logits")
    if bundle.manifest.gate and reference.distances is not None:
        astray = np.abs(distances / reference.distances - 1).max()
        if not astray <= ASTRAY:
            raise SelfTestError(
                f"the engine's distances from the training films are off by {100 * astray:.0f} %, so films would be refused, or"
                " let through, by mistake"
            )
    return result


@dataclass(frozen=True)
class _Reference:
    """`reference.npz`, checked. distances: None in bundles made before these were kept."""

    images: NDArray[np.uint8]
    logits: NDArray[np.float32]
    full: NDArray[np.float32]
    distances: NDArray[np.float32] | None


def _read_reference(bundle: Bundle, graph: EngineGraph) -> _Reference:
    """The reference films and what a graph made of them at build. Raises BundleContentError for what does not fit the manifest."""
    try:
        with np.load(bundle.reference, allow_pickle=False) as stored:
            images, logits, full = stored["images"], stored[graph.logits], stored["full"]
            distances = stored[name] if (name := distances_name(graph.logits)) in stored.files else None
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise BundleContentError(bundle.folder, f"reference.npz cannot be read ({error})") from None
    # Arrays of other shapes would be stretched to each other's, and the test would pass.
    wanted = (len(images), len(bundle.manifest.findings))
    size = bundle.manifest.preprocessing.size
    if not len(images) or images.shape[1:] != (1, size, size) or logits.shape != wanted or full.shape != wanted:
        raise BundleContentError(
            bundle.folder,
            f"reference.npz holds films of shape {images.shape[1:]} and logits of {logits.shape}; the manifest needs"
            f" {(1, size, size)} and {wanted}",
        )
    return _Reference(images, logits, full, distances)


def _answers(
    bundle: Bundle, session: Session, images: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Logits [N, L], the means of the class activation maps [N, L], and distances [N], nan where the model has none.

    Raises SelfTestError for numbers that are not finite, or not as many as the manifest names.
    """
    logits, from_maps, distances = [], [], []
    for image in images:
        outputs = session.run(image[None])
        if bundle.manifest.gate and (outputs.atypicality is None or not np.isfinite(outputs.atypicality).all()):
            raise SelfTestError("the engine gives no distance from the training films, so nothing could be refused")
        logits.append(outputs.logits[0])
        from_maps.append(outputs.cam[0].mean((1, 2)))
        distances.append(outputs.atypicality[0] if outputs.atypicality is not None else np.nan)
    found, means, wanted = np.array(logits), np.array(from_maps), (len(images), len(bundle.manifest.findings))
    if found.shape != wanted or means.shape != wanted:
        raise SelfTestError(
            f"the engine gives {found.shape[-1]} logits a film, the manifest names {wanted[1]} findings; the bundle was not made by"
            " cxredge"
        )
    if not (np.isfinite(found).all() and np.isfinite(means).all()):
        raise SelfTestError("the engine gives numbers that are not finite; it must not be used here")
    return found, means, np.array(distances)


def distances_name(logits: str) -> str:
    """Name in reference.npz of the distances from the training films that belong to these logits."""
    return "atypicality" if logits == "logits" else f"{logits}_atypicality"


def self_test_once(
    bundle: Bundle,
    session: Session,
    *,
    runtime: str,
    processor: str,
    graph: EngineGraph | None = None,
    cache: Path | None = None,
) -> SelfTest:
    """The self-test, or what it found earlier for this bundle, engine, cxredge and processor.

    cache: folder of earlier results (the user's cache folder unless told). Only a pass is remembered.
    Raises SelfTestError.
    """
    said = json.dumps([bundle.sha256, runtime, processor, __version__])
    stored = (cache or cache_folder()) / "selftest" / f"{hashlib.sha256(said.encode()).hexdigest()}.json"
    with suppress(OSError, ValueError, TypeError):
        return SelfTest(**json.loads(stored.read_text(encoding="utf-8")))
    result = self_test(bundle, session, graph=graph)
    # A read-only home only means that the test runs again next time.
    with suppress(OSError):
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_text(json.dumps(asdict(result)), encoding="utf-8")
    return result
