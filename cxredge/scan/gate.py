"""Refuse before you score: is this a whole, upright frontal chest film of somebody the model was made for?

Several witnesses, none of which knows of the others: the network's own distance from its training films, the film's coarse
picture (`scan.framing`), its proportions, and what its header says. Headers lie, so they only lower how much doubt the picture
may leave; alone they refuse nothing but an age outside the model's range. Colour, size, and a film without grey are looked at
when it is decoded (`imaging`).
"""

import math
import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cxredge.bundle.manifest import Gate, Manifest
from cxredge.errors import FilmFailedError, FilmRefusedError, Refusal
from cxredge.imaging import Film
from cxredge.scan.framing import AS_GIVEN, CHANGED, INVERTED, Framing, framing

# DICOM PS3.3 C.8.11.5.1.1 and what machines write instead. LLD and RLD are frontal films of a patient who lies on a side.
LATERAL_VIEWS = {"LL", "RL", "LLAT", "RLAT"}
OBLIQUE_VIEWS = {"RLO", "LLO", "RAO", "LAO", "RPO", "LPO"}
# Presentation Intent Type of grey values that nobody is to look at yet (C.8.11.1).
RAW = "FOR PROCESSING"
# Kinds of picture that are no projection radiograph (PS3.3 C.7.3.1.1.1).
OTHER_MODALITIES = {"CT", "MR", "US", "NM", "PT", "MG", "IO", "PX", "OP", "OPT", "ES", "XC", "SM", "GM", "BMD", "ECG"}
CHEST_WORDS = ("CHEST", "THOR", "TORAX", "LUNG", "RIB", "PULM", "BRUST", "POUMON")
# The widest of what detectors and published sets hold is 2.1 to 1.
LONGEST = 2.5
_DAYS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}

AtypicalityOf = Callable[[NDArray[np.uint8]], float]


def check(film: Film, atypicality: float | None, manifest: Manifest, atypicality_of: AtypicalityOf) -> str:
    """Raise FilmRefusedError with the reason, or return what a person should know of a film that passes ("" for nothing).

    atypicality: the network's distance of the film from its training films. atypicality_of: the same of another image, uint8
    [1, size, size], for the film turned or inverted.
    Raises FilmFailedError when the engine gives no distance although the model has a gate.
    """
    _age(film, manifest)
    # The film proper, so with the shape of its pixels taken into account.
    if max(film.box[2:]) > LONGEST * min(film.box[2:]):
        raise FilmRefusedError(Refusal.CROPPED, f"{film.columns} x {film.rows} pixels")
    gate = manifest.gate
    if gate is None:
        return ""
    # Fails safe: without a distance that is a number, no film passes.
    if atypicality is None or not math.isfinite(atypicality):
        raise FilmFailedError("the engine did not say how unlike the training films it is")
    look = framing(film.coarse)
    _upright(film, look, atypicality, gate, atypicality_of)
    lateral = _is_lateral(film.tags.get("view", ""))
    if atypicality > gate.threshold or (_doubtful(atypicality, gate) and look.odd):
        detail = f"unlike the training films by {atypicality / gate.threshold:.2f} times the limit"
        raise FilmRefusedError(Refusal.LATERAL if lateral else Refusal.NOT_A_CHEST_FILM, detail)
    if look.cut > 0:
        raise FilmRefusedError(Refusal.CROPPED)
    return _header(film, atypicality, gate, look)


def _age(film: Film, manifest: Manifest) -> None:
    age = years(film.tags.get("patient_age", ""))
    if manifest.population_ages is None or age is None:
        return
    low, high = manifest.population_ages
    # Whole years, as people count them: somebody is 17 until the 18th birthday.
    if not low <= age < high + 1:
        raise FilmRefusedError(
            Refusal.OUTSIDE_POPULATION, f"its header says {age:.3g} years, the model is for {low:g} to {high:g}"
        )


def years(age: str) -> float | None:
    """Patient's Age (DICOM AS: 034Y, 006M, 003W, 010D) in years; None where it says nothing."""
    return int(age[:3]) * _DAYS[age[3]] if len(age) == 4 and age[:3].isdigit() and age[3] in _DAYS else None


def _upright(film: Film, look: Framing, atypicality: float, gate: Gate, atypicality_of: AtypicalityOf) -> None:
    """Refuse a film that both witnesses find more like a chest once it is turned or its greys are swapped.

    There is no limit to tune: each compares the film with itself. What stays unlike a chest is no turned chest.
    """
    if look.nearest == AS_GIVEN:
        return
    if atypicality_of(_changed(film, look.nearest)) < min(atypicality, gate.threshold):
        if look.nearest == INVERTED:
            raise FilmRefusedError(Refusal.INVERTED)
        raise FilmRefusedError(Refusal.TURNED, f"more like a chest when {look.nearest}")


def _changed(film: Film, change: str) -> NDArray[np.uint8]:
    left, top, width, height = film.box
    proper = CHANGED[change](film.image[:, top : top + height, left : left + width])
    image = np.zeros_like(film.image)
    rows, columns = proper.shape[1:]
    top, left = (image.shape[1] - rows) // 2, (image.shape[2] - columns) // 2
    image[:, top : top + rows, left : left + columns] = proper
    return image


def _doubtful(atypicality: float, gate: Gate) -> bool:
    return gate.doubt is not None and atypicality > gate.doubt


def _is_lateral(view: str) -> bool:
    """Whether a word of a view says so; lateral decubitus is frontal."""
    words = re.findall(r"[A-Z]+", view.upper())
    lateral = any(word in LATERAL_VIEWS or word.startswith("LAT") for word in words)
    return lateral and not any(word.startswith("DEC") for word in words)


def _is_oblique(view: str) -> bool:
    return any(word in OBLIQUE_VIEWS or word.startswith("OBL") for word in re.findall(r"[A-Z]+", view.upper()))


def _header(film: Film, atypicality: float, gate: Gate, look: Framing) -> str:
    """What the header says against the picture: refuse where the picture leaves doubt too, else say so.

    A lateral view has to look more typical than half of the validation films to be taken for a mislabelled frontal one:
    how well the picture alone tells laterals could not be measured, since no lateral film was at hand.
    """
    view, modality, part = (film.tags.get(key, "") for key in ("view", "modality", "body_part"))
    if _is_lateral(view):
        if gate.typical is None or atypicality > gate.typical or look.odd:
            raise FilmRefusedError(Refusal.LATERAL, f"its header says {view}")
        return f"its header says lateral ({view}), the picture looks frontal: look at it"
    if _is_oblique(view):
        said = f"its header says oblique ({view})"
    elif modality in OTHER_MODALITIES:
        said = f"its header says {modality}"
    elif part and not any(word in part for word in CHEST_WORDS):
        said = f"its header says {part}"
    elif film.tags.get("intent") == RAW or "FOR PROCESSING" in film.tags.get("sop_class", "").upper():
        return "its header says raw detector values (for processing), which the model never saw: send the film for presentation"
    else:
        return ""
    if _doubtful(atypicality, gate) or look.odd:
        raise FilmRefusedError(Refusal.NOT_A_CHEST_FILM, said)
    return f"{said}, the picture looks like a chest film: look at it"
