"""The figures that decide, against their definitions."""

import itertools
import tracemalloc

import numpy as np
import pytest

from cxredge.errors import NotFiniteError, TooFewFilmsError
from cxredge.metrics import (
    Interval,
    at_threshold,
    auroc,
    auroc_drift,
    auroc_interval,
    in_words,
    mean_auroc_interval,
    patient_draws,
    proportion,
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
    drift = auroc_drift(labels, one, one.copy())
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


@pytest.fixture
def followed() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """150 patients, a third of them ill in most of their 1 to 12 films, and what two models say: films of one patient are alike."""
    rng = np.random.default_rng(11)
    films = rng.integers(1, 13, size=150)
    owner = np.repeat(np.arange(150), films)
    ill = (rng.random(150) < 0.33)[owner]
    labels = np.where(ill, rng.random(len(owner)) < 0.8, rng.random(len(owner)) < 0.05).astype(float)
    one = rng.normal(size=150)[owner] + 0.4 * rng.normal(size=len(owner)) + 1.0 * labels
    other = one + 0.5 * rng.normal(size=150)[owner] + 0.1 * rng.normal(size=len(owner))
    return labels, one, other, np.char.add("p", owner.astype(str))


def test_intervals_by_patient_agree_with_the_bootstrap_over_patients(followed: tuple[np.ndarray, ...]) -> None:
    labels, one, other, patients = followed
    drawn = mean_auroc_interval(labels[:, None], one[:, None], patients, samples=4000)
    found = auroc_interval(labels, one, patients)
    assert found.low == pytest.approx(drawn.low, abs=0.012)
    assert found.high == pytest.approx(drawn.high, abs=0.012)
    paired = mean_auroc_interval(labels[:, None], other[:, None], patients, baseline=one[:, None], samples=4000)
    drift = auroc_drift(labels, one, other, patients)
    assert drift.high - drift.low == pytest.approx(paired.high - paired.low, rel=0.1)
    # What taking them for independent hides: a third of the width and more.
    for by_patient, by_film in ((found, auroc_interval(labels, one)), (drift, auroc_drift(labels, one, other))):
        assert by_patient.value == by_film.value
        assert by_patient.high - by_patient.low > 1.5 * (by_film.high - by_film.low)


def test_with_one_film_each_intervals_by_patient_are_delongs(scored: tuple[np.ndarray, ...]) -> None:
    labels, one, other = scored
    patients = np.random.default_rng(0).permutation(400)
    for by_patient, by_film in (
        (auroc_interval(labels, one, patients), auroc_interval(labels, one)),
        (auroc_drift(labels, one, other, patients), auroc_drift(labels, one, other)),
    ):
        assert (by_patient.low, by_patient.high) == pytest.approx((by_film.low, by_film.high), abs=1e-12)


def test_findings_that_one_patient_alone_has_prove_next_to_nothing() -> None:
    labels = np.r_[np.ones(20), np.zeros(20)]
    scores = np.r_[np.arange(20) + 5.0, np.arange(20)]
    everyone = np.r_[np.zeros(20), np.arange(1, 21)]
    found = auroc_interval(labels, scores, everyone)
    assert found.high - found.low > 0.7
    apart = auroc_interval(labels, scores + 100 * labels, everyone)
    assert (apart.value, apart.low) == (1.0, 0.0)


def test_a_share_among_films_of_few_patients_is_known_less_well(followed: tuple[np.ndarray, ...]) -> None:
    _, one, _, patients = followed
    hits = one > 0
    rng = np.random.default_rng(3)
    groups = [hits[patients == patient] for patient in np.unique(patients)]
    draws = [np.concatenate([groups[i] for i in rng.integers(150, size=150)]).mean() for _ in range(3000)]
    low, high = np.percentile(draws, (2.5, 97.5))
    found, alone = proportion(hits, patients), proportion(hits)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)
    assert found.value == alone.value == hits.mean()
    assert found.high - found.low > 1.5 * (alone.high - alone.low)
    assert alone == wilson(int(hits.sum()), len(hits))
    # Films that agree within no patient are no more than films, and sixty films of one patient are one.
    assert proportion(np.tile([True, False], 60), np.repeat(np.arange(60), 2)) == wilson(60, 120)
    assert proportion(np.ones(60, bool), np.zeros(60)) == wilson(1, 1)


def test_an_operating_points_intervals_are_by_patient_too(followed: tuple[np.ndarray, ...]) -> None:
    labels, one, _, patients = followed
    labels = labels.copy()
    labels[:5] = np.nan
    scores = 1 / (1 + np.exp(-one))
    for point in (
        lambda whose: sensitivity_point(labels, scores, patients=whose),
        lambda whose: specificity_point(labels, scores, patients=whose),
        lambda whose: youden_point(labels, scores, whose),
    ):
        by_patient, by_film = point(patients), point(None)
        assert by_patient.threshold == by_film.threshold
        # Summed in another order, which some processors round otherwise.
        assert by_patient.sensitivity.value == pytest.approx(by_film.sensitivity.value, abs=1e-12)
        for name in ("sensitivity", "specificity"):
            wide, narrow = getattr(by_patient, name), getattr(by_film, name)
            assert wide.high - wide.low > narrow.high - narrow.low


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


def test_no_interval_is_certain_where_few_patients_have_a_film_of_each_kind() -> None:
    # Every patient's ill film lies just above the other one, so that what they add to the variance cancels.
    for count in (2, 3, 6):
        patients = np.repeat(np.arange(count), 2)
        labels, scores = np.tile([1.0, 0.0], count), patients + np.tile([0.5, 0.0], count)
        turned = patients + np.tile([0.0, 0.5], count)
        area = auroc_interval(labels, scores, patients)
        # Birnbaum & Klose 1957, on the logit scale.
        spread = 1.96 * np.sqrt(area.value * (1 - area.value) / count) / (area.value * (1 - area.value))
        assert np.log(area.high / (1 - area.high)) - np.log(area.value / (1 - area.value)) == pytest.approx(
            spread, rel=1e-3
        )
        drift = auroc_drift(labels, scores, turned, patients)
        assert drift.low < drift.value - 0.3
        assert drift.value + 0.3 < drift.high
    # All right and all wrong: a difference as large as can be, of ten films.
    ten = np.repeat([1.0, 0.0], 5)
    turned_round = auroc_drift(ten, ten, 1 - ten)
    assert (turned_round.value, turned_round.low, turned_round.high > 0) == (-1, -1, True)
    alike = auroc_interval(np.tile([1.0, 0.0], 3), np.full(6, 0.3))
    assert (alike.value, alike.low < 0.1, alike.high > 0.9) == (0.5, True, True)


def test_two_models_a_hair_apart_on_many_films_are_told_to_be() -> None:
    labels = np.r_[np.ones(20_000), np.zeros(20_000)]
    one = np.random.default_rng(0).permutation(40_000).astype(float)
    other = one.copy()
    swapped = [int(np.flatnonzero(one == rank)[0]) for rank in np.arange(1, 40_000) if abs(rank - 20_000) < 3]
    other[swapped] = one[swapped[::-1]]
    drift = auroc_drift(labels, one, other)
    assert 0 < drift.high - drift.low < 1e-6


def test_mean_intervals_hold_their_estimate_and_are_wide_where_one_patient_tells() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        count = int(rng.integers(1, 5))
        labels, patients = np.tile([1.0, 0.0], count)[:, None], np.repeat(np.arange(count), 2)
        scores, other = rng.normal(size=(2, 2 * count, 1))
        for baseline in (None, other):
            found = mean_auroc_interval(labels, scores, patients, baseline=baseline, samples=40)
            assert found.low <= found.value <= found.high
            # Models that order a patient's two films alike differ by nothing.
            if count == 1 and (baseline is None or found.value):
                assert found.high - found.low >= 1
    alike = mean_auroc_interval(labels, scores, patients, baseline=scores.copy(), samples=40)
    assert alike == Interval(0, 0, 0)


def test_a_mean_over_findings_that_one_patient_each_has_is_no_surer_than_they_are() -> None:
    """No draw tells how another patient would have fared; each finding's own interval says so."""
    rng, held, draws = np.random.default_rng(1), 0, 60
    for _ in range(draws):
        labels = np.zeros((60, 3))
        labels[rng.choice(60, 3, replace=False), range(3)] = 1
        scores, other = rng.normal(size=(60, 3)) + labels, rng.normal(size=(60, 3)) + labels
        found = mean_auroc_interval(labels, scores, np.arange(60), samples=200)
        held += found.low <= 0.760 <= found.high  # of two normal distributions that lie one apart
        assert 0 <= found.low <= found.value <= found.high <= 1
        apart = mean_auroc_interval(labels, scores, np.arange(60), baseline=other, samples=200)
        assert -1 <= apart.low <= apart.high - 0.9 <= 0.1
    assert held >= 0.95 * draws


def test_the_draws_of_many_patients_take_no_more_memory_than_they_are_large() -> None:
    tracemalloc.start()
    drawn = patient_draws(np.arange(20_000), 200, 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (drawn.sum(1) == 20_000).all()
    assert peak < 1.5 * drawn.nbytes


def test_a_drift_of_which_the_films_show_nothing_is_as_sure_as_there_are_films() -> None:
    """Both models tell the kinds apart, or order all films alike: of a handful of films that is no proof of being alike."""
    two = auroc_drift(np.array([1.0, 0.0]), np.array([0.9, 0.2]), np.array([0.8, 0.3]))
    assert two == Interval(0, -0.5, 0.5)
    labels = np.repeat([1.0, 0.0], [3, 9])
    reversed_within = np.r_[12:9:-1, 9:0:-1].astype(float)
    few = auroc_drift(labels, np.r_[10:13, 1:10].astype(float), reversed_within)
    assert few.value == 0
    assert few.high > 0.5
    # Copies of one patient's film are no more films.
    again = auroc_drift(
        np.tile(labels, 20), np.tile(reversed_within, 20), np.tile(2 * reversed_within, 20), np.tile(np.arange(12), 20)
    )
    assert again.high == pytest.approx(1 / 240)
    # Many films, of which neighbours of one kind changed places: next to nothing.
    many = np.repeat([0.0, 1.0], 500)
    scores = np.arange(1000.0)
    other = scores.copy()
    other[[10, 11]] = other[[11, 10]]
    assert 0 < auroc_drift(many, scores, other).high < 2e-5
    # Often enough the interval holds the truth where models differ.
    rng, missed = np.random.default_rng(0), 0
    for _ in range(400):
        told = rng.normal(size=(2, 12)) + np.outer([2.66, 1.19], labels)
        found = auroc_drift(labels, told[0], told[1])
        missed += not found.low <= -0.17 <= found.high
    assert missed < 0.12 * 400


@pytest.fixture
def hospitals() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two hospitals, one of which is ill four times as often; scores that know the hospital and little of the disease."""
    rng = np.random.default_rng(5)
    sources = np.repeat(["one", "other"], 300)
    labels = (rng.random(600) < np.where(sources == "one", 0.6, 0.15)).astype(float)
    scores = rng.normal(size=600) + 0.3 * labels + 2.0 * (sources == "one")
    return labels, scores, sources, np.char.add(sources, rng.integers(0, 150, 600).astype(str))


def test_what_several_sources_label_is_ranked_within_each(hospitals: tuple[np.ndarray, ...]) -> None:
    labels, scores, sources, patients = hospitals
    each = [auroc_interval(labels[own], scores[own], patients[own]) for own in (sources == "one", sources == "other")]
    found, pooled = auroc_interval(labels, scores, patients, sources), auroc_interval(labels, scores, patients)
    assert found.value == pytest.approx(np.mean([one.value for one in each]))
    assert found.high < pooled.low
    drawn = mean_auroc_interval(labels[:, None], scores[:, None], patients, sources=sources, samples=3000)
    assert drawn.value == pytest.approx(found.value)
    assert (drawn.low, drawn.high) == pytest.approx((found.low, found.high), abs=0.012)
    told = scores - 2.0 * (sources == "one")
    drift = auroc_drift(labels, scores, told, patients, sources)
    assert drift.value == pytest.approx(0, abs=1e-12)
    assert auroc_drift(labels, scores, told, patients).high < 0
    # A source that does not label the finding, or one alone, changes nothing.
    unknown = np.where(sources == "one", labels, np.nan)
    assert auroc_interval(unknown, scores, patients, sources) == auroc_interval(unknown, scores, patients)


def test_sources_that_are_all_ill_or_all_well_have_no_area(hospitals: tuple[np.ndarray, ...]) -> None:
    _, scores, sources, patients = hospitals
    labels = (sources == "one").astype(float)
    for figure in (
        lambda: auroc_interval(labels, scores, patients, sources),
        lambda: mean_auroc_interval(labels[:, None], scores[:, None], patients, sources=sources, samples=10),
    ):
        with pytest.raises(TooFewFilmsError, match="needs both"):
            figure()


def test_a_share_short_of_all_or_of_none_does_not_read_so() -> None:
    for share, said in (
        (Interval(0.842, 0.780, 0.891), "84 (78-89)"),
        (Interval(0.9996, 0.9990, 0.9998), "99.96 (99.90-99.98)"),
        (Interval(0.003, 0.002, 0.004), "0.3 (0.2-0.4)"),
        # An end may reach all the way.
        (Interval(0.6, 0.001, 0.999), "60 (0-100)"),
        (Interval(1.0, 0.9996, 1.0 - 1e-15), "100.00 (99.96-100.00)"),
        (Interval(1.0, 0.97, 1.0), "100 (97-100)"),
    ):
        assert in_words(share, whole=100) == said.replace("-", "\N{EN DASH}")
    assert in_words(Interval(0.9996, 0.9990, 0.9998), least=3) == "0.9996 (0.9990\N{EN DASH}0.9998)"
