"""The lexical scores, against rouge-score and by cases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from tuneproof_judge import lexical

TOKENS = [
    "a",
    "the",
    "an",
    "signal",
    "signals",
    "running",
    "runs",
    "46",
    "dBm.",
    "Power,",
    "Zürich",
    "-",
    "!",
]
WORDS = st.lists(st.sampled_from(TOKENS)).map(" ".join)


@pytest.mark.parametrize(
    ("answer", "reference", "exact"),
    [
        ("The Alder 40.", "alder 40", 1.0),
        ("  46   dBm ", "46 dBm.", 1.0),
        ("46 W", "46 dBm", 0.0),
        ("theme", "me", 0.0),
        ("", "46 dBm", 0.0),
        ("the", "a", 1.0),
    ],
)
def test_exact_match_after_normalisation(answer: str, reference: str, exact: float) -> None:
    assert lexical.exact_match(answer, reference) == exact


@pytest.mark.parametrize(
    ("answer", "reference", "f1"),
    [
        ("power is 46 dBm", "46 dBm", 2 / 3),
        ("46 46 46", "46", 0.5),
        ("", "46", 0.0),
        ("the", "", 1.0),
        ("red", "blue", 0.0),
    ],
)
def test_token_f1(answer: str, reference: str, f1: float) -> None:
    assert lexical.token_f1(answer, reference) == pytest.approx(f1)


@given(WORDS, WORDS)
def test_rouge_l_is_rouge_scores(answer: str, reference: str) -> None:
    wanted = RougeScorer(["rougeL"], use_stemmer=True).score(reference, answer)["rougeL"].fmeasure
    assert lexical.rouge_l(answer, reference) == pytest.approx(wanted, abs=1e-12)


@given(WORDS, st.lists(WORDS, min_size=1, max_size=4))
def test_the_best_reference_counts(answer: str, references: list[str]) -> None:
    scores = lexical.score(answer, references)
    assert scores.exact_match == max(lexical.exact_match(answer, each) for each in references)
    assert scores.token_f1 == max(lexical.token_f1(answer, each) for each in references)
    assert scores.rouge_l == max(lexical.rouge_l(answer, each) for each in references)
    assert 0 <= scores.rouge_l <= 1


@pytest.mark.timeout(30)
def test_the_longest_texts_are_scored_in_time() -> None:
    answer = " ".join(f"w{n % 911}" for n in range(20_000))
    reference = " ".join(f"w{n % 877}" for n in range(20_000))
    assert 0 < lexical.score(answer, [reference]).rouge_l < 1
