"""Several primary comparisons: Bonferroni, Holm, a fixed sequence; words that hold together."""

import math
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from statsmodels.stats.multitest import multipletests

from tuneproof.analysis import Verdict, compare
from tuneproof.analysis.families import Adjustment, Tails, tails_of
from tuneproof.results import Answer, Cell, CriterionGrade, Grade, ItemResult, Looks, StudyResults
from tuneproof.results.testing import results_of

shares = st.lists(st.floats(0.0001, 0.2), min_size=1, max_size=9)


def excludes(values):
    return [lambda tail, value=value: value <= tail for value in values]


@settings(max_examples=20)  # Each call of statsmodels collects all garbage of the session.
@given(shares)
def test_what_leaves_the_family_is_what_holm_rejects(values) -> None:
    never = excludes([1.0] * len(values))
    found = tails_of(Adjustment.HOLM, 0.025, excludes(values), never)
    rejected = multipletests(values, alpha=0.025, method="holm")[0]
    assert [value <= one.low for value, one in zip(values, found, strict=True)] == list(rejected)
    # The other family lost nobody.
    assert {one.high for one in found} == {0.025 / len(values)}


@given(shares)
def test_bonferroni_is_a_share_and_holm_never_less(values) -> None:
    never, some = excludes([1.0] * len(values)), excludes(values)
    same = tails_of(Adjustment.BONFERRONI, 0.025, some, never)
    holm = tails_of(Adjustment.HOLM, 0.025, some, never)
    assert {one.low for one in same} == {0.025 / len(values)}
    assert all(one.low >= other.low for one, other in zip(holm, same, strict=True))


def test_a_sequence_ends_after_the_first_that_does_not_decide() -> None:
    found = tails_of(
        Adjustment.SEQUENCE, 0.025, excludes([0.001, 0.02, 0.3, 0.001]), excludes([1.0] * 4)
    )
    assert [one.low for one in found] == [0.025, 0.025, 0.025, None]
    assert [one.high for one in found] == [0.025, None, None, None]
    assert tails_of(Adjustment.SEQUENCE, 0.025, [], []) == ()
    assert tails_of(Adjustment.HOLM, 0.025, [], []) == ()
    assert found[0] == Tails(0.025, 0.025)


def family(shifts, random: np.random.Generator | None = None) -> StudyResults:
    """An arm for each shift; its 60 differences are the shift ± .5, or the shift and noise."""
    cells = [Cell("baseline", "Baseline", "baseline", 0, 0, None, tuned=False)]
    cells += [
        Cell(f"arm-{place}", "Arm", f"arm-{place}", 1, 1, None) for place in range(len(shifts))
    ]
    noise = np.resize([0.5, -0.5], (len(shifts), 60))
    if random is not None:
        noise = random.normal(0.0, 0.7, noise.shape)
    scores = [np.zeros(60), *(shift + each for shift, each in zip(shifts, noise, strict=True))]

    def answer(cell: str, item: int, score: float) -> Answer:
        grade = CriterionGrade("accuracy", "a@1", "", 3.0 + score, None, ())
        graded = Grade({"accuracy": grade}, {}, "judge")
        return Answer(cell, f"q{item}", "a", "stop", 1, 1, 1.0, cell, graded)

    answers = [
        answer(cell.name, item, float(score))
        for cell, values in zip(cells, scores, strict=True)
        for item, score in enumerate(values.clip(-2, 2))
    ]
    items = [ItemResult(f"q{item}", "?", {}, f"d{item}", ()) for item in range(60)]
    return results_of(items, cells, answers, criteria=["accuracy"])


def words(shifts, adjustment, **more):
    results = replace(family(shifts), adjustment=adjustment, **more)
    return [one.verdict for one in compare(results).primary]


def test_holm_gives_the_share_of_what_is_decided_to_the_rest() -> None:
    # .155 ± .5 on 60 questions: two-sided p = .019, above .05/4 and below .05/2.
    shifts = [1.0, 1.0, 0.155, 0.0]
    better, undecided = Verdict.BETTER, Verdict.UNDECIDED
    assert words(shifts, "bonferroni")[:3] == [better, better, undecided]
    assert words(shifts, "holm")[:3] == [better, better, better]
    comparisons = compare(replace(family(shifts), adjustment="holm"))
    confidences = [one.interval.confidence for one in comparisons.primary]
    assert confidences[0] == pytest.approx(1 - 0.05 / 4)
    # Its lower end at .025/2, its upper end at .025/4: nothing is worse.
    assert confidences[2] == pytest.approx(1 - 0.025 / 2 - 0.025 / 4)
    assert all(one.interval.low > 0.0 for one in comparisons.primary[:3])


def test_a_sequence_tests_each_at_the_whole_error_and_says_where_it_ended() -> None:
    better, not_tested = Verdict.BETTER, Verdict.NOT_TESTED
    assert words([0.155, 1.0, 0.0, 1.0], "sequence") == [better, better, not_tested, not_tested]
    found = compare(replace(family([0.0, -1.0]), adjustment="sequence")).primary
    assert [one.words for one in found] == [
        "equivalent" if found[0].verdict is Verdict.EQUIVALENT else "undecided",
        "not tested (the sequence ended before it)",
    ]
    assert words([-1.0, -1.0], "sequence") == [Verdict.WORSE, Verdict.WORSE]
    # Better first, then worse: the second one is not tested in that direction.
    assert words([1.0, -1.0], "sequence") == [better, not_tested]


def test_looks_and_holm_share_one_error() -> None:
    looks = Looks(4, 2, (0.25, 0.5, 0.75, 1.0))
    early = compare(replace(family([1.0, 0.155]), adjustment="holm", looks=looks))
    late = compare(replace(family([1.0, 0.155]), adjustment="holm"))
    assert early.primary[1].interval.confidence > late.primary[1].interval.confidence
    assert early.look == "look 2 of 4"


@pytest.mark.parametrize("adjustment", list(Adjustment))
def test_false_words_are_as_rare_as_stated(adjustment) -> None:
    # Two of five differ much, the others not at all: what the two leave must not cost the rest.
    random = np.random.default_rng(12)
    rounds, false = 300, 0
    for _ in range(rounds):
        results = replace(family([1.5, 1.5, 0.0, 0.0, 0.0], random), adjustment=adjustment)
        wrong = (Verdict.BETTER, Verdict.WORSE)
        false += any(one.verdict in wrong for one in compare(results).primary[2:])
    assert false / rounds <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / rounds)
