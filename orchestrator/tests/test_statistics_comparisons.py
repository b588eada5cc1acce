"""From a study's answers to verdict words: every word, the unscored, the exploratory rest."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tuneproof.analysis import ANSWER_WORDS, Comparison, Outcome, compare, means_by_cell
from tuneproof.results import (
    Answer,
    Cell,
    CriterionGrade,
    Grade,
    ItemResult,
    PrimaryComparison,
    Repeat,
    StudyResults,
)
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
    return StudyResults(
        name="s",
        description="",
        dataset="d",
        synthetic=False,
        gold_only=False,
        toy_model=False,
        judge_model="judge",
        self_judged=False,
        reference_style="full",
        items=tuple(
            ItemResult(name, "?", {"full": ("a",)}, f"c{index % (clusters or count)}", ())
            for index, name in enumerate(names)
        ),
        cells=(
            Cell("baseline", "Baseline", "baseline", 0, 0, None),
            Cell("tuned", "Tuned", "tuned", 200, 1, None),
        ),
        baseline="baseline",
        answers=tuple(
            answer(cell, name, score)
            for cell, scores in (("baseline", baseline), ("tuned", tuned))
            for name, score in zip(names, scores, strict=True)
        ),
        retrieval=None,
        reader_checks=(),
        judge_checks=(),
        primary=(PrimaryComparison("tuned", "baseline", "accuracy"),),
        margin={"accuracy": margin},
        confidence=0.95,
        notes=(),
        provenance={},
    )


def only(results: StudyResults) -> Comparison:
    (found,) = compare(results).primary
    return found


FLAT = [3.0] * 40


def spread(centre: float, width: float) -> list[float]:
    """Scores around 3 + centre, alternating; their mean is exactly that."""
    return [3.0 + centre + (width if index % 2 else -width) for index in range(40)]


@pytest.mark.parametrize(
    ("tuned", "outcome", "words", "safe"),
    [
        (spread(0.8, 0.5), Outcome.BETTER, "better", True),
        (spread(-0.8, 0.5), Outcome.WORSE, "worse", False),
        (spread(0.1, 0.1), Outcome.BETTER, "better, within the margin", True),
        (spread(-0.1, 0.1), Outcome.WORSE, "worse, within the margin", True),
        (spread(0.01, 0.2), Outcome.EQUIVALENT, "equivalent", True),
        (spread(0.2, 1.5), Outcome.UNDECIDED, "undecided (needs about 300 items)", False),
    ],
)
def test_every_verdict_word_is_read_off_its_interval(
    tuned: list[float], outcome: Outcome, words: str, safe: bool
) -> None:
    found = only(study(FLAT, tuned))
    assert (found.outcome, found.words, found.non_inferior) == (outcome, words, safe)
    assert found.interval is not None
    assert found.interval.low < (found.difference or 0.0) < found.interval.high


def test_too_few_clusters_say_so() -> None:
    found = only(study(FLAT, spread(0.8, 0.5), clusters=7))
    assert found.outcome is Outcome.TOO_FEW_CLUSTERS
    assert found.words == "too few clusters (7; an interval needs 10)"
    assert (found.interval, found.non_inferior) == (None, None)
    assert found.difference == pytest.approx(0.8)


def test_a_single_item_is_no_study() -> None:
    found = only(study([3.0], [5.0]))
    assert (found.outcome, found.interval) == (Outcome.TOO_FEW_CLUSTERS, None)


def test_unscored_answers_that_could_turn_the_verdict_leave_it_undecided() -> None:
    lost: list[float | None] = [*spread(0.3, 0.3)]
    assert only(study(FLAT, lost)).outcome is Outcome.BETTER
    lost[:8] = [None] * 8
    found = only(study(FLAT, lost))
    assert (found.outcome, found.words) == (Outcome.UNSCORED, "undecided (unscored)")
    assert (found.items, found.unscored, found.unscored_against) == (32, 8, 0)
    # 32 items at +0.3; the other eight at 1 - 3 or at 5 - 3.
    assert found.bounds == pytest.approx(((32 * 0.3 - 16) / 40, (32 * 0.3 + 16) / 40))
    assert found.non_inferior is False


def test_unscored_answers_that_cannot_turn_the_verdict_do_not() -> None:
    tuned: list[float | None] = [*spread(-1.5, 0.2)]
    tuned[3] = None
    found = only(study(FLAT, tuned))
    assert (found.outcome, found.unscored) == (Outcome.WORSE, 1)


def test_an_unscored_baseline_counts_against_the_cell_too() -> None:
    baseline: list[float | None] = [None] * 8 + FLAT[8:]
    found = only(study(baseline, spread(0.3, 0.3)))
    assert found.outcome is Outcome.UNSCORED
    assert (found.unscored, found.unscored_against) == (0, 8)


def test_a_judge_that_never_answered_leaves_everything_unscored() -> None:
    results = study(FLAT, FLAT)
    dead = tuple(replace(one, grade=None, error="judge is down") for one in results.answers)
    found = only(replace(results, answers=dead))
    assert found.outcome is Outcome.UNSCORED
    assert (found.difference, found.mean, found.unscored) == (None, None, 40)


def test_answers_that_are_missing_count_as_unscored() -> None:
    results = study(FLAT, spread(0.8, 0.5))
    found = only(replace(results, answers=results.answers[:-2]))
    assert (found.items, found.unscored) == (38, 2)


def test_equal_scores_are_not_called_equivalent_for_want_of_variance() -> None:
    assert only(study(FLAT, FLAT)).words.startswith("undecided (needs about")
    assert only(study(FLAT * 5, FLAT * 5)).outcome is Outcome.EQUIVALENT


def test_intervals_widen_with_the_number_of_named_comparisons() -> None:
    results = study(FLAT, spread(0.3, 0.7))
    alone = compare(results)
    named = (*results.primary, PrimaryComparison("tuned", "baseline", "token_f1"))
    both = compare(replace(results, primary=named, margin={"accuracy": 0.25, "token_f1": 0.1}))
    assert (alone.adjusted_confidence, both.adjusted_confidence) == pytest.approx((0.95, 0.975))
    assert both.adjustment == "Bonferroni"
    assert alone.primary[0].interval is not None
    assert both.primary[0].interval is not None
    assert both.primary[0].interval.low < alone.primary[0].interval.low


def test_lexical_measures_and_length_are_explored_without_a_verdict() -> None:
    found = compare(study(FLAT, spread(0.3, 0.7)))
    assert [one.measure for one in found.exploratory] == ["token_f1", ANSWER_WORDS]
    assert {(one.outcome, one.words, one.margin) for one in found.exploratory} == {
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
        ({"margin": {}}, "`accuracy` has no margin"),
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
