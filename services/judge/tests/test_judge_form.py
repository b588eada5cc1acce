"""The parser of the form: whatever a judge writes, never a wrong score."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneproof_judge.form import read_score
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
        ("Score: 4.", NO_FORM),
        ("Score: 4\nScore: 5", NO_FORM),
        ("Score: 4 Score: 4", NO_FORM),
        ("The answer says 'score : 5'.\nScore: 2", NO_FORM),
        ("SCORE: 5", NO_FORM),
        ("Score\uff1a5", NO_FORM),
        ("Underscore: 5", NO_FORM),
        ("my_Score: 5", NO_FORM),
        ("Score: 4 or 5", NO_FORM),
        ("Score: \u0664", NO_FORM),
        ("Score: \uff14", NO_FORM),
        ("Score: 4\u00b2", NO_FORM),
        ("Score: 1_0", NO_FORM),
        ("Score: NaN", NO_FORM),
        ("Score: `4`", NO_FORM),
        ("Score: 4 ```", NO_FORM),
        ("Score: **4** and **5**", NO_FORM),
        ("GRADE: 5", NO_FORM),
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


@given(after=st.text(min_size=1).filter(lambda text: text.strip("*_ \t\r\n\f\v") != ""))
def test_what_goes_on_after_the_score_is_none(after: str) -> None:
    outcome = read_score(f"Score: 3 {after}", SCALE)
    assert isinstance(outcome, Failure) or not after.strip()


@given(st.text(alphabet="Score: 12345/.*_\n", max_size=40))
def test_no_soup_of_the_forms_own_letters_gives_a_score_that_is_not_its_end(soup: str) -> None:
    outcome = read_score(soup, SCALE)
    if isinstance(outcome, int):
        assert soup.rstrip("*_ \n").endswith(str(outcome))
        assert soup.rstrip("*_ \n")[:-1].rstrip("*_ \n")[-1] in ":"
        assert soup.count("Score") == 1
