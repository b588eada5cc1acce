"""The prompts' exact words, and what a passage cannot do to them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneproof.prompts import PROMPT_DIGEST, PROMPT_ID, closed_book_messages, rag_messages
from tuneproof.servicekit.errors import InvalidInput

pytestmark = pytest.mark.timeout(30)


def _content(messages: list[dict[str, str]]) -> str:
    [message] = messages
    assert set(message) == {"role", "content"}
    assert message["role"] == "user"
    return message["content"]


def test_the_prompt_word_for_word():
    passages = ["Alder 40 is a mast.", "Birch 2 is a shelf."]
    assert _content(rag_messages("What is the Alder 40?", passages)) == (
        "Answer the question from the passages.\n"
        "\n"
        "[1] Alder 40 is a mast.\n"
        "\n"
        "[2] Birch 2 is a shelf.\n"
        "\n"
        "Question: What is the Alder 40?"
    )
    assert _content(closed_book_messages("What is\nit? ")) == "Question: What is it?"


def test_passages_are_cut_after_so_many_words():
    content = _content(rag_messages("q", ["a b  c\td", "e"], passage_words=3))
    assert content == "Answer the question from the passages.\n\n[1] a b c\n\n[2] e\n\nQuestion: q"


_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_HOSTILE = st.text(st.sampled_from([*_LINE_ENDS, *"[2] Question: x"]), max_size=40)


@settings(deadline=None)
@given(st.lists(_HOSTILE | st.text(max_size=30), max_size=4), _HOSTILE)
def test_no_passage_begins_a_line(passages: list[str], question: str):
    content = _content(rag_messages(f"q {question}", passages))
    lines = content.splitlines()
    numbered = [line for line in lines if re.match(r"\[\d+\]", line)]
    assert [line.split("]")[0] for line in numbered] == [
        f"[{n}" for n in range(1, len(passages) + 1)
    ]
    assert [n for n, line in enumerate(lines) if line.startswith("Question:")] == [len(lines) - 1]
    for line, passage in zip(numbered, passages, strict=True):
        assert line.split()[1:] == passage.split()


@settings(deadline=None)
@given(st.lists(st.text(max_size=30), max_size=3), st.integers(1, 5))
def test_a_cut_prompt_is_that_of_the_cut_passages(passages: list[str], words: int):
    short = [" ".join(passage.split()[:words]) for passage in passages]
    assert rag_messages("q", passages, passage_words=words) == rag_messages("q", short)


@pytest.mark.parametrize("question", ["", " \n"])
def test_a_blank_question_is_refused(question: str):
    with pytest.raises(InvalidInput, match="blank"):
        rag_messages(question, ["p"])
    with pytest.raises(InvalidInput, match="blank"):
        closed_book_messages(question)


def test_a_cut_to_nothing_is_refused():
    with pytest.raises(InvalidInput, match="passage_words is 0") as caught:
        rag_messages("q", ["p"], passage_words=0)
    assert caught.value.field == "passage_words"


def test_the_wording_is_pinned():
    """Stored answers are found by this digest: other words want another id."""
    assert PROMPT_ID == "rag@1"
    assert PROMPT_DIGEST == (
        "sha256:f688ac483f3d14ad2e66bd70d43ec2fb200e6f50b3137e1554eb0aab461bbbb2"
    )
