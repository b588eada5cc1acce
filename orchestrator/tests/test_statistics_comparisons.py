"""From a study's answers to verdict words: every word, the unscored, the exploratory rest."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tuneproof.analysis import Comparison, Verdict, compare, means_by_cell, repeats_by_cell
from tuneproof.results import (
    ANSWER_WORDS,
    Answer,
    Cell,
    CriterionGrade,
    Grade,
    ItemResult,
    Measure,
    PrimaryComparison,
    Repeat,
    StudyResults,
)
from tuneproof.results.testing import results_of
from tuneproof.servicekit.errors import InvalidInput

Scores = Sequence[float | None]


def answer(cell: str, item: str, score: float | None, *, judged: bool = True) -> Answer:
    accuracy = CriterionGrade("accuracy", "accuracy@1", "sha256:0", score, None, ())
    grade = Grade({"accuracy": accuracy} if judged else {}, {"token_f1": 0.5}, "judge")
    return Answer(cell, item, "46 dBm .", "stop", 90, 3, 0.1, cell, grade)


def study(
    baseline: Scores, tuned: Scores, *, clusters: int | None = None, margin: float = 0.25
) -> StudyResults:
    """One tuned cell against the baseline by accuracy; items spread over the clusters in turn."""
    count = len(baseline)
    names = [f"q{index}" for index in range(count)]
    return results_of(
        [
            ItemResult(name, "?", {"full": ("a",)}, f"c{index % (clusters or count)}", ())
            for index, name in enumerate(names)
        ],
        [
            Cell("baseline", "Baseline", "baseline", 0, 0, None),
            Cell("tuned", "Tuned", "tuned", 200, 1, None),
        ],
        [
            answer(cell, name, score)
            for cell, scores in (("baseline", baseline), ("tuned", tuned))
            for name, score in zip(names, scores, strict=True)
        ],
        criteria=["accuracy"],
        margin={"accuracy": margin},
    )


def only(results: StudyResults) -> Comparison:
    (found,) = compare(results).primary
    return found


FLAT = [3.0] * 40


def spread(centre: float, width: float) -> list[float]:
    """Scores around 3 + centre, alternating; their mean is exactly that."""
    return [3.0 + centre + (width if index % 2 else -width) for index in range(40)]


@pytest.mark.parametrize(
    ("tuned", "verdict", "words", "safe"),
    [
        (spread(0.8, 0.5), Verdict.BETTER, "better", True),
        (spread(-0.8, 0.5), Verdict.WORSE, "worse", False),
        (spread(0.1, 0.1), Verdict.BETTER, "better, within the margin", True),
        (spread(-0.1, 0.1), Verdict.WORSE, "worse, within the margin", True),
        (spread(0.01, 0.2), Verdict.EQUIVALENT, "equivalent", True),
        (spread(0.2, 1.5), Verdict.UNDECIDED, "undecided", False),
    ],
)
def test_every_verdict_word_is_read_off_its_interval(
    tuned: list[float], verdict: Verdict, words: str, safe: bool
) -> None:
    found = only(study(FLAT, tuned))
    assert (found.verdict, found.words, found.non_inferior) == (verdict, words, safe)
    assert found.interval is not None
    assert found.interval.low < (found.difference or 0.0) < found.interval.high


def test_too_few_clusters_say_so() -> None:
    found = only(study(FLAT, spread(0.8, 0.5), clusters=7))
    assert found.verdict is Verdict.TOO_FEW_CLUSTERS
    assert found.words == "too few clusters (7; an interval needs 10)"
    assert (found.interval, found.non_inferior) == (None, None)
    assert found.difference == pytest.approx(0.8)


def test_a_single_item_is_no_study() -> None:
    found = only(study([3.0], [5.0]))
    assert (found.verdict, found.interval) == (Verdict.TOO_FEW_CLUSTERS, None)


def test_unscored_answers_that_could_turn_the_verdict_leave_it_undecided() -> None:
    lost: list[float | None] = [*spread(0.3, 0.3)]
    assert only(study(FLAT, lost)).verdict is Verdict.BETTER
    lost[:8] = [None] * 8
    found = only(study(FLAT, lost))
    assert (found.verdict, found.words) == (Verdict.UNSCORED, "undecided (unscored)")
    assert (found.items, found.unscored, found.unscored_against) == (32, 8, 0)
    # 32 items at +0.3; the other eight at 1 - 3 or at 5 - 3.
    assert found.bounds == pytest.approx(((32 * 0.3 - 16) / 40, (32 * 0.3 + 16) / 40))
    assert found.non_inferior is False


def test_unscored_answers_that_cannot_turn_the_verdict_do_not() -> None:
    tuned: list[float | None] = [*spread(-1.5, 0.2)]
    tuned[3] = None
    found = only(study(FLAT, tuned))
    assert (found.verdict, found.unscored) == (Verdict.WORSE, 1)


def test_an_unscored_baseline_counts_against_the_cell_too() -> None:
    baseline: list[float | None] = [None] * 8 + FLAT[8:]
    found = only(study(baseline, spread(0.3, 0.3)))
    assert found.verdict is Verdict.UNSCORED
    assert (found.unscored, found.unscored_against) == (0, 8)


def test_a_judge_that_never_answered_leaves_everything_unscored() -> None:
    results = study(FLAT, FLAT)
    dead = tuple(replace(one, grade=None, error="judge is down") for one in results.answers)
    found = only(replace(results, answers=dead))
    assert found.verdict is Verdict.UNSCORED
    assert (found.difference, found.mean, found.unscored) == (None, None, 40)


def test_answers_that_are_missing_count_as_unscored() -> None:
    results = study(FLAT, spread(0.8, 0.5))
    found = only(replace(results, answers=results.answers[:-2]))
    assert (found.items, found.unscored) == (38, 2)


def test_equal_scores_are_not_called_equivalent_without_variance() -> None:
    assert only(study(FLAT, FLAT)).verdict is Verdict.UNDECIDED
    assert only(study(FLAT * 5, FLAT * 5)).verdict is Verdict.EQUIVALENT


def test_intervals_widen_with_the_number_of_named_comparisons() -> None:
    results = study(FLAT, spread(0.3, 0.7))
    alone = compare(results)
    named = (*results.primary, PrimaryComparison("tuned", "baseline", "token_f1"))
    both = compare(replace(results, primary=named, margin={"accuracy": 0.25, "token_f1": 0.1}))
    assert (alone.adjusted_confidence, both.adjusted_confidence) == pytest.approx((0.95, 0.975))
    assert both.adjustment == "bonferroni"
    assert alone.primary[0].interval is not None
    assert both.primary[0].interval is not None
    assert both.primary[0].interval.low < alone.primary[0].interval.low


def test_lexical_measures_and_length_are_explored_without_a_verdict() -> None:
    found = compare(study(FLAT, spread(0.3, 0.7)))
    assert [one.measure for one in found.exploratory] == ["token_f1", ANSWER_WORDS.name]
    assert {(one.verdict, one.words, one.margin) for one in found.exploratory} == {
        (None, "exploratory", None)
    }
    # Equal lengths: no upper end, so that nothing bounds what unseen clusters could do.
    assert found.exploratory[1].interval is None


def test_repeats_do_not_multiply_items() -> None:
    results = study(FLAT, spread(0.3, 0.7))
    ten = tuple(Repeat(seed, 3, "", "score 3") for seed in range(10))
    repeated = tuple(
        replace(
            one,
            grade=replace(
                one.grade,
                criteria={"accuracy": replace(one.grade.criteria["accuracy"], repeats=ten)},
            ),
        )
        for one in results.answers
        if one.grade
    )
    assert only(replace(results, answers=repeated)) == only(results)


def test_means_count_what_is_unscored() -> None:
    tuned: list[float | None] = [4.0, None, 2.0]
    found = means_by_cell(study([3.0, 3.0, 3.0], tuned))["tuned"]["accuracy"]
    assert (found.mean, found.scored, found.unscored) == (3.0, 2, 1)
    assert found.standard_deviation == pytest.approx(2**0.5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"margin": {}}, "`accuracy` needs a margin of 0 or more"),
        (
            {"primary": (PrimaryComparison("x", "baseline", "accuracy"),)},
            "cell `x`.*baseline, tuned",
        ),
        (
            {
                "primary": (PrimaryComparison("tuned", "baseline", "tone"),),
                "margin": {"tone": 1.0},
            },
            "scored by `tone`; there are: accuracy, token_f1",
        ),
        ({"confidence": 95.0}, "between 0 and 1, got 95.0"),
    ],
)
def test_what_cannot_be_compared_is_named(change: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        compare(replace(study(FLAT, FLAT), **change))  # type: ignore[arg-type]


def test_a_few_unscored_answers_make_equivalence_likelier_with_more_items_not_rarer() -> None:
    # Three equal readings said `equivalent` in .78 of studies of 300 items and .01 of 3,000: the
    # shift by the unscored stays at ±.04 points while the intervals grow narrower, so that one of
    # them leaves zero. The hull tends to ±.04, well inside ±.25.
    shares = {}
    for items, rounds in ((300, 40), (3000, 8)):
        random = np.random.default_rng(items)
        equivalent = 0
        for _ in range(rounds):
            tuned: list[float | None] = [*np.clip(random.normal(3.0, 1.0, items), 1.0, 5.0)]
            for place in random.choice(items, items // 100, replace=False):
                tuned[place] = None
            found = only(study([3.0] * items, tuned))
            assert found.interval is not None
            assert found.scored_interval is not None
            assert found.interval.low < found.scored_interval.low
            assert found.interval.high > found.scored_interval.high
            equivalent += found.verdict is Verdict.EQUIVALENT
        shares[items] = equivalent / rounds
    assert shares[300] >= 0.75
    assert shares[3000] == 1.0


def test_the_verdict_is_read_off_the_interval_that_is_shown() -> None:
    tuned: list[float | None] = [*spread(0.1, 0.1)]
    assert only(study(FLAT, tuned, margin=0.5)).words == "better, within the margin"
    tuned[0] = None
    found = only(study(FLAT, tuned, margin=0.5))
    assert found.interval is not None
    assert found.scored_interval is not None
    assert found.scored_interval.low > 0.0 > found.interval.low
    assert (found.verdict, found.words) == (Verdict.EQUIVALENT, "equivalent")


@pytest.mark.parametrize(("low", "high"), [(0, 10), (1, 3), (0, 100)])
def test_the_scale_is_the_rubric_s(low: float, high: float) -> None:
    # With 1 to 5 taken for granted, 6 points lost of 10 gave an interval from -4.0 to -5.84.
    step = (high - low) / 10
    results = replace(
        study(
            [high - step * (index % 3) / 10 for index in range(40)],
            [low + step * (index % 4) for index in range(40)],
        ),
        criteria=(Measure("accuracy", low, high, "points"),),
        margin={"accuracy": step},
    )
    found = only(results)
    assert found.interval is not None
    assert found.difference is not None
    assert low - high <= found.interval.low < found.difference < found.interval.high < 0.0
    assert found.verdict is Verdict.WORSE
    assert found.scale.words == f"points, {low} to {high}"
    lost = tuple(
        replace(one, grade=None) if one.cell == "tuned" and one.item == "q0" else one
        for one in results.answers
    )
    hull = only(replace(results, answers=lost))
    assert hull.bounds is not None
    assert hull.bounds[1] - hull.bounds[0] == pytest.approx((high - low) / 40)


def test_a_criterion_without_a_range_is_named() -> None:
    with pytest.raises(InvalidInput, match="do not say the range of accuracy"):
        compare(replace(study(FLAT, FLAT), criteria=()))


def test_every_verdict_says_who_scored() -> None:
    results = study(FLAT, spread(0.3, 0.7))
    named = (*results.primary, PrimaryComparison("tuned", "baseline", "token_f1"))
    both = compare(replace(results, primary=named, margin={"accuracy": 0.25, "token_f1": 0.1}))
    assert [one.by for one in both.primary] == ["judge judge", "word overlap"]


def test_unequal_clusters_say_what_they_count_as() -> None:
    results = study(FLAT * 5, spread(0.8, 0.5) * 5)
    items = tuple(
        replace(item, cluster="big" if index < 185 else f"c{index}")
        for index, item in enumerate(results.items)
    )
    found = only(replace(results, items=items))
    assert (found.verdict, found.interval) == (Verdict.TOO_FEW_CLUSTERS, None)
    assert found.words.startswith("too few clusters (16, so unequal that they count as 2.")


def test_lost_repeats_are_counted_by_cell() -> None:
    results = study(FLAT, FLAT)
    first = results.answers[-1]
    assert first.grade is not None
    repeats = (Repeat(1, 3, "", ""), Repeat(2, None, "no_form", ""))
    graded = replace(first.grade.criteria["accuracy"], repeats=repeats)
    answers = (
        *results.answers[:-1],
        replace(first, grade=replace(first.grade, criteria={"accuracy": graded})),
    )
    found = repeats_by_cell(replace(results, answers=answers))
    assert (found["tuned"].asked, found["tuned"].lost) == (2, 1)
    assert (found["baseline"].asked, found["baseline"].lost) == (0, 0)
