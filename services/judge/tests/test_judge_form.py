"""The parser of the form: whatever a judge writes, never a wrong score."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneproof.rubrics import Reasoning
from tuneproof_judge.form import Found, find_score, read_score
from tuneproof_judge.grade import Failure, FailureKind

SCALE = range(1, 6)
NO_FORM, OUT_OF_RANGE = FailureKind.NO_FORM, FailureKind.OUT_OF_RANGE


@pytest.mark.parametrize(
    "completion",
    [
        "Score: 4",
        "Score:4",
        "Score: 4\n",
        "Reasons: same number, same unit.\nScore: 4",
        "reference 46 dBm, answer 46 dBm, same. Score: 4",
        "**Score: 4**",
        "**Score:** 4",
        "**Score**: 4",
        "*Score:* **4**  \n\n",
        "__Score: 4__",
        "- the score of the match was 3 to 2\n- nothing else\n\n**Score:**\n4",
        "I gave it 5 at first, then 10/10. Score: 4",
        "Score: 4.",
        "**Score:** 4.",
        "Score: `4`",
        "SCORE: 4",
        "The answer is right.\nscore: 4",
        "Final score: 4",
        "### Final Score: 4",
        "- **Overall score**: 4",
        "> Score: 4",
        "Score: <4>",
        "Score: [4]",
        "Score: [[4]]",
        "Score: (4)",
        'Score: "4"',
        "Score: $\\boxed{4}$",
        "```\nReasons: same.\nScore: 4\n```",
        "Reasons: same.\n```text\nScore: 4\n```\n",
        '{"reasons": "same", "score": 4}',
        '```json\n{"score": 4, "reasons": "not a Score: 5"}\n```',
        '{"Score": "4"}',
        "<think>Score: 2? no, Score: 3?</think>\n\nReasons: same.\nScore: 4",
    ],
)
def test_a_well_formed_end_is_read(completion: str) -> None:
    assert read_score(completion, SCALE) == 4


@pytest.mark.parametrize(
    ("completion", "kind"),
    [
        ("", NO_FORM),
        ("4", NO_FORM),
        ("Score:", NO_FORM),
        ("Score: ", NO_FORM),
        ("Score: four", NO_FORM),
        ("Score: 4 because it is right", NO_FORM),
        ("Score: 4\nScore: 5", NO_FORM),
        ("Score: 4 Score: 4", NO_FORM),
        ("The answer says 'score : 5'.\nScore: 2", NO_FORM),
        ("Score\uff1a5", NO_FORM),
        ("Underscore: 5", NO_FORM),
        ("my_Score: 5", NO_FORM),
        ("Score: 4 or 5", NO_FORM),
        ("Score: \u0664", NO_FORM),
        ("Score: \uff14", NO_FORM),
        ("Score: 4\u00b2", NO_FORM),
        ("Score: 1_0", NO_FORM),
        ("Score: NaN", NO_FORM),
        ("Score: **4** and **5**", NO_FORM),
        ("GRADE: 5", NO_FORM),
        ("I would say its score: 5", NO_FORM),
        ("Score: <4", NO_FORM),
        ("Score: >4", NO_FORM),
        ("Score: ~4", NO_FORM),
        ("Score: (4 or 5)", NO_FORM),
        ("Score: 4..", NO_FORM),
        ("Score: 4 </think> Score: 5", NO_FORM),
        ("said </think>\nScore: 2 </think>Score: 5", NO_FORM),
        ('{"score": 4, "score": 5}', NO_FORM),
        ('{"score": 4, "other": 5}', NO_FORM),
        ('{"a": {"score": 4}}', NO_FORM),
        ('{"score": true}', NO_FORM),
        ('{"score": 4', NO_FORM),
        ('{"score": 4.0}', OUT_OF_RANGE),
        ('{"score": 9}', OUT_OF_RANGE),
        ("{" * 100_000 + '"score": 4}', NO_FORM),
        ("Score: 0", OUT_OF_RANGE),
        ("Score: 6", OUT_OF_RANGE),
        ("Score: 10", OUT_OF_RANGE),
        ("Score: 05", OUT_OF_RANGE),
        ("Score: -4", OUT_OF_RANGE),
        ("Score: +4", OUT_OF_RANGE),
        ("Score: 4.5", OUT_OF_RANGE),
        ("Score: 4.0", OUT_OF_RANGE),
        ("Score: 4,5", OUT_OF_RANGE),
        ("Score: 4/5", OUT_OF_RANGE),
        ("**Score: 4/5**", OUT_OF_RANGE),
        ("Score: 99999999999999999999", OUT_OF_RANGE),
    ],
)
def test_anything_else_is_a_failure_of_its_kind(completion: str, kind: FailureKind) -> None:
    outcome = read_score(completion, SCALE)
    assert isinstance(outcome, Failure)
    assert outcome.kind is kind


def test_the_detail_quotes_the_end() -> None:
    outcome = read_score("a" * 500 + " I would say five", SCALE)
    assert isinstance(outcome, Failure)
    assert "I would say five" in outcome.detail
    assert len(outcome.detail) < 200


def test_another_scale_has_another_range() -> None:
    assert read_score("Score: 10", range(11)) == 10
    assert read_score("Score: 0", range(11)) == 0
    assert isinstance(read_score("Score: 11", range(11)), Failure)


NO_MARKER = st.text().filter(lambda text: not re.search(r"score", text, re.IGNORECASE))
FORM = st.builds(
    "{0}Score:{1} {2}{3}{4}".format,
    st.sampled_from(["", "**", "*", "__"]),
    st.sampled_from(["", "**"]),
    st.sampled_from(["", "**"]),
    st.integers(1, 5),
    st.sampled_from(["", "**", "\n", "  \n"]),
)


@given(reasons=NO_MARKER, score=st.integers(1, 5))
def test_reasons_never_change_the_score(reasons: str, score: int) -> None:
    assert read_score(f"{reasons}\nScore: {score}", SCALE) == score


@given(form=FORM)
def test_emphasis_never_changes_the_score(form: str) -> None:
    written = re.search(r"[1-5]", form)
    assert written is not None
    assert read_score(f"Reasons: none.\n{form}", SCALE) == int(written[0])


@given(value=st.text(st.characters(categories=["N", "P", "S", "L"]), max_size=12))
def test_only_a_number_of_the_scale_is_a_score(value: str) -> None:
    outcome = read_score(f"Score: {value}", SCALE)
    bare = value.strip("*_")
    if isinstance(outcome, int):
        assert bare == str(outcome)
    else:
        assert bare not in {"1", "2", "3", "4", "5"} or len(value) > len(bare)


@given(
    first=st.integers(1, 5),
    second=st.integers(1, 5),
    marker=st.sampled_from(["Score:", "score:", "SCORE :", "**Score**:", "Score\n:"]),
    between=st.text(max_size=20),
)
def test_two_forms_are_none(first: int, second: int, marker: str, between: str) -> None:
    outcome = read_score(f"{marker} {first}{between}\nScore: {second}", SCALE)
    assert isinstance(outcome, Failure)
    assert outcome.kind is NO_FORM


@given(after=st.text(min_size=1).filter(lambda text: text.strip("*_`. \t\r\n\f\v") != ""))
def test_what_goes_on_after_the_score_is_none(after: str) -> None:
    outcome = read_score(f"Score: 3 {after}", SCALE)
    assert isinstance(outcome, Failure) or not after.strip()


@given(st.text(alphabet="Score: 12345/.*_\n", max_size=40))
def test_no_soup_of_the_forms_own_letters_gives_a_score_that_is_not_its_end(soup: str) -> None:
    outcome = read_score(soup, SCALE)
    if isinstance(outcome, int):
        bare = soup.rstrip("*_ \n.")
        assert bare.endswith(str(outcome))
        assert bare[:-1].rstrip("*_ \n")[-1] in ":"
        assert soup.count("Score") == 1


@pytest.mark.parametrize(
    ("reasoning", "completion"),
    [
        ("after", "Score: 4"),
        ("after", "Score: 4\nReasons: 5 of 5 points, 10/10."),
        ("after", "**Score:** 4\n\nReasons: it says 5."),
        ("after", "Score: 4.\nReasons: so."),
        ("after", '{"score": 4, "reasons": "so"}'),
        ("none", "4"),
        ("none", " 4\n"),
        ("none", "**4**"),
        ("none", "4."),
        ("none", "```\n4\n```"),
        ("none", "Score: 4"),
        ("none", "**Score:** 4"),
        ("none", "<think>5?</think>4"),
    ],
)
def test_the_score_stands_where_the_rubric_wants_it(reasoning: Reasoning, completion: str) -> None:
    assert read_score(completion, SCALE, reasoning) == 4
    found = find_score(completion, SCALE, reasoning)
    assert isinstance(found, Found)
    assert completion[found.start] == "4"


@pytest.mark.parametrize(
    ("reasoning", "completion"),
    [
        ("before", "4"),
        ("before", "Score: 4\nReasons: so."),
        ("after", "4"),
        ("after", "Reasons: so.\nScore: 4"),
        ("after", "Score: 4 or 5\nReasons: so."),
        ("after", "Score: 4\nReasons: not a score: 5"),
        ("none", "Reasons: so.\nScore: 4"),
        ("none", "4 of 5"),
        ("none", "I say 4"),
        ("none", "4\n5"),
        ("none", "4.5"),
    ],
)
def test_a_score_in_another_place_is_none(reasoning: Reasoning, completion: str) -> None:
    assert isinstance(read_score(completion, SCALE, reasoning), Failure)


WRAPPED = st.builds(
    lambda before, wrap, opens, after: f"{before}{opens}{wrap}{after}",
    st.sampled_from(["", "Reasons: 3 of 5 are the same.\n", "I see 10/10.\n\n", "```\n"]),
    st.sampled_from(["{}", "**{}**", "<{}>", "[{}]", "`{}`", '"{}"', "({})", "*{}*"]),
    st.sampled_from(["Score: ", "**Score:** ", "Score:", "\nFinal score: ", "\nSCORE: "]),
    st.sampled_from(["", ".", "\n", " \n\n", "\n```", "**"]),
)


@settings(max_examples=400)
@given(form=WRAPPED, score=st.integers(0, 10))
def test_well_meant_forms_are_read_and_never_wrongly(form: str, score: int) -> None:
    assert read_score(form.format(score), range(11)) == score


NOT_A_SCORE = st.one_of(
    st.builds("{}.{}".format, st.integers(0, 10), st.integers(0, 99)),
    st.builds("{}/{}".format, st.integers(0, 10), st.integers(0, 10)),
    st.builds("{},{}".format, st.integers(0, 10), st.integers(0, 9)),
    st.builds("{} to {}".format, st.integers(0, 10), st.integers(0, 10)),
    st.builds("{}-{}".format, st.integers(0, 10), st.integers(0, 10)),
    st.builds("{} {}".format, st.integers(0, 10), st.text(alphabet="abcde(", min_size=1)),
    st.integers(11, 10**6).map(str),
    st.integers(-(10**3), -1).map(str),
    st.text(alphabet="\u0661\u0662\uff11\uff12\u00b2\u2460\u4e09", min_size=1),
)


@settings(max_examples=600)
@given(form=WRAPPED, value=NOT_A_SCORE)
def test_malformed_scores_are_never_read(form: str, value: str) -> None:
    assert isinstance(read_score(form.format(value), range(11)), Failure)
