"""Expected calibration error, its interval, and what it would be by chance or at another prevalence."""

import numpy as np
import pytest

from cxredge.compress.calibrate import platt
from cxredge.errors import TooFewFilmsError
from cxredge.metrics import patient_draws
from cxredge.train.calibration import at_share, calibration_errors
from cxredge.train.curves import calibration_error


def test_error_of_a_case_done_by_hand() -> None:
    # Two bins of two films: |0.15 - 1/2| and |0.75 - 1|, halved and added.
    labels, told = np.array([1.0, 0.0, 1.0, 1.0, np.nan]), np.array([0.2, 0.1, 0.9, 0.6, 0.5])
    (found,), mean = calibration_errors(labels[:, None], told[:, None], np.arange(5), bins=2, samples=50)
    assert found.error.value == pytest.approx((0.35 + 0.25) / 2)
    assert mean.error.value == found.error.value
    assert found.error.low <= found.error.value <= found.error.high


def test_the_interval_comes_from_draws_of_whole_patients() -> None:
    rng = np.random.default_rng(0)
    told = rng.random(300)
    labels = (rng.random(300) < told**2).astype(float)
    patients = np.repeat(np.arange(100), 3)
    (found,), _ = calibration_errors(labels[:, None], told[:, None], patients, samples=40)
    drawn = []
    cells = np.array_split(np.argsort(told), 10)
    for counts in patient_draws(patients, 40, 0).astype(float):
        assert all(len(set(counts[patients == patient])) == 1 for patient in range(100))
        off = sum(abs(sum(counts[film] * (told[film] - labels[film]) for film in cell)) for cell in cells)
        drawn.append(off / counts.sum())
    assert found.error.high == pytest.approx(np.percentile(drawn, 97.5))
    assert found.error.low == pytest.approx(2 * found.error.value - found.error.high)


def test_right_probabilities_show_no_more_than_chance_and_wrong_ones_do() -> None:
    rng = np.random.default_rng(1)
    told = rng.random((800, 2))
    labels = (rng.random((800, 2)) < np.column_stack([told[:, 0], told[:, 1] ** 3])).astype(float)
    (right, wrong), mean = calibration_errors(labels, told, np.arange(800), samples=200)
    assert right.error.low == 0
    assert right.error.value < 2 * right.by_chance
    # The integral of p - p^3 over [0, 1] is 1/4.
    assert wrong.error.low < 0.25 < wrong.error.high
    assert wrong.error.low > 3 * wrong.by_chance
    assert mean.error.value == pytest.approx((right.error.value + wrong.error.value) / 2)
    assert mean.error.value < mean.error.high <= (right.error.high + wrong.error.high) / 2


def test_a_finding_that_no_film_is_labelled_for_has_no_error() -> None:
    with pytest.raises(TooFewFilmsError):
        calibration_errors(np.full((4, 1), np.nan), np.full((4, 1), 0.5), np.arange(4), samples=10)


def test_probabilities_moved_to_another_share_are_right_there() -> None:
    assert at_share(np.array([0.5]), 0.5, 0.2) == pytest.approx([0.2])
    assert at_share(np.array([0.0, 1.0]), 0.5, 0.2) == pytest.approx([0, 1])
    rng = np.random.default_rng(2)
    sick = rng.random(100_000) < 0.5
    score = rng.normal(size=100_000) + sick
    told = 1 / (1 + np.exp(-(score - 0.5)))
    # Of the sick only a quarter stay: four in five films are without it.
    kept = ~sick | (rng.random(100_000) < 0.25)
    assert calibration_error(sick[kept], told[kept]) > 0.1
    assert calibration_error(sick[kept], at_share(told[kept], 0.5, 0.2)) < 0.01


@pytest.mark.parametrize("shift", [0.0, 2.3, -3.0])
@pytest.mark.parametrize(("share", "films"), [(0.01, 1000), (0.03, 328)])
def test_probabilities_come_down_to_the_share_of_positives_whatever_the_loss_made_of_them(
    share: float, films: int, shift: float
) -> None:
    """Weights of 10 for positive films move logits by log(10)."""
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(40):
        labels = rng.random((films, 1)) < share
        logits = 1.5 * (rng.normal(size=labels.shape) + 1.5 * labels) - 1.125 + np.log(share / (1 - share)) + shift
        if labels.sum() >= 5:
            scale, bias = platt(labels.astype(float), logits)
            ratios.append((1 / (1 + np.exp(-(scale * logits + bias)))).mean() / labels.mean())
    # Platt's targets add 2 / (P + 2) films to P positive ones.
    assert min(ratios) >= 1
    assert max(ratios) < 1.07


def test_findings_without_positives_or_without_a_mistake_are_calibrated_too() -> None:
    x = np.random.default_rng(0).normal(size=300)
    apart = np.where(x > 1.5, 9.0, -9.0)
    labels = np.stack([np.zeros(300), np.ones(300), x > 1.5, np.full(300, np.nan), x > 0], axis=1)
    logits = np.stack([x, x, apart, x, 400 * x + 900], axis=1)
    scale, bias = platt(labels, logits)
    assert np.isfinite([scale, bias]).all()
    assert (scale > 0).all()
    means = (1 / (1 + np.exp(-np.clip(scale * logits + bias, -500, 500)))).mean(0)
    assert 0 < means[0] < 0.005
    assert 0.995 < means[1] < 1
    assert means[2] == pytest.approx(labels[:, 2].mean(), abs=0.004)
    assert (scale[3], bias[3]) == (1, 0)
    assert means[4] == pytest.approx(labels[:, 4].mean(), abs=0.004)
