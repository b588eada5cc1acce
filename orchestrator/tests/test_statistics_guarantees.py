"""Bounds that rare losses cannot pass: betting, and Clopper and Pearson for clusters."""

import math

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from tuneproof.analysis.guarantees import guaranteed_lower, severe_loss
from tuneproof.analysis.intervals import estimate, interval_of
from tuneproof.servicekit.errors import InvalidInput

Floats = npt.NDArray[np.float64]

POINTS = (-4.0, 4.0)

grades = hnp.arrays(
    np.float64, st.integers(2, 60), elements=st.integers(-40, 40).map(lambda tenths: tenths / 10)
)


def capital(values: Floats, mean: float, tail: float) -> float:
    """The highest capital against `mean`, step by step as the paper writes it."""
    count, worth, highest = len(values), 1.0, 1.0
    seen: list[float] = []
    squares = 0.0
    for value in values:
        variance = (0.25 + squares) / (len(seen) + 1)
        bet = min(math.sqrt(2 * math.log(1 / tail) / (count * variance)), 0.75 / mean)
        worth *= 1 + bet * (value - mean)
        highest = max(highest, worth)
        seen.append(value)
        squares += (value - (0.5 + sum(seen)) / (1 + len(seen))) ** 2
    return highest


@given(grades, st.sampled_from([0.025, 0.1]))
def test_the_bound_is_where_the_capital_reaches_one_over_the_tail(
    differences: Floats, tail: float
) -> None:
    count = len(differences)
    bound = guaranteed_lower(differences, np.arange(count), POINTS, tail=tail, seed=4)
    assert POINTS[0] <= bound <= differences.mean() + 1e-6
    order = np.random.default_rng(4).permutation(count)
    values, at = (differences[order] + 4) / 8, (bound + 4) / 8
    # Losses that come late can leave even the mean refuted; the bound stops there.
    if bound < differences.mean() - 1e-5:
        assert capital(values, at + 1e-6, tail) <= 1 / tail * (1 + 1e-6)
    if at > 1e-6:
        assert capital(values, at, tail) >= 1 / tail * (1 - 1e-9)


@given(grades, st.floats(0.1, 3.0))
def test_scale_and_better_answers(differences: Floats, scale: float) -> None:
    items = np.arange(len(differences))
    bound = guaranteed_lower(differences, items, POINTS)
    wider = (POINTS[0] * scale, POINTS[1] * scale)
    scaled = np.clip(differences * scale, *wider)
    assert guaranteed_lower(scaled, items, wider) == pytest.approx(bound * scale, abs=1e-5)
    # More confidence is a lower bound; a wider scale allows worse that was not seen.
    assert guaranteed_lower(differences, items, POINTS, tail=0.005) <= bound + 1e-6
    assert guaranteed_lower(differences, items, (-8.0, 4.0)) <= bound + 1e-6


def test_items_of_a_cluster_count_once() -> None:
    random = np.random.default_rng(8)
    means = random.normal(0.3, 0.5, 50).clip(*POINTS)
    alone = guaranteed_lower(means, np.arange(50), POINTS)
    doubled = guaranteed_lower(np.repeat(means, 4), np.repeat(np.arange(50), 4), POINTS)
    assert doubled == pytest.approx(alone, abs=1e-6)


@pytest.mark.parametrize("sizes", ["equal", "unequal"])
def test_an_arm_at_the_margin_by_rare_losses_fails_and_passed_by_the_interval(sizes: str) -> None:
    # 2 % of answers lose 4 points, the others nothing on average: a mean of -.08, the margin.
    random = np.random.default_rng(17)
    shape = np.full(40, 1) if sizes == "equal" else 1 + np.arange(40) % 4
    clusters = np.repeat(np.arange(40), shape)
    rounds, guaranteed, by_interval = 600, 0, 0
    for _ in range(rounds):
        lost = random.random(len(clusters)) < 0.02
        differences = np.where(lost, -4.0, random.uniform(-0.1, 0.1, len(clusters)))
        guaranteed += guaranteed_lower(differences, clusters, POINTS) > -0.08
        interval = interval_of(estimate(differences, clusters), 0.95, POINTS)
        assert interval is not None
        by_interval += interval.low > -0.08
    slack = 4 * math.sqrt(0.025 * 0.975 / rounds)
    assert guaranteed / rounds <= 0.025 + slack
    assert by_interval / rounds > 0.1


def test_a_good_arm_passes() -> None:
    # True difference 0, SD 1, 200 clusters, margin .25: the interval passes .94, the bet .84.
    random = np.random.default_rng(18)
    rounds = 300
    passed = sum(
        guaranteed_lower(random.normal(0, 1, 200).clip(*POINTS), np.arange(200), POINTS) > -0.25
        for _ in range(rounds)
    )
    assert passed / rounds >= 0.80 - 4 * math.sqrt(0.8 * 0.2 / rounds)


@pytest.mark.parametrize(
    ("differences", "tail", "said"),
    [
        pytest.param([], 0.025, "got 0 of them", id="nothing"),
        pytest.param([0.0, 5.0], 0.025, "from 0 to 5", id="outside"),
        pytest.param([0.0, math.nan], 0.025, "from -4 to 4", id="missing"),
        pytest.param([0.0], 0.0, "tail must be between", id="tail"),
    ],
)
def test_a_bound_needs_bounded_differences(
    differences: list[float], tail: float, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        guaranteed_lower(np.array(differences), np.arange(len(differences)), POINTS, tail=tail)


@given(st.integers(0, 60))
def test_single_items_give_clopper_and_pearsons_upper_end(losses: int) -> None:
    differences = np.where(np.arange(60) < losses, -2.0, 0.5)
    found = severe_loss(differences, np.arange(60))
    assert (found.losses, found.share) == (losses, pytest.approx(losses / 60))
    assert found.effective_items == pytest.approx(60)
    # Two-sided 95 % is .025 on this side.
    theirs = proportion_confint(losses, 60, alpha=0.05, method="beta")[1]
    assert found.upper == pytest.approx(theirs, abs=1e-9)


def test_none_of_sixty() -> None:
    assert severe_loss(np.zeros(60), np.arange(60)).upper == pytest.approx(0.0596, abs=5e-5)


def test_losses_that_come_by_document_count_as_documents() -> None:
    by_document = np.where(np.arange(200) // 10 < 4, -3.0, 0.0)
    order = np.random.default_rng(2).permutation(200)
    spread = np.where((order < 30) | (np.arange(200) < 10), -3.0, 0.0)
    clusters = np.arange(200) // 10
    clustered, apart = severe_loss(by_document, clusters), severe_loss(spread, clusters)
    assert clustered.share == 0.2
    assert clustered.effective_items == pytest.approx(20.0)
    assert clustered.upper == pytest.approx(
        proportion_confint(4, 20, alpha=0.05, method="beta")[1], abs=1e-9
    )
    assert apart.upper < clustered.upper
    # n by the design effect, and by the few degrees of freedom that it is known with.
    shares = np.bincount(clusters, weights=spread < 0) / 10
    effect = (shares.var(ddof=1) / 20) / (apart.share * (1 - apart.share) / 199)
    freedom = (stats.t.ppf(0.975, 199) / stats.t.ppf(0.975, 19)) ** 2
    assert 20 < apart.effective_items < 200
    assert apart.effective_items == pytest.approx(200 / effect * freedom)


@given(st.integers(0, 99), st.integers(1, 8))
def test_one_more_loss_never_lowers_the_bound_much(losses: int, size: int) -> None:
    clusters = np.arange(100) // size
    order = np.random.default_rng(1).permutation(100)
    fewer, more = (
        severe_loss(np.where(order < count, -4.0, 0.0), clusters) for count in (losses, losses + 1)
    )
    assert more.upper >= fewer.upper - 0.03
    assert more.upper >= severe_loss(np.zeros(100), clusters).upper - 1e-12


def test_the_share_is_covered_in_clusters() -> None:
    # Half of the losses come by whole documents of four items.
    random = np.random.default_rng(21)
    clusters, rounds, covered, as_single = np.arange(240) // 4, 800, 0, 0
    for _ in range(rounds):
        lost = -4.0 * ((random.random(60)[clusters] < 0.04) | (random.random(240) < 0.04))
        covered += severe_loss(lost, clusters).upper >= 1 - 0.96**2
        as_single += severe_loss(lost, np.arange(240)).upper >= 1 - 0.96**2
    slack = 4 * math.sqrt(0.95 * 0.05 / rounds)
    assert covered / rounds >= 0.95 - slack
    assert as_single / rounds < 0.95 - slack


def test_two_points_count_despite_rounding_and_less_does_not() -> None:
    differences = np.array([-2.0 + 1e-12, -1.9, 2.0])
    assert severe_loss(differences, np.arange(3)).losses == 1


def test_severe_losses_need_items() -> None:
    with pytest.raises(InvalidInput, match="need differences"):
        severe_loss(np.zeros(0), np.zeros(0, dtype=np.int64))
