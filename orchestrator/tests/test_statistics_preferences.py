"""Two answers side by side, in both orders: the score of an item, and the pull of the position."""

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from judged_pairs import around, judged
from scipy import stats

from tuneproof.analysis import compare
from tuneproof.analysis.preferences import item_preference, preferences_of
from tuneproof.report import build_report, report_json, warnings
from tuneproof.results import Preference

choices = st.sampled_from(["first", "second", "tie"])
repeats = st.lists(st.tuples(choices, choices), min_size=1, max_size=10)
SWAPPED = {"first": "second", "second": "first", "tie": "tie"}


def named(items, criterion="accuracy"):
    return tuple(
        Preference("tuned", "baseline", f"q{place}", criterion, tuple(each))
        for place, each in enumerate(items)
    )


@pytest.mark.parametrize(
    ("asked", "score", "position"),
    [
        ([("first", "first")], 1.0, 0.0),  # the cell's answer in both orders
        ([("second", "second")], -1.0, 0.0),
        ([("first", "second")], 0.0, 1.0),  # what is shown first, whichever it is
        ([("second", "first")], 0.0, -1.0),
        ([("tie", "tie")], 0.0, 0.0),
        ([("first", "tie")], 0.5, 0.5),
        ([("first", "first"), ("tie", "tie")], 0.5, 0.0),
        ([("first", None), ("first", "first")], 1.0, 0.0),  # one order alone does not count
        ([("first", None), (None, "second"), ("first", "first")], None, None),
        ([], None, None),
    ],
)
def test_both_orders_make_the_score(asked, score, position) -> None:
    found = item_preference(asked)
    assert (found.score, found.position) == (score, position)


@given(repeats)
def test_the_other_cell_gets_the_opposite_score_and_the_same_position(asked) -> None:
    found = item_preference(asked)
    other = item_preference([(SWAPPED[second], SWAPPED[first]) for first, second in asked])
    assert other.score == pytest.approx(-found.score)
    assert other.position == pytest.approx(found.position)
    mirrored = item_preference([(second, first) for first, second in asked])
    assert (mirrored.score, mirrored.position) == pytest.approx((found.score, -found.position))


@pytest.mark.parametrize("pull", [0.0, 0.6])
def test_a_judge_drawn_to_the_first_answer_does_not_move_the_score(pull: float) -> None:
    quality = np.random.default_rng(4).normal(0.2, 1.0, 300)
    items = [
        [("first" if better + pull > 0 else "second", "second" if pull > better else "first")]
        for better in quality
    ]
    results = replace(judged(around(0.0, count=300)), preferences=named(items))
    (found,) = preferences_of(results)
    # What is closer than the pull is decided by the order: it counts for neither.
    clear = np.sign(quality) * (abs(quality) > pull)
    assert found.net.difference == pytest.approx(clear.mean())
    assert found.interval.low < clear.mean() < found.interval.high
    assert found.position.difference == pytest.approx((abs(quality) < pull).mean())
    assert found.reversed == pytest.approx((abs(quality) < pull).mean())
    # One order alone would put the pull into the score.
    naive = np.mean([1.0 if first == "first" else -1.0 for ((first, _),) in items])
    assert (naive - clear.mean() > 0.2) == bool(pull)


def test_net_preference_of_single_items_is_a_t_interval() -> None:
    random = np.random.default_rng(9)
    items = [[(("first", "first"), ("second", "second"), ("tie", "tie"))[k]] for k in
             random.integers(0, 3, 200)]  # fmt: skip
    results = replace(judged(around(0.0)), preferences=named(items))
    (found,) = preferences_of(results)
    scores = np.array([item_preference(each).score for each in items])
    expected = stats.ttest_1samp(scores, 0.0).confidence_interval(0.95)
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(expected))
    assert found.ties == pytest.approx((scores == 0).mean())
    assert (found.reversed, found.items, found.unscored) == (0.0, 200, 0)


def test_the_report_shows_preferences_and_where_they_contradict_the_scores() -> None:
    items = [[("second", "second")]] * 150 + [[("first", "second")]] * 40 + [[("first", None)]] * 10
    results = replace(judged(around(0.8)), preferences=named(items))
    comparisons = compare(results)
    page = build_report(results, comparisons)
    assert "Asked which answer is better" in page
    assert "10 questions unscored" in page
    (told,) = report_json(results, comparisons)["preferences"]
    assert (told["items"], told["unscored"]) == (190, 10)
    assert told["net"] == pytest.approx(-150 / 190)
    assert told["reversed"] == pytest.approx(40 / 190)
    assert any("prefers the other" in one.text for one in warnings(results, comparisons))
    assert "Asked which" not in build_report(judged(around(0.8)), compare(judged(around(0.8))))
    assert (
        preferences_of(replace(results, preferences=named([[("tie", None), ("tie", None)]]))) == ()
    )
