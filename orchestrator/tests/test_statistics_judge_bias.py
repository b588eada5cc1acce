"""A judge's bias by arm and by length, and how much of it a verdict bears."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from tuneproof.analysis.intervals import Interval, estimate
from tuneproof.analysis.judge_bias import judge_bias, thirds_by_length, tipping_point
from tuneproof.analysis.verdict import Verdict, read
from tuneproof.servicekit.errors import InvalidInput

DECIDED = (Verdict.BETTER, Verdict.WORSE, Verdict.EQUIVALENT)


def test_bias_by_arm_is_the_mean_error_of_the_judge_in_each() -> None:
    random = np.random.default_rng(2)
    human = random.integers(1, 6, 80).astype(np.float64)
    arms = ["tuned", "baseline"] * 40
    judge = human + np.where(np.array(arms) == "tuned", 0.5, -0.1) + random.normal(0, 0.2, 80)
    clusters = np.arange(80) // 4
    found = judge_bias(judge, human, arms, clusters)
    assert list(found) == ["tuned", "baseline"]
    mine = np.array(arms) == "tuned"
    assert found["tuned"].difference == pytest.approx(0.5, abs=0.15)
    assert found["baseline"].difference == pytest.approx(-0.1, abs=0.15)
    alone = estimate((judge - human)[mine], clusters[mine])
    assert found["tuned"].standard_error == pytest.approx(alone.standard_error, abs=1e-9)
    assert found["tuned"].degrees_of_freedom == pytest.approx(alone.degrees_of_freedom, abs=1e-9)


def test_labels_drawn_more_often_weigh_less() -> None:
    inclusion = np.array([1.0, 0.25, 0.25, 1.0])
    judge, human = np.array([2.0, 3.0, 3.0, 2.0]), np.full(4, 2.0)
    found = judge_bias(judge, human, ["a"] * 4, np.arange(4), inclusion)
    assert found["a"].difference == pytest.approx(8 / 10)


def test_length_is_cut_into_thirds_of_all_answers() -> None:
    assert thirds_by_length([10, 20, 30, 40, 50, 60]) == (
        *("short", "short"),
        *("middle", "middle"),
        *("long", "long"),
    )
    assert thirds_by_length([7, 7, 7]) == ("short",) * 3
    assert thirds_by_length([]) == ()


@pytest.mark.parametrize(
    ("judge", "groups", "said"),
    [
        pytest.param(np.array([]), [], "1 at least", id="nothing"),
        pytest.param(np.array([1.0, 2.0]), ["a"], "one and the same length", id="lengths"),
        pytest.param(np.array([1.0, np.nan]), ["a", "a"], "1 answers lack a grade", id="missing"),
    ],
)
def test_grades_that_show_no_bias(judge: np.ndarray, groups: list[str], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        judge_bias(judge, np.ones(len(judge)), groups, np.arange(len(judge)))


@given(st.floats(-1, 1), st.floats(0.01, 1), st.floats(0, 1))
def test_a_verdict_holds_up_to_its_tipping_point_and_not_beyond(
    low: float, width: float, margin: float
) -> None:
    before = Interval(low, low + width, 0.95, "cluster-t")
    verdict = read(before, margin).verdict
    bias = tipping_point(before, margin)
    assert (bias is None) == (verdict not in DECIDED)
    if bias is None:
        return

    def moved(by: float) -> Interval:
        return Interval(before.low - by, before.high - by, 0.95, "cluster-t")

    def stands(by: float) -> bool:
        after = read(moved(by), margin)
        if verdict is Verdict.EQUIVALENT:
            return after.within_margin
        return after.verdict is verdict

    assert stands(0.0)
    assert stands(bias - np.copysign(min(abs(bias), 1e-6), bias))
    assert not stands(bias + np.copysign(1e-6, bias))


def test_no_interval_has_no_tipping_point() -> None:
    assert tipping_point(None, 0.25) is None
