"""Plans from a pilot: variance components, repeats, how many items."""

import math

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.power import TTestPower

from tuneproof.analysis.intervals import Estimate, estimate
from tuneproof.analysis.planning import (
    best_repeats,
    components,
    intraclass_correlation,
    items_needed,
)
from tuneproof.servicekit.errors import InvalidInput


def drawn(seed: int, seeds: int, items: int, repeats: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (
        0.3 * random.normal(size=(seeds, 1, 1))
        + 0.9 * random.normal(size=(1, items, 1))
        + 0.4 * random.normal(size=(seeds, items, 1))
        + 0.5 * random.normal(size=(seeds, items, repeats))
    )


@pytest.mark.parametrize(("seeds", "repeats"), [(3, 4), (2, 1), (1, 3)])
def test_components_solve_the_mean_squares_of_an_analysis_of_variance(
    seeds: int, repeats: int
) -> None:
    items = 8
    values = drawn(4, seeds, items, repeats)
    seed, item, _ = (axis.ravel() for axis in np.indices(values.shape))
    table = pd.DataFrame({"d": values.ravel(), "seed": seed, "item": item})
    terms = "C(item)" if seeds == 1 else "C(seed) * C(item)"
    if repeats == 1:
        terms = "C(seed) + C(item)"  # the interaction is what is left
    squares = anova_lm(ols(f"d ~ {terms}", table).fit())["mean_sq"]
    found = components(values)
    if seeds == 1:
        assert found.item == pytest.approx((squares["C(item)"] - squares["Residual"]) / repeats)
        assert (found.seed, found.seed_by_item) == (None, None)
        return
    both = squares["Residual" if repeats == 1 else "C(seed):C(item)"]
    rest = 0.0 if repeats == 1 else squares["Residual"]
    assert found.repeat == (None if repeats == 1 else pytest.approx(rest))
    assert found.seed_by_item == pytest.approx((both - rest) / repeats)
    assert found.item == pytest.approx(max(0.0, squares["C(item)"] - both) / (seeds * repeats))
    assert found.seed == pytest.approx(max(0.0, squares["C(seed)"] - both) / (items * repeats))


def test_components_are_found_on_average() -> None:
    found = [components(drawn(seed, 4, 60, 3)) for seed in range(300)]
    assert np.mean([each.item for each in found]) == pytest.approx(0.81, abs=0.05)
    assert np.mean([each.seed or 0.0 for each in found]) == pytest.approx(0.09, abs=0.02)
    assert np.mean([each.seed_by_item or 0.0 for each in found]) == pytest.approx(0.16, abs=0.02)
    assert np.mean([each.repeat or 0.0 for each in found]) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(
    "values", [np.zeros((2, 3)), np.zeros((1, 1, 3)), np.full((1, 3, 2), np.nan)], ids=str
)
def test_a_pilot_without_components(values: np.ndarray) -> None:
    with pytest.raises(InvalidInput):
        components(values)


def test_intraclass_correlation() -> None:
    random = np.random.default_rng(5)
    clusters = np.repeat(np.arange(400), 1 + np.arange(400) % 4)
    shared, own = random.normal(size=400)[clusters], random.normal(size=len(clusters))
    alike = math.sqrt(0.4) * shared + math.sqrt(0.6) * own
    assert intraclass_correlation(alike, clusters) == pytest.approx(0.4, abs=0.08)
    assert intraclass_correlation(own, clusters) == pytest.approx(0.0, abs=0.08)
    assert intraclass_correlation(shared, clusters) == pytest.approx(1.0)
    assert intraclass_correlation(own, np.arange(len(own))) is None
    assert intraclass_correlation(own, np.zeros(len(own), dtype=np.int64)) is None
    assert intraclass_correlation(np.ones(8), np.arange(8) // 2) is None


@given(st.floats(0.01, 4.0), st.floats(0.0, 4.0), st.floats(0.0, 20.0), st.floats(0.1, 20.0))
def test_no_other_number_of_repeats_is_cheaper(
    item: float, repeat: float, answer_cost: float, judge_cost: float
) -> None:
    best = best_repeats(item, repeat, answer_cost=answer_cost, judge_cost=judge_cost)

    def price(repeats: int) -> float:
        return (item + repeat / repeats) * (answer_cost + repeats * judge_cost)

    assert all(price(best) <= price(other) * (1 + 1e-9) for other in range(1, 200))


def test_three_repeats_are_often_right() -> None:
    # An answer at the price of five judgements, repeats that scatter half as much as items.
    assert best_repeats(0.8, 0.25 * 2, answer_cost=10, judge_cost=1) in (2, 3)
    assert best_repeats(0.5, 0.0, answer_cost=10, judge_cost=1) == 1
    assert best_repeats(0.0, 0.0, answer_cost=10, judge_cost=1) == 1
    with pytest.raises(InvalidInput, match="any number of repeats"):
        best_repeats(0.0, 0.5, answer_cost=10, judge_cost=1)
    with pytest.raises(InvalidInput, match="costs"):
        best_repeats(0.5, 0.5, answer_cost=1, judge_cost=0)


def pilot(error: float, items: int = 60) -> Estimate:
    return Estimate(0.1, error, items - 1.0, items, items, np.zeros(items), np.ones(items))


def test_items_are_those_of_the_t_test_at_the_upper_limit_of_the_variance() -> None:
    # The pilot's SD is 1; the plan reckons with its upper 80 % limit.
    prudent = math.sqrt(59 / stats.chi2.ppf(0.2, 59))
    theirs = TTestPower().solve_power(effect_size=0.25 / prudent, alpha=0.05, power=0.8)
    assert items_needed(pilot(1 / math.sqrt(60)), 0.25) == pytest.approx(theirs, abs=2)


@given(st.floats(0.05, 1.0), st.floats(0.2, 3.0))
def test_smaller_differences_and_more_power_need_more_items(error: float, ratio: float) -> None:
    known, difference = pilot(error), ratio * error
    count = items_needed(known, difference)
    assert items_needed(known, difference / 2) > 3 * count
    assert items_needed(known, difference, power=0.9) >= count
    assert items_needed(known, difference, confidence=0.99) >= count
    assert items_needed(known, difference, to_show="equivalence") >= count
    half = items_needed(known, difference, variance_ratio=0.5)
    assert half <= count / 2 + 3


def test_planned_studies_have_the_power() -> None:
    # 60-item pilots in 30 documents; the true SD is 1, the margin .25, the true difference .25.
    random, powers = np.random.default_rng(6), []
    for _ in range(400):
        shared, own = random.normal(size=30).repeat(2), random.normal(size=60)
        found = estimate(math.sqrt(0.3) * shared + math.sqrt(0.7) * own, np.arange(60) // 2)
        count = items_needed(found, 0.25)
        error = math.sqrt(1.3 / count)
        powers.append(stats.norm.cdf(0.25 / error - 1.96))
    assert 0.78 <= np.mean(powers) <= 0.92
    assert np.mean(np.array(powers) >= 0.8) >= 0.75


@pytest.mark.parametrize(
    ("known", "settings"),
    [
        (pilot(0.0), {}),
        (pilot(0.1), {"difference": 0.0}),
        (pilot(0.1), {"power": 1.0}),
        (pilot(0.1), {"variance_ratio": 0.0}),
    ],
    ids=["no variance", "difference", "power", "ratio"],
)
def test_no_plan(known: Estimate, settings: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        items_needed(known, **{"difference": 0.25, **settings})
