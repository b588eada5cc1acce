"""Weighted κ against hand computation and scikit-learn."""

import hypothesis.strategies as st
import pytest
from hypothesis import assume, given, settings

from tuneproof.analysis import confusion_matrix, weighted_kappa
from tuneproof.servicekit.errors import InvalidInput

LEVELS = (1, 2, 3, 4, 5)
pairs = st.lists(st.tuples(st.sampled_from(LEVELS), st.sampled_from(LEVELS)), min_size=2)


def test_kappa_of_a_table_computed_by_hand() -> None:
    # O: (1,1) twice, (1,3) once, (3,3) once. Σ wO = 4; rows 3,1; columns 2,2; n = 4.
    # E(1,3) = 3·2/4 = 1.5, E(3,1) = 1·2/4 = .5, so Σ wE = 4·2 = 8 and κ = 1 - 4/8.
    assert weighted_kappa([1, 1, 1, 3], [1, 1, 3, 3], LEVELS) == pytest.approx(0.5, abs=1e-12)


@given(pairs)
@settings(max_examples=60, deadline=None)
def test_kappa_equals_scikit_learn(drawn: list[tuple[int, int]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="pip install scikit-learn")
    truth, said = [pair[0] for pair in drawn], [pair[1] for pair in drawn]
    assume(len({*truth, *said}) > 1)
    theirs = metrics.cohen_kappa_score(truth, said, labels=list(LEVELS), weights="quadratic")
    assert weighted_kappa(truth, said, LEVELS) == pytest.approx(theirs, abs=1e-9)


@given(pairs)
def test_kappa_is_symmetric_and_bounded(drawn: list[tuple[int, int]]) -> None:
    truth, said = [pair[0] for pair in drawn], [pair[1] for pair in drawn]
    kappa = weighted_kappa(truth, said, LEVELS)
    assert kappa == pytest.approx(weighted_kappa(said, truth, LEVELS), abs=1e-12)
    assert -1.0 - 1e-12 <= kappa <= 1.0 + 1e-12


def test_perfect_agreement_is_one_and_no_variation_shows_nothing() -> None:
    assert weighted_kappa([1, 3, 5], [1, 3, 5], LEVELS) == 1.0
    assert weighted_kappa([5, 5, 5], [5, 5, 5], LEVELS) == 0.0


def test_confusion_has_truth_in_rows() -> None:
    assert confusion_matrix([1, 1, 2], [2, 2, 1], (1, 2)).tolist() == [[0, 2], [1, 0]]


@pytest.mark.parametrize(
    ("truth", "said", "levels", "words"),
    [
        ([1, 2], [1], LEVELS, "2 true values but 1 given"),
        ([6], [1], LEVELS, r"\[6\] are not among the levels"),
        ([], [], LEVELS, "at least one pair"),
        ([1], [1], (1,), "at least two different values"),
    ],
)
def test_bad_input_is_named(
    truth: list[int], said: list[int], levels: tuple[int, ...], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        weighted_kappa(truth, said, levels)
