"""What gets no score, and why: changed films through the whole scanner, headers that contradict the picture, ages."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from house import EXAMPLES, FILMS
from numpy.typing import NDArray
from PIL import Image

from cxredge.bundle.manifest import Manifest
from cxredge.errors import FilmFailedError, FilmRefusedError, Refusal
from cxredge.imaging import Film, Preprocessing, read_film
from cxredge.report.advice import advice
from cxredge.scan.gate import check, years
from cxredge.scan.reading import Priority, Reading, Status
from cxredge.scan.scanner import Scanner

FILM = EXAMPLES / "00028351_000.jpg"
Picture = NDArray[np.uint8]


@pytest.fixture(scope="module")
def scanner() -> Iterator[Scanner]:
    with Scanner() as opened:
        yield opened


def read(scanner: Scanner, folder: Path, picture: NDArray[Any]) -> Reading:
    file = folder / "changed.png"
    Image.fromarray(np.ascontiguousarray(picture.astype(np.uint8))).save(file)
    return scanner.read(file)


@pytest.mark.parametrize("film", sorted((FILMS / "chestxray14/images").iterdir())[::3], ids=lambda film: film.stem)
def test_an_inverted_or_turned_film_is_refused_as_such_and_the_same_film_upright_is_not(
    scanner: Scanner, tmp_path: Path, film: Path
) -> None:
    grey = np.asarray(Image.open(film).convert("L").resize((320, 320)))
    assert read(scanner, tmp_path, grey).reason not in {Refusal.INVERTED.code, Refusal.TURNED.code}
    assert read(scanner, tmp_path, 255 - grey).reason in {Refusal.INVERTED.code, Refusal.NOT_A_CHEST_FILM.code}
    for turns in (1, 2, 3):
        turned = read(scanner, tmp_path, np.rot90(grey, turns))
        assert turned.reason in {Refusal.TURNED.code, Refusal.NOT_A_CHEST_FILM.code}


CHANGES: dict[Refusal, Callable[[Picture], NDArray[Any]]] = {
    Refusal.INVERTED: lambda film: 255 - film,
    Refusal.TURNED: lambda film: film[::-1, ::-1],
    Refusal.SATURATED: lambda film: np.where(film > 120, 255, 0),
    Refusal.COLOUR: lambda film: np.stack([film, film // 2, film // 3], 2),
    Refusal.CROPPED: lambda film: film[:115],
    Refusal.TOO_SMALL: lambda film: film[::4, ::4],
    Refusal.BLANK: lambda film: np.full_like(film, 7),
    Refusal.NOT_A_CHEST_FILM: lambda film: np.random.default_rng(0).integers(0, 256, film.shape),
}


@pytest.mark.parametrize("reason", CHANGES, ids=lambda reason: reason.code)
def test_each_reason_is_given_and_comes_with_advice(scanner: Scanner, tmp_path: Path, reason: Refusal) -> None:
    reading = read(scanner, tmp_path, CHANGES[reason](np.asarray(Image.open(FILM))))
    assert (reading.status, reading.priority) == (Status.REFUSED, Priority.REFUSED)
    assert reading.reason == reason.code, reading.detail
    assert reason.value in reading.detail
    assert len(advice(reading)) > 20
    assert not reading.probabilities


def test_every_reason_has_advice_of_its_own() -> None:
    said = [advice(Reading("x", Status.REFUSED, Priority.REFUSED, reason=reason.code)) for reason in Refusal]
    assert len(set(said)) == len(said)


def with_tags(film: Film, **tags: str) -> Film:
    return replace(film, tags=tags)


@pytest.fixture(scope="module")
def film() -> Film:
    return read_film(FILM, Preprocessing())


def gated(manifest: Manifest, **limits: float) -> Manifest:
    assert manifest.gate is not None
    return manifest.model_copy(update={"gate": manifest.gate.model_copy(update={"threshold": 2.0, **limits})})


def refusal(film: Film, distance: float, manifest: Manifest, far: Callable[[Picture], float]) -> Refusal | None:
    try:
        check(film, distance, manifest, far)
    except FilmRefusedError as refused:
        return refused.reason
    return None


def far(_image: Picture) -> float:
    return math.inf


@pytest.mark.parametrize("view", ["LL", "RL", "LATERAL", "XTABLE LATERAL", "LAT L", "LEFT LATERAL"])
def test_a_film_tagged_lateral_is_scored_only_when_the_picture_leaves_no_doubt(
    scanner: Scanner, film: Film, view: str
) -> None:
    manifest = gated(scanner.bundle.manifest, typical=1.5, doubt=1.9)
    lateral = with_tags(film, view=view)
    assert "lateral" in check(lateral, 1.4, manifest, far)
    for distance in (1.6, 2.5):
        with pytest.raises(FilmRefusedError) as refused:
            check(lateral, distance, manifest, far)
        assert refused.value.reason is Refusal.LATERAL
    assert check(film, 1.6, manifest, far) == ""
    # A bundle that does not say what is typical cannot vouch for the picture against its header.
    with pytest.raises(FilmRefusedError):
        check(lateral, 0.1, gated(scanner.bundle.manifest, typical=None, doubt=None), far)


@pytest.mark.parametrize(
    ("tag", "value"), [("modality", "CT"), ("body_part", "KNEE"), ("view", "RLO"), ("view", "LEFT ANTERIOR OBLIQUE")]
)
def test_a_header_lowers_the_doubt_a_picture_may_leave_but_refuses_nothing_alone(
    scanner: Scanner, film: Film, tag: str, value: str
) -> None:
    manifest = gated(scanner.bundle.manifest, typical=1.5, doubt=1.9)
    contradicted = with_tags(film, **{tag: value})
    assert value in check(contradicted, 1.8, manifest, far)
    with pytest.raises(FilmRefusedError) as refused:
        check(contradicted, 1.95, manifest, far)
    assert refused.value.reason is Refusal.NOT_A_CHEST_FILM
    assert check(film, 1.95, manifest, far) == ""
    assert check(with_tags(film, modality="DX", body_part="RIBCAGE", view="LLD"), 1.95, manifest, far) == ""


def test_raw_detector_values_go_to_a_person(scanner: Scanner, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(EXAMPLES / "chest-cr.dcm")
    dataset.PresentationIntentType = "FOR PROCESSING"
    dataset.save_as(tmp_path / "raw.dcm")
    reading = scanner.read(tmp_path / "raw.dcm")
    assert reading.priority in {Priority.REVIEW, Priority.URGENT}
    assert "raw detector values" in reading.note


def test_views_and_parts_that_stand_in_codes_only_are_read(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(EXAMPLES / "chest-cr.dcm")
    for keyword in ("ViewPosition", "BodyPartExamined"):
        if keyword in dataset:
            del dataset[keyword]
    for keyword, meaning in (("ViewCodeSequence", "Right anterior oblique"), ("AnatomicRegionSequence", "Lower leg")):
        code = pydicom.Dataset()
        code.CodeMeaning = meaning
        setattr(dataset, keyword, [code])
    dataset.save_as(tmp_path / "coded.dcm")
    tags = read_film(tmp_path / "coded.dcm", Preprocessing()).tags
    assert (tags["view"], tags["body_part"]) == ("RIGHT ANTERIOR OBLIQUE", "LOWER LEG")


def test_a_contradicted_film_is_at_least_for_review_and_says_why(scanner: Scanner, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(EXAMPLES / "00000041_006.dcm")
    plain = scanner.read(EXAMPLES / "00000041_006.dcm")
    dataset.Modality = "CT"
    dataset.save_as(tmp_path / "ct.dcm")
    reading = scanner.read(tmp_path / "ct.dcm")
    assert reading.status is Status.OK
    assert "its header says CT" in reading.note
    assert reading.priority is not Priority.ROUTINE
    assert reading.probabilities == plain.probabilities


def test_a_turned_film_is_refused_only_when_both_witnesses_agree(scanner: Scanner, film: Film) -> None:
    manifest = gated(scanner.bundle.manifest)
    inverted = replace(film, image=255 - film.image, coarse=255 - film.coarse)
    assert refusal(inverted, 1.6, manifest, lambda _image: 1.5) is Refusal.INVERTED
    # The network does not find it more like a chest once inverted.
    assert refusal(inverted, 1.6, manifest, lambda _image: 1.7) is not Refusal.INVERTED
    # What stays unlike a chest when inverted is no inverted chest.
    assert refusal(inverted, 2.9, manifest, lambda _image: 2.5) is Refusal.NOT_A_CHEST_FILM
    # The coarse picture of a film as it should be suspects nothing, whatever the network would say.
    assert refusal(film, 1.6, manifest, lambda _image: 0.1) is None


def test_the_second_witness_sees_the_film_as_it_would_be_upright(scanner: Scanner, film: Film) -> None:
    seen: list[Picture] = []

    def look(image: Picture) -> float:
        seen.append(image)
        return 0.0

    turned = replace(film, image=film.image[:, ::-1, ::-1].copy(), coarse=film.coarse[::-1, ::-1])
    with pytest.raises(FilmRefusedError):
        check(turned, 1.6, gated(scanner.bundle.manifest), look)
    np.testing.assert_array_equal(seen[0], film.image)


@pytest.mark.parametrize("distance", [math.nan, math.inf, None])
def test_without_a_distance_no_film_passes(scanner: Scanner, film: Film, distance: float | None) -> None:
    with pytest.raises(FilmFailedError):
        check(film, distance, scanner.bundle.manifest, far)


@pytest.mark.parametrize(
    ("age", "inside"),
    [("017Y", True), ("018Y", False), ("003D", True), ("011M", True), ("", True), ("080Y", False), ("NONE", True)],
)
def test_a_patient_outside_the_models_ages_gets_no_score(scanner: Scanner, film: Film, age: str, inside: bool) -> None:
    manifest = gated(scanner.bundle.manifest).model_copy(update={"population_ages": (0, 17)})
    if inside:
        assert check(with_tags(film, patient_age=age), 1.5, manifest, far) == ""
    else:
        with pytest.raises(FilmRefusedError) as refused:
            check(with_tags(film, patient_age=age), 1.5, manifest, far)
        assert refused.value.reason is Refusal.OUTSIDE_POPULATION
    # A model that declares no range is for any age.
    assert check(with_tags(film, patient_age=age), 1.5, gated(scanner.bundle.manifest), far) == ""


def test_dicom_ages_are_in_years() -> None:
    assert years("034Y") == 34
    assert years("006M") == 0.5
    assert years("052W") == pytest.approx(1, abs=0.01)
    assert years("") is years("34") is years("ABCY") is None
