"""A recipe over training seeds: both kinds of chance, degrees of freedom, the next seed."""

import math

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from scipy import stats

from tuneproof.analysis.intervals import estimate, interval_of
from tuneproof.analysis.recipe import (
    over_seeds,
    prediction_interval,
    recipe_interval,
    why_no_recipe,
)
from tuneproof.servicekit.errors import InvalidInput

Floats = npt.NDArray[np.float64]

POINTS = (-4.0, 4.0)


def drawn(
    random: np.random.Generator,
    seeds: int,
    items: int,
    *,
    seed: float = 0.2,
    item: float = 0.8,
    both: float = 0.5,
) -> Floats:
    """Differences of mean .1; standard deviations of the three effects."""
    return (
        0.1
        + seed * random.normal(size=(seeds, 1))
        + item * random.normal(size=items)
        + both * random.normal(size=(seeds, items))
    )


def test_it_is_the_variance_for_clusters_in_two_ways() -> None:
    # For single items and CR1 in each way it would be V_items + V_seeds - V_both of the cells.
    random = np.random.default_rng(3)
    values = drawn(random, 5, 40, seed=0.5)
    found = over_seeds(values, np.arange(40))
    items = values.mean(axis=0).var(ddof=1) / 40
    between = values.mean(axis=1).var(ddof=1)
    left = values - values.mean(axis=0) - values.mean(axis=1)[:, None] + values.mean()
    resid = (left**2).sum() / (4 * 39) / (5 * 40)
    expected = items + between / 5 - resid
    assert found.estimate.difference == pytest.approx(values.mean())
    assert found.estimate.standard_error == pytest.approx(math.sqrt(expected), abs=1e-9)
    assert found.seed_variance == pytest.approx(between - 5 * resid, abs=1e-9)
    following = math.sqrt(expected + between - 5 * resid)
    assert found.next_seed.standard_error == pytest.approx(following, abs=1e-9)
    parts = items**2 / 39 + (between / 5) ** 2 / 4 + resid**2 / (39 * 4)
    assert found.estimate.degrees_of_freedom == pytest.approx(expected**2 / parts, abs=1e-6)


def test_the_variance_is_right_on_average() -> None:
    random = np.random.default_rng(4)
    found = [over_seeds(drawn(random, 4, 30), np.arange(30)) for _ in range(2000)]
    truth = 0.2**2 / 4 + 0.8**2 / 30 + 0.5**2 / 120
    assert np.mean([(each.estimate.standard_error or 0) ** 2 for each in found]) == pytest.approx(
        truth, rel=0.06
    )
    spread = np.var([each.estimate.difference for each in found])
    assert spread == pytest.approx(truth, rel=0.15)


def test_seeds_that_agree_leave_the_items_chance() -> None:
    values = np.tile(np.random.default_rng(5).normal(0.1, 1.0, 40), (3, 1))
    found = over_seeds(values, np.arange(40))
    alone = estimate(values[0], np.arange(40))
    assert found.seed_variance == 0.0
    assert found.estimate.standard_error == pytest.approx(alone.standard_error)
    assert found.estimate.degrees_of_freedom == pytest.approx(39.0)
    mine, theirs = recipe_interval(found, 0.95, POINTS), interval_of(alone, 0.95, POINTS)
    assert mine is not None
    assert theirs is not None
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_seeds_that_differ_by_far_more_than_items_leave_their_t_interval() -> None:
    values = np.array([[-1.0], [0.2], [1.1], [0.4]]) + 1e-4 * np.random.default_rng(6).normal(
        size=40
    )
    interval = recipe_interval(over_seeds(values, np.arange(40)), 0.95, POINTS)
    theirs = stats.ttest_1samp(values.mean(axis=1), 0.0).confidence_interval(0.95)
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high), abs=1e-3)


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(-9, 9), st.integers(1, 9))
def test_shift_scale_and_order(number: int, seeds: int, shift: int, scale: int) -> None:
    random = np.random.default_rng(number)
    clusters = random.integers(0, 15, 40)
    values = drawn(random, seeds, 40)
    found = over_seeds(values, clusters)
    order, turn = random.permutation(40), random.permutation(seeds)
    other = over_seeds(scale * values[turn][:, order] + shift, 100 - 2 * clusters[order])
    for here, there in ((found.estimate, other.estimate), (found.next_seed, other.next_seed)):
        assert there.difference == pytest.approx(scale * here.difference + shift, abs=1e-9)
        assert here.standard_error is not None
        assert there.standard_error == pytest.approx(scale * here.standard_error, abs=1e-7)
        assert there.degrees_of_freedom == pytest.approx(here.degrees_of_freedom, abs=1e-6)
    assert found.of_items.standard_error is not None
    assert found.estimate.standard_error is not None
    assert found.next_seed.standard_error is not None
    assert found.of_items.standard_error <= found.estimate.standard_error + 1e-12
    assert found.estimate.standard_error <= found.next_seed.standard_error + 1e-12


@pytest.mark.parametrize(
    ("seeds", "said"),
    [(1, "1 training seed; a recipe needs 3"), (2, "2 training seeds; a recipe needs 3")],
)
def test_few_seeds_say_nothing_of_a_recipe(seeds: int, said: str) -> None:
    found = over_seeds(drawn(np.random.default_rng(7), seeds, 40), np.arange(40))
    assert why_no_recipe(found) == said
    assert recipe_interval(found, 0.95, POINTS) is None
    assert prediction_interval(found, 0.95, POINTS) is None


def test_few_clusters_say_nothing_of_a_recipe() -> None:
    found = over_seeds(drawn(np.random.default_rng(7), 3, 40), np.arange(40) // 8)
    assert why_no_recipe(found) == "5; an interval needs 10"
    assert recipe_interval(found, 0.95, POINTS) is None


@pytest.mark.parametrize(
    ("values", "clusters"),
    [
        (np.zeros(4), np.arange(4)),
        (np.zeros((2, 3)), np.arange(4)),
        (np.zeros((2, 0)), np.zeros(0)),
        (np.full((2, 3), np.nan), np.arange(3)),
    ],
    ids=["one dimension", "lengths", "nothing", "missing"],
)
def test_differences_that_are_no_recipe(values: Floats, clusters: npt.NDArray[np.int64]) -> None:
    with pytest.raises(InvalidInput):
        over_seeds(values, clusters)


@pytest.mark.parametrize("seeds", [3, 8])
def test_the_recipe_and_the_next_seed_are_covered_and_one_adapter_does_not_cover_it(
    seeds: int,
) -> None:
    random, rounds = np.random.default_rng(8), 800
    recipe = following = adapter = 0
    for _ in range(rounds):
        values = drawn(random, seeds, 60)
        found = over_seeds(values, np.arange(60))
        mine, next_one = (
            recipe_interval(found, 0.95, POINTS),
            prediction_interval(found, 0.95, POINTS),
        )
        alone = interval_of(estimate(values[0], np.arange(60)), 0.95, POINTS)
        assert mine is not None
        assert next_one is not None
        assert alone is not None
        recipe += mine.low <= 0.1 <= mine.high
        following += next_one.low <= 0.1 + 0.2 * random.normal() <= next_one.high
        adapter += alone.low <= 0.1 <= alone.high
    least = (0.92 if seeds == 3 else 0.93) - 4 * math.sqrt(0.93 * 0.07 / rounds)
    assert recipe / rounds >= least
    assert following / rounds >= least
    assert adapter / rounds < 0.85
