"""Cluster-robust intervals: reference software, symmetries, coverage, degenerate input."""

import math

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from scipy import stats
from statsmodels.api import OLS

from tuneproof.analysis.intervals import (
    Estimate,
    cluster_robust,
    estimate,
    interval_of,
    needed_items,
)

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

POINTS = (-4.0, 4.0)


@st.composite
def studies(draw: st.DrawFn) -> tuple[Floats, Codes]:
    """Differences of 1 to 5 point scores in 10 to 25 clusters of unequal sizes, not all equal."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=10, max_size=25))
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    grid = st.integers(-40, 40).map(lambda tenths: tenths / 10)
    differences = draw(hnp.arrays(np.float64, len(clusters), elements=grid))
    differences[0] = differences[1] + 1.0
    return differences, clusters.astype(np.int64)


def wide(found: Estimate) -> tuple[float, float]:
    interval = interval_of(found, 0.95, None)
    assert interval is not None
    return interval.low, interval.high


@given(
    hnp.arrays(np.float64, st.integers(10, 60), elements=st.integers(-40, 40).map(lambda v: v / 7))
)
def test_single_item_clusters_give_the_paired_t_test(differences: Floats) -> None:
    differences[0] = differences[1] + 1.0
    found = estimate(differences, np.arange(len(differences)))
    theirs = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
    assert wide(found) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@given(studies())
@settings(deadline=None)
def test_equals_a_regression_on_a_constant_with_clustered_errors(
    study: tuple[Floats, Codes],
) -> None:
    # statsmodels' corrections by default: G/(G-1) · (n-1)/(n-1), and t with G - 1 for use_t.
    differences, clusters = study
    fitted = OLS(differences, np.ones(len(differences))).fit(
        cov_type="cluster",
        cov_kwds={"groups": clusters, "use_correction": True, "df_correction": True},
        use_t=True,
    )
    found = estimate(differences, clusters)
    assert found.difference == pytest.approx(fitted.params[0], abs=1e-9)
    if found.standard_error:  # residual sums that all cancel leave no variance, see below
        assert found.standard_error == pytest.approx(fitted.bse[0], abs=1e-9)
        assert wide(found) == pytest.approx(tuple(fitted.conf_int(0.05)[0]), abs=1e-9)


@given(studies(), st.integers(-20, 20), st.integers(1, 9))
def test_shift_scale_and_sign(study: tuple[Floats, Codes], shift: int, scale: int) -> None:
    differences, clusters = study
    found = estimate(differences, clusters)
    if not found.standard_error:
        return
    low, high = wide(found)
    moved = estimate(differences + shift, clusters)
    assert wide(moved) == pytest.approx((low + shift, high + shift), abs=1e-9)
    grown = estimate(differences * scale, clusters)
    assert wide(grown) == pytest.approx((low * scale, high * scale), abs=1e-9)
    assert wide(estimate(-differences, clusters)) == pytest.approx((-high, -low), abs=1e-9)


@given(studies(), st.randoms(use_true_random=False))
def test_order_of_items_and_names_of_clusters_do_not_matter(
    study: tuple[Floats, Codes], random: object
) -> None:
    differences, clusters = study
    order = np.random.default_rng(7).permutation(len(differences))
    found = estimate(differences, clusters)
    other = estimate(differences[order], 1000 - 3 * clusters[order])
    assert other.standard_error == pytest.approx(found.standard_error, abs=1e-9)
    assert other.clusters == found.clusters


@pytest.mark.parametrize(("clusters", "correlation"), [(12, 0.4), (40, 0.4), (40, 0.0)])
def test_intervals_cover_the_truth_as_often_as_they_say(clusters: int, correlation: float) -> None:
    random = np.random.default_rng(20240611)
    sizes = 1 + np.arange(clusters) % 4
    codes = np.repeat(np.arange(clusters), sizes)
    rounds = 2000
    shared = random.normal(size=(rounds, clusters))[:, codes]
    own = random.normal(size=(rounds, len(codes)))
    truth = 0.3
    drawn = truth + math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own
    mean, variance = cluster_robust(drawn, codes)
    reach = stats.t.ppf(0.975, clusters - 1) * np.sqrt(variance)
    covered = float(np.mean(np.abs(mean - truth) <= reach))
    # The sandwich falls a little short with a dozen unequal clusters; the planned floor is .93.
    expected = 0.95 if clusters >= 30 else 0.94
    assert abs(covered - expected) <= 3 * math.sqrt(expected * (1 - expected) / rounds)
    # Ignoring the clusters must show, or the simulation could not have found a defect.
    if correlation:
        naive = stats.t.ppf(0.975, len(codes) - 1) * drawn.std(axis=1, ddof=1)
        naive /= math.sqrt(len(codes))
        assert float(np.mean(np.abs(mean - truth) <= naive)) < 0.90


def test_equal_differences_give_no_interval_of_no_width() -> None:
    # 0 of 60 clusters differ: p <= 1 - .025^(1/60) = .0596, each by 4 points at most.
    found = estimate(np.zeros(60), np.arange(60))
    interval = interval_of(found, 0.95, POINTS)
    assert interval is not None
    assert interval.method == "exact-binomial"
    assert (interval.low, interval.high) == pytest.approx((-0.2385, 0.2385), abs=1e-4)
    assert interval_of(found, 0.95, None) is None


@given(st.integers(-40, 40).map(lambda tenths: tenths / 10), st.integers(10, 200))
def test_the_fallback_holds_the_difference_and_stays_in_the_scale(
    value: float, clusters: int
) -> None:
    interval = interval_of(estimate(np.full(clusters, value), np.arange(clusters)), 0.95, POINTS)
    assert interval is not None
    assert POINTS[0] - 1e-9 <= interval.low <= value + 1e-9
    assert value - 1e-9 <= interval.high <= POINTS[1] + 1e-9
    assert interval.high - interval.low > 0.05


def test_residuals_that_cancel_in_every_cluster_are_no_certainty() -> None:
    differences = np.tile([1.0, -1.0], 12)
    interval = interval_of(estimate(differences, np.repeat(np.arange(12), 2)), 0.95, POINTS)
    assert interval is not None
    assert interval.method == "exact-binomial"


@pytest.mark.parametrize("clusters", [1, 2, 9])
def test_too_few_clusters_give_no_interval(clusters: int) -> None:
    differences = np.linspace(-1, 1, 90)
    assert interval_of(estimate(differences, np.arange(90) % clusters), 0.95, POINTS) is None


def test_one_item_and_none() -> None:
    single = estimate(np.array([0.5]), np.array([3]))
    assert (single.difference, single.standard_error, single.clusters) == (0.5, None, 1)
    nothing = estimate(np.array([]), np.array([], dtype=np.int64))
    assert (nothing.items, nothing.clusters) == (0, 0)
    assert interval_of(nothing, 0.95, POINTS) is None


def test_needed_items_have_the_power_they_promise() -> None:
    random = np.random.default_rng(5)
    codes = np.repeat(np.arange(30), 2)
    pilot = random.normal(size=60)
    found = estimate(pilot - pilot.mean(), codes)
    assert found.standard_error is not None
    size = needed_items(found, 0.95, 0.25, POINTS)
    assert size is not None
    error = found.standard_error * math.sqrt(60 / size)
    freedom = size / 2 - 1
    power = 1 - stats.nct.cdf(stats.t.ppf(0.975, freedom), freedom, 0.25 / error)
    assert 0.79 <= power <= 0.86  # rounded up to two digits


def test_needed_items_are_more_than_there_are() -> None:
    # Tight enough to see δ, and yet neither off 0 nor inside ±δ: N must settle that instead.
    found = Estimate(difference=0.19, standard_error=0.10, items=100, clusters=50)
    interval = interval_of(found, 0.95, POINTS)
    assert interval is not None
    assert interval.low < 0.0
    assert interval.high > 0.3
    size = needed_items(found, 0.95, 0.3, POINTS)
    assert size is not None
    assert 101 <= size <= 1000


def test_needed_items_of_equal_differences_follow_the_fallback() -> None:
    found = estimate(np.zeros(40), np.arange(40))
    size = needed_items(found, 0.95, 0.2, POINTS)
    assert size is not None
    enough = interval_of(estimate(np.zeros(size), np.arange(size)), 0.95, POINTS)
    short = interval_of(estimate(np.zeros(size - 15), np.arange(size - 15)), 0.95, POINTS)
    assert enough is not None
    assert short is not None
    assert enough.high <= 0.2 < short.high
