"""The figures that decide, against their definitions."""

import itertools

import numpy as np
import pytest

from cxredge.errors import NotFiniteError, TooFewFilmsError
from cxredge.metrics import (
    Interval,
    at_threshold,
    auroc,
    auroc_drift,
    auroc_interval,
    mean_auroc_interval,
    sensitivity_point,
    specificity_point,
    wilson,
    youden_point,
)


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of 400 films and the scores of two related models, with ties."""
    rng = np.random.default_rng(7)
    labels = (rng.random(400) < 0.2).astype(float)
    one = np.round(rng.normal(size=400) + 1.1 * labels, 1)
    other = np.round(one + 0.4 * rng.normal(size=400), 1)
    return labels, one, other


def by_definition(labels: np.ndarray, scores: np.ndarray) -> float:
    pairs = itertools.product(scores[labels == 1], scores[labels == 0])
    return float(np.mean([(a > b) + 0.5 * (a == b) for a, b in pairs]))


def test_auroc_is_the_share_of_pairs_in_order(scored: tuple[np.ndarray, ...]) -> None:
    labels, one, _ = scored
    assert auroc(labels, one) == pytest.approx(by_definition(labels, one), abs=1e-12)


def test_auroc_leaves_unknown_labels_out(scored: tuple[np.ndarray, ...]) -> None:
    labels, one, _ = scored
    with_unknown = np.r_[labels, np.nan, np.nan]
    assert auroc(with_unknown, np.r_[one, 99.0, -99.0]) == auroc(labels, one)


@pytest.mark.parametrize("labels", [[0.0, 0.0], [1.0, 1.0], [np.nan, 1.0]])
def test_auroc_refuses_films_of_one_kind(labels: list[float]) -> None:
    with pytest.raises(TooFewFilmsError, match="needs both"):
        auroc(np.array(labels), np.array([0.1, 0.2]))


def test_delong_interval_agrees_with_the_bootstrap(scored: tuple[np.ndarray, ...]) -> None:
    labels, one, _ = scored
    rng = np.random.default_rng(0)
    draws = [auroc(labels[rows], one[rows]) for rows in rng.integers(400, size=(2000, 400))]
    low, high = np.percentile(draws, (2.5, 97.5))
    found = auroc_interval(labels, one)
    assert found.low == pytest.approx(low, abs=0.01)
    assert found.high == pytest.approx(high, abs=0.01)


def test_paired_drift_agrees_with_the_bootstrap_and_is_narrower_than_unpaired(scored: tuple[np.ndarray, ...]) -> None:
    labels, one, other = scored
    rng = np.random.default_rng(0)
    draws = [auroc(labels[r], other[r]) - auroc(labels[r], one[r]) for r in rng.integers(400, size=(2000, 400))]
    drift = auroc_drift(labels, one, other)
    assert drift.value == pytest.approx(auroc(labels, other) - auroc(labels, one), abs=1e-12)
    assert (drift.high - drift.low) / 2 == pytest.approx(1.96 * np.std(draws), abs=0.003)
    alone = auroc_interval(labels, one)
    assert drift.high - drift.low < alone.high - alone.low


def test_drift_of_a_model_against_itself_is_nothing(scored: tuple[np.ndarray, ...]) -> None:
    labels, one, _ = scored
    drift = auroc_drift(labels, one, 3 * one - 1)
    assert (drift.value, drift.low, drift.high) == (0, 0, 0)


def test_perfect_order_still_has_an_interval() -> None:
    found = auroc_interval(np.r_[np.zeros(20), np.ones(10)], np.arange(30.0))
    assert found.value == found.high == 1
    assert found.low == pytest.approx(0.7)


def test_mean_interval_draws_films_of_one_patient_together(scored: tuple[np.ndarray, ...]) -> None:
    labels, one, other = scored
    doubled = np.r_[labels, labels][:, None]
    scores = np.r_[one, one][:, None]
    apart = mean_auroc_interval(doubled, scores, np.arange(800), samples=400)
    together = mean_auroc_interval(doubled, scores, np.tile(np.arange(400), 2), samples=400)
    assert apart.value == together.value
    # The same film twice is no more evidence than once: the honest interval is wider by the square root of two.
    assert (together.high - together.low) / (apart.high - apart.low) == pytest.approx(np.sqrt(2), rel=0.15)
    paired = mean_auroc_interval(
        doubled, np.r_[other, other][:, None], np.tile(np.arange(400), 2), baseline=scores, samples=400
    )
    assert paired.value == pytest.approx(auroc(labels, other) - auroc(labels, one))


def test_wilson_interval_matches_a_published_example() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857, table I: 81 of 263.
    found = wilson(81, 263)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)


def test_operating_points_do_what_they_say(scored: tuple[np.ndarray, ...]) -> None:
    labels, one, _ = scored
    scores = 1 / (1 + np.exp(-one))
    sensitive, specific, best = (
        point(labels, scores) for point in (sensitivity_point, specificity_point, youden_point)
    )
    assert sensitive.sensitivity.value >= 0.90
    assert specific.specificity.value >= 0.95
    for lower in np.unique(scores)[np.unique(scores) < specific.threshold][-1:]:
        assert at_threshold(labels, scores, lower).specificity.value < 0.95
    every = [at_threshold(labels, scores, t) for t in np.unique(scores)]
    assert best.sensitivity.value + best.specificity.value == pytest.approx(
        max(p.sensitivity.value + p.specificity.value for p in every)
    )
    assert best.positives == labels.sum()


def test_thresholds_survive_rounding_in_another_runtime(scored: tuple[np.ndarray, ...]) -> None:
    labels, one, _ = scored
    scores = 1 / (1 + np.exp(-one))
    for point in (sensitivity_point, specificity_point, youden_point):
        chosen = point(labels, scores)
        again = at_threshold(labels, scores.astype(np.float32).astype(np.float64), chosen.threshold)
        assert (again.sensitivity, again.specificity) == (chosen.sensitivity, chosen.specificity)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_no_figure_is_made_of_scores_that_are_no_numbers(scored: tuple[np.ndarray, ...], wrong: float) -> None:
    labels, one, other = scored
    broken = other.copy()
    broken[3] = wrong
    with pytest.raises(NotFiniteError, match="1 of 400 scores are no numbers"):
        auroc(labels, broken)
    with pytest.raises(NotFiniteError):
        auroc_drift(labels, one, broken)
    with pytest.raises(NotFiniteError):
        mean_auroc_interval(labels[:, None], one[:, None], np.arange(400), baseline=broken[:, None], samples=10)
    # Of a film without a label nothing is asked.
    labels = labels.copy()
    labels[3] = np.nan
    assert auroc(labels, broken) == pytest.approx(auroc(labels, other))


def test_few_films_told_apart_without_a_mistake_prove_little() -> None:
    labels, scores = np.array([[0.0], [0], [0], [0], [0], [1], [1], [1], [1], [1]]), np.arange(10.0)[:, None]
    for patients in (np.arange(10), np.zeros(10, int)):
        found = mean_auroc_interval(labels, scores, patients, samples=200)
        assert (found.value, found.high) == (1, 1)
        assert found.low < 0.6
    one = np.array([1.0, 0, 0, 0])
    assert auroc_drift(one, one, one) == Interval(0, 0, 0)
    turned = auroc_drift(one, one, 1 - one)
    assert (turned.value, turned.low) == (-1, -1)
