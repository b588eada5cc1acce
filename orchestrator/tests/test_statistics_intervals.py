"""Cluster-robust intervals: reference software, symmetries, coverage, degenerate input."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

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
    Interval,
    _unseen,
    degrees_of_freedom,
    estimate,
    interval_of,
    why_no_interval,
)

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

POINTS = (-4.0, 4.0)

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "fixtures" / "clubsandwich.json").read_text()
)["cases"]
"""Made by clubsandwich.R beside it."""


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


@given(st.integers(1, 5), st.integers(10, 25), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_clusters_of_one_size_give_a_regression_on_a_constant_with_clustered_errors(
    size: int, groups: int, random: Random
) -> None:
    # statsmodels has CR1: G/(G-1) · (n-1)/(n-1), and t with G - 1. CR2 is the same there.
    clusters = np.repeat(np.arange(groups), size)
    differences = np.array([random.randint(-40, 40) / 10 for _ in clusters])
    fitted = OLS(differences, np.ones(len(differences))).fit(
        cov_type="cluster",
        cov_kwds={"groups": clusters, "use_correction": True, "df_correction": True},
        use_t=True,
    )
    found = estimate(differences, clusters)
    assert found.difference == pytest.approx(fitted.params[0], abs=1e-9)
    assert found.degrees_of_freedom == pytest.approx(groups - 1, abs=1e-9)
    if found.standard_error:  # residual sums that all cancel leave no variance, see below
        assert found.standard_error == pytest.approx(fitted.bse[0], abs=1e-9)
        assert wide(found) == pytest.approx(tuple(fitted.conf_int(0.05)[0]), abs=1e-9)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_variance_and_degrees_of_freedom_are_those_of_clubsandwich(case: dict[str, Any]) -> None:
    sizes, differences = np.array(case["sizes"]), np.array(case["differences"])
    found = estimate(differences, np.repeat(np.arange(len(sizes)), sizes))
    assert found.difference == pytest.approx(case["mean"], rel=1e-6)
    assert found.standard_error is not None
    assert found.standard_error**2 == pytest.approx(case["variance"], rel=1e-6)
    assert found.degrees_of_freedom == pytest.approx(case["df"], rel=1e-6)
    if case["df"] >= 3 and len(sizes) >= 10:
        assert wide(found) == pytest.approx((case["low"], case["high"]), rel=1e-6)
    else:
        assert interval_of(found, 0.95, POINTS) is None


@given(st.lists(st.integers(1, 60), min_size=2, max_size=40))
def test_the_sums_equal_the_matrix_of_bell_and_mccaffrey(sizes: list[int]) -> None:
    n = np.array(sizes, dtype=np.float64)
    weights = 1.0 / (1.0 - n / n.sum())
    matrix = (np.diag(n) - np.outer(n, n) / n.sum()) * np.sqrt(np.outer(weights, weights))
    expected = np.trace(matrix) ** 2 / (matrix**2).sum()
    assert degrees_of_freedom(n) == pytest.approx(expected, rel=1e-9)
    assert 1.0 - 1e-9 <= degrees_of_freedom(n) <= len(n) - 1 + 1e-9


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


def cr1(differences: Floats, clusters: Codes) -> Interval:
    """The interval of before: CR1 with t(G - 1)."""
    groups, count = int(clusters.max()) + 1, len(differences)
    mean = float(differences.mean())
    sums = np.bincount(clusters, weights=differences - mean)
    error = math.sqrt(groups / (groups - 1) * float((sums**2).sum())) / count
    reach = float(stats.t.ppf(0.975, groups - 1)) * error
    return Interval(mean - reach, mean + reach, 0.95, "cluster-t")


def coverage(
    sizes_of: Callable[[np.random.Generator], Codes], correlation: float, rounds: int = 800
) -> tuple[float, float, int]:
    """How often ours and `cr1` hold the truth, and over how many studies that have an interval."""
    random = np.random.default_rng(20240611)
    truth, given_, ours, theirs = 0.3, 0, 0, 0
    for _ in range(rounds):
        sizes = sizes_of(random)
        codes = np.repeat(np.arange(len(sizes)), sizes)
        shared = random.normal(size=len(sizes))[codes]
        own = random.normal(size=len(codes))
        drawn = truth + math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own
        interval = interval_of(estimate(drawn, codes), 0.95, POINTS)
        if interval is not None:
            before = cr1(drawn, codes)
            given_ += 1
            ours += interval.low <= truth <= interval.high
            theirs += before.low <= truth <= before.high
    return ours / given_, theirs / given_, given_


def one_to_four(clusters: int) -> Codes:
    return 1 + np.arange(clusters) % 4


@pytest.mark.parametrize(("clusters", "correlation"), [(12, 0.4), (40, 0.4), (40, 0.0)])
def test_intervals_cover_the_truth_as_often_as_they_say(clusters: int, correlation: float) -> None:
    covered, _, given_ = coverage(lambda _: one_to_four(clusters), correlation)
    assert abs(covered - 0.95) <= 3 * math.sqrt(0.95 * 0.05 / given_)
    # Ignoring the clusters must show, or the simulation could not have found a defect.
    if correlation:
        random = np.random.default_rng(7)
        codes = np.repeat(np.arange(clusters), one_to_four(clusters))
        shared = random.normal(size=(2000, clusters))[:, codes]
        own = random.normal(size=(2000, len(codes)))
        drawn = math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own
        naive = stats.t.ppf(0.975, len(codes) - 1) * drawn.std(axis=1, ddof=1)
        naive /= math.sqrt(len(codes))
        assert float(np.mean(np.abs(drawn.mean(axis=1)) <= naive)) < 0.90


@pytest.mark.parametrize(
    "sizes_of",
    [
        pytest.param(lambda _: np.array([59] + [1] * 59), id="one document holds half"),
        pytest.param(
            lambda random: np.ceil(np.exp(random.normal(1.5, 2.0, 10))).astype(np.int64),
            id="lognormal sizes",
        ),
    ],
)
def test_unequal_clusters_are_covered_and_were_not_before(
    sizes_of: Callable[[np.random.Generator], Codes],
) -> None:
    covered, before, given_ = coverage(sizes_of, 0.4, rounds=1500)
    bound = 0.93 - 3 * math.sqrt(0.93 * 0.07 / given_)
    assert given_ > 400
    assert covered >= bound
    assert before < bound


@pytest.mark.parametrize("share", [0.01, 0.03, 0.1])
def test_rare_severe_losses_are_covered(share: float) -> None:
    # Most studies of 60 items see none or one of the losses; the t interval alone then covers
    # .45, .83 and .95.
    random = np.random.default_rng(3)
    hits = 0
    for _ in range(500):
        drawn = -4.0 * (random.random(60) < share)
        interval = interval_of(estimate(drawn, np.arange(60)), 0.95, POINTS)
        assert interval is not None
        hits += interval.low <= -4.0 * share <= interval.high
    assert hits / 500 >= 0.93 - 3 * math.sqrt(0.93 * 0.07 / 500)


@pytest.mark.parametrize("clusters", [10, 13, 20, 40])
def test_whole_clusters_that_lose_are_covered_whatever_their_share(clusters: int) -> None:
    # The chance of each count of losing clusters is binomial: this is exact, not simulated.
    counts, alone = np.arange(clusters + 1), np.arange(clusters)
    found = [
        interval_of(estimate(np.where(alone < count, -4.0, 0.0), alone), 0.95, POINTS)
        for count in counts
    ]
    low, high = (np.array([getattr(one, end) for one in found]) for end in ("low", "high"))
    for share in np.linspace(0.01, 0.5, 50):
        held = (low <= -4.0 * share + 1e-9) & (-4.0 * share - 1e-9 <= high)
        assert stats.binom.pmf(counts, clusters, share) @ held >= 0.90


def test_equal_differences_give_no_interval_of_no_width() -> None:
    # 0 of 60 clusters differ: p <= 1 - .025^(1/60) = .0596, each by 4 points at most.
    found = estimate(np.zeros(60), np.arange(60))
    interval = interval_of(found, 0.95, POINTS)
    assert interval is not None
    assert interval.method == "exact-binomial"
    assert (interval.low, interval.high) == pytest.approx((-0.2385, 0.2385), abs=1e-4)
    assert interval_of(found, 0.95, None) is None


def test_one_small_difference_does_not_end_the_doubt() -> None:
    # CR1 said [-.002, .005] here: one difference of .1 took away what 60 zeros leave open.
    differences = np.zeros(60)
    differences[0] = 0.1
    interval = interval_of(estimate(differences, np.arange(60)), 0.95, POINTS)
    assert interval is not None
    assert interval.method == "widened-t"
    assert -0.2385 < interval.low < -0.19
    assert 0.19 < interval.high < 0.2385


@given(st.integers(0, 60), st.floats(-4, 4), st.integers(0, 59), st.floats(-1e-3, 1e-3))
@settings(deadline=None)
def test_the_interval_never_jumps(count: int, value: float, place: int, step: float) -> None:
    differences = np.zeros(60)
    differences[:count] = value
    moved = differences.copy()
    moved[place] = float(np.clip(moved[place] + step, *POINTS))
    here, there = (
        interval_of(estimate(each, np.arange(60)), 0.95, POINTS) for each in (differences, moved)
    )
    assert here is not None
    assert there is not None
    # The steepest part: the doubt of a count (up to 1.4 points) fades over ten visible differences.
    assert abs(here.low - there.low) <= 10 * abs(step) + 1e-6
    assert abs(here.high - there.high) <= 10 * abs(step) + 1e-6


@given(st.integers(0, 60), st.sampled_from([0.0, 0.02, 0.1, 1.0]))
def test_the_bound_rises_with_every_difference(count: int, value: float) -> None:
    differences = np.zeros(60)
    differences[:count] = value
    more = differences.copy()
    more[count // 2 :] = np.minimum(more[count // 2 :] + 0.3, 4.0)
    bounds = [_unseen(estimate(each, np.arange(60)), 0.025, POINTS) for each in (differences, more)]
    assert bounds[0][0] <= bounds[1][0] + 1e-9
    assert bounds[0][1] <= bounds[1][1] + 1e-9


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
    found = estimate(differences, np.arange(90) % clusters)
    assert interval_of(found, 0.95, POINTS) is None
    assert why_no_interval(found) == f"{clusters}; an interval needs 10"


def test_one_cluster_that_holds_nearly_all_gives_no_interval() -> None:
    differences = np.linspace(-1, 1, 200)
    found = estimate(differences, np.maximum(np.arange(200) - 180, 0))
    assert found.clusters == 20
    assert interval_of(found, 0.95, POINTS) is None
    assert why_no_interval(found) == "20, so unequal that they count as 2.2; an interval needs 4"


def test_one_item_and_none() -> None:
    single = estimate(np.array([0.5]), np.array([3]))
    assert (single.difference, single.standard_error, single.clusters) == (0.5, None, 1)
    nothing = estimate(np.array([]), np.array([], dtype=np.int64))
    assert (nothing.items, nothing.clusters) == (0, 0)
    assert interval_of(nothing, 0.95, POINTS) is None
