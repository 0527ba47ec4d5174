"""The statistics behind the reports, against worked examples that others published."""

import csv
from pathlib import Path

import numpy as np
import pytest

from cxredge.benchmarks.compare import ratio_of_medians
from cxredge.benchmarks.early_stopping import discarded, estimate
from cxredge.benchmarks.measure import latency
from cxredge.metrics import Z95, auroc, auroc_drift, mean_auroc_interval

HERE = Path(__file__).parent


@pytest.fixture
def ovarian() -> dict[str, np.ndarray]:
    """DeLong, DeLong & Clarke-Pearson, Biometrics 44 (1988): 43 patients with ovarian cancer and all three tests, as tabled in
    the SAS/STAT User's Guide, LOGISTIC procedure, "Comparing Receiver Operating Characteristic Curves". Event: popind = 0."""
    with (HERE / "delong-1988.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    return {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}


def test_delong_gives_the_published_areas_and_contrasts(ovarian: dict[str, np.ndarray]) -> None:
    event = 1 - ovarian["popind"]
    albumin, protein, score = -ovarian["albumin"], -ovarian["total_protein"], ovarian["kg_score"]
    assert len(event) == 43
    assert [round(auroc(event, test), 4) for test in (albumin, score, protein)] == [0.7366, 0.7258, 0.6478]
    # Published: difference, standard error, 95 % limits, against the K-G score.
    for test, published in (
        (albumin, (0.0108, 0.0953, -0.1761, 0.1976)),
        (protein, (-0.0780, 0.1046, -0.2830, 0.1271)),
    ):
        found = auroc_drift(event, score, test)
        error = (found.high - found.low) / 2 / Z95
        assert (found.value, error, found.low, found.high) == pytest.approx(published, abs=6e-5)


def test_delong_and_a_bootstrap_agree_within_two_thousandths() -> None:
    """On as many films as the published test part here, and models as close as a compressed one is to its parent."""
    rng = np.random.default_rng(5)
    labels = (rng.random(1024) < 0.2).astype(float)
    full = rng.normal(size=1024) + labels
    small = full + 0.15 * rng.normal(size=1024)
    drift = auroc_drift(labels, full, small)
    drawn = mean_auroc_interval(labels[:, None], small[:, None], np.arange(1024), baseline=full[:, None], samples=2000)
    assert drawn.value == pytest.approx(drift.value, abs=1e-12)
    assert abs(drawn.low - drift.low) <= 0.002
    assert abs(drawn.high - drift.high) <= 0.002


@pytest.mark.parametrize(
    ("queries", "aside"),
    # Of published single-stream runs: "Processed at least 64 queries (2048). Would discard 172 highest latency queries."
    [(2048, 172), (2116, 178), (2145, 181), (7469, 685), (79944, 7796)],
)
def test_early_stopping_sets_aside_as_many_queries_as_loadgen(queries: int, aside: int) -> None:
    found = discarded(queries, 0.90)
    assert found is not None
    assert found - 1 == aside


def test_early_stopping_claims_nothing_below_the_published_minimum() -> None:
    assert discarded(63, 0.90) is None
    assert discarded(64, 0.90) == 1
    assert (discarded(661, 0.99), discarded(662, 0.99)) == (None, 1)
    assert estimate(list(range(64)), 0.90) == 63
    assert estimate([1.0] * 10, 0.90) is None


def test_the_estimate_holds_what_it_promises() -> None:
    """In 99 of 100 runs at least nine of ten queries are no slower than it."""
    rng = np.random.default_rng(0)
    kept = [1 - np.exp(-(estimate(rng.exponential(size=256).tolist(), 0.90) or 0)) >= 0.90 for _ in range(600)]
    assert np.mean(kept) >= 0.98


def test_latency_is_taken_over_all_rounds_and_remembers_each() -> None:
    found = latency([[1.0] * 50, [3.0] * 50])
    assert (found.queries, found.p50, found.p99, found.per_round) == (100, 2.0, 3.0, [1.0, 3.0])


def test_ratio_of_medians_has_an_interval_that_knows_how_uneven_the_rounds_were() -> None:
    even = ratio_of_medians([10, 10.1, 9.9, 10, 10], [12, 12.1, 11.9, 12, 12])
    uneven = ratio_of_medians([10, 14, 8, 10, 12], [12, 9, 15, 12, 11])
    assert even.value == uneven.value == pytest.approx(1.2)
    assert even.low > 1.15
    assert uneven.low < 1 < uneven.high
