"""Group sequential looks: published constants, spending, random order, false verdicts."""

import math
from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from scipy import optimize, stats

from tuneproof.analysis.intervals import estimate, interval_of
from tuneproof.analysis.looks import crossing_probability, in_looks, plan_looks
from tuneproof.analysis.verdict import Verdict, read
from tuneproof.servicekit.errors import InvalidInput

Floats = npt.NDArray[np.float64]

POINTS = (-4.0, 4.0)
DECIDED = (Verdict.BETTER, Verdict.WORSE, Verdict.EQUIVALENT)


def equal(looks: int) -> list[float]:
    return [look / looks for look in range(1, looks + 1)]


@pytest.mark.parametrize(
    ("looks", "obrien_fleming", "pocock"),
    [(2, 1.977, 2.178), (3, 2.004, 2.289), (4, 2.024, 2.361), (5, 2.040, 2.413)],
)
def test_constants_of_jennison_and_turnbull(
    looks: int, obrien_fleming: float, pocock: float
) -> None:
    # Group Sequential Methods with Applications to Clinical Trials, tables 2.1 and 2.3, .05.
    fractions = equal(looks)

    def rising(constant: float) -> float:
        bounds = [constant / math.sqrt(fraction) for fraction in fractions]
        return crossing_probability(bounds, fractions) - 0.05

    def level(constant: float) -> float:
        return crossing_probability([constant] * looks, fractions) - 0.05

    assert optimize.brentq(rising, 1.5, 3.0) == pytest.approx(obrien_fleming, abs=6e-4)
    assert optimize.brentq(level, 1.5, 3.0) == pytest.approx(pocock, abs=6e-4)


@pytest.mark.parametrize(
    "bounds",
    [
        (2.9626, 1.9686),
        (3.7103, 2.5114, 1.9930),
        (4.3326, 2.9631, 2.3590, 2.0141),
        (4.8769, 3.3570, 2.6803, 2.2898, 2.0310),
    ],
    ids=len,
)
def test_bounds_of_lan_and_demets_spending(bounds: tuple[float, ...]) -> None:
    # As gsDesign's sfLDOF and the program of Reboussin and others give them, .025 on each side.
    found = [look.critical for look in plan_looks(equal(len(bounds)))]
    assert found == pytest.approx(bounds, abs=1e-4)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.sampled_from([0.9, 0.95, 0.9917]))
def test_all_looks_together_spend_the_error(steps: list[int], confidence: float) -> None:
    # Steps of 2 % of the information at least.
    grown = np.cumsum(steps) / sum(steps)
    if min(np.diff(grown, prepend=0.0)) < 0.02:
        return
    looks = plan_looks([*map(float, grown[:-1]), 1.0], confidence)
    crossed = crossing_probability([each.critical for each in looks], list(map(float, grown)))
    assert crossed == pytest.approx(1 - confidence, abs=1e-7)
    assert looks[-1].spent == pytest.approx(1 - confidence, abs=1e-12)
    last = stats.norm.ppf(1 - (1 - confidence) / 2)
    assert looks[-1].critical >= last - 1e-9


def test_one_look_is_the_ordinary_interval() -> None:
    (look,) = plan_looks([1.0], 0.95)
    assert look.critical == pytest.approx(1.959964, abs=1e-6)
    assert look.confidence == pytest.approx(0.95, abs=1e-9)


def test_a_look_too_early_to_spend_anything_decides_nothing() -> None:
    looks = plan_looks([0.02, 0.5, 1.0])
    assert looks[0].critical == 7.5
    assert looks[0].confidence < 1.0
    differences = np.random.default_rng(1).normal(0.5, 1.0, 20).clip(*POINTS)
    interval = interval_of(estimate(differences, np.arange(20)), looks[0].confidence, POINTS)
    assert read(interval, 0.25).verdict is Verdict.UNDECIDED


def test_a_short_last_step_has_a_bound() -> None:
    # The chance to leave ± 7.5 within 2 % of the information underflows to 0.
    looks = plan_looks([0.5, 0.98, 1.0])
    assert crossing_probability([each.critical for each in looks], [0.5, 0.98, 1.0]) == (
        pytest.approx(0.05, abs=1e-7)
    )


@pytest.mark.parametrize(
    "fractions", [[], [0.5], [0.5, 0.4, 1.0], [0.5, 0.51, 1.0], [0.5, 1.5]], ids=str
)
def test_fractions_that_are_no_plan(fractions: list[float]) -> None:
    with pytest.raises(InvalidInput, match="name fewer looks"):
        plan_looks(fractions)


def test_confidence_that_is_none() -> None:
    with pytest.raises(InvalidInput, match="confidence"):
        plan_looks([1.0], 1.0)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(1, 6), st.integers(0, 99))
def test_looks_take_every_item_once_in_whole_clusters(
    sizes: list[int], looks: int, seed: int
) -> None:
    clusters = np.random.default_rng(1).permutation(np.repeat(np.arange(len(sizes)) * 3, sizes))
    added, fractions = in_looks(clusters, looks, seed)
    assert sorted(np.concatenate(added)) == list(range(len(clusters)))
    assert 1 <= len(added) == len(fractions) <= looks
    assert fractions[-1] == 1.0
    for one, other in pairwise(added):
        assert not set(clusters[one]) & set(clusters[other])
    seen = np.cumsum([len(each) for each in added])
    assert list(fractions) == pytest.approx(list(seen / len(clusters)))
    if len(added) == looks:
        # Each look reaches its share, and would not without its last cluster.
        for place, count in enumerate(seen, 1):
            assert 0 <= count - len(clusters) * place / looks < max(sizes) + 1e-9


def test_single_items_are_cut_evenly_and_in_random_order() -> None:
    added, fractions = in_looks(np.arange(100), 4, 5)
    assert [len(each) for each in added] == [25, 25, 25, 25]
    assert fractions == (0.25, 0.5, 0.75, 1.0)
    other, _ = in_looks(np.arange(100), 4, 6)
    assert list(added[0]) != list(other[0])
    assert list(added[0]) == list(in_looks(np.arange(100), 4, 5)[0][0])


def test_looks_at_nothing() -> None:
    with pytest.raises(InvalidInput):
        in_looks(np.zeros(0, dtype=np.int64), 4, 1)
    with pytest.raises(InvalidInput):
        in_looks(np.arange(4), 0, 1)


def stopped(differences: Floats, confidences: list[float]) -> tuple[Verdict, int]:
    """The verdict at which a study of single items stops, by the confidence of each look."""
    added, _ = in_looks(np.arange(len(differences)), len(confidences), 1)
    for look, confidence in enumerate(confidences):
        seen = differences[np.concatenate(added[: look + 1])]
        interval = interval_of(estimate(seen, np.arange(len(seen))), confidence, POINTS)
        verdict = read(interval, 0.25).verdict
        if verdict in DECIDED:
            break
    return verdict, len(seen)


def test_four_looks_err_no_more_than_one_and_save_items() -> None:
    # True difference 0, SD 1, 400 items, margin .25. Before: the 95 % interval at every look.
    random, rounds = np.random.default_rng(31), 600
    planned = [look.confidence for look in plan_looks(equal(4))]
    false = false_before = used = 0
    for _ in range(rounds):
        differences = random.normal(0.0, 1.0, 400).clip(*POINTS)
        verdict, items = stopped(differences, planned)
        false += verdict in (Verdict.BETTER, Verdict.WORSE)
        used += items
        false_before += stopped(differences, [0.95] * 4)[0] in (Verdict.BETTER, Verdict.WORSE)
    slack = 4 * math.sqrt(0.05 * 0.95 / rounds)
    assert false / rounds <= 0.05 + slack
    assert false_before > 1.5 * false
    assert used / rounds / 400 <= 0.70
