"""Passages by sentences and by document structure."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneproof_retriever.chunking import cut
from tuneproof_retriever.corpus import Chunking, ChunkingStrategy
from tuneproof_retriever.structure import blocks_of

SENTENCES, STRUCTURE = ChunkingStrategy.SENTENCES, ChunkingStrategy.STRUCTURE
TEXT = """Before all headings. Two sentences.

# Setup

Plug it in. Wait a minute.

Press the button.

## Details
### Radio

- item one
- item two

```sh
# no heading

echo x
```
Limits
======
Never open it. Never.
"""


class Words:
    """One token per word or sign."""

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]


def texts(text: str, most: int, overlap: int, by: ChunkingStrategy) -> list[str]:
    spans = cut(text, Words(), Chunking(most, overlap, by))
    return [text[span.start : span.end] for span in spans]


def test_each_sentence_is_a_passage() -> None:
    text = "One two. Three four five! Six?\n\nSeven"
    assert texts(text, 20, 0, SENTENCES) == ["One two.", "Three four five!", "Six?", "Seven"]


def test_a_sentence_comes_after_the_whole_sentences_that_fit_into_the_overlap() -> None:
    assert texts("A b. C d e f. G h. I j.", 12, 6, SENTENCES) == [
        "A b.",
        "A b. C d e f.",
        "C d e f. G h.",
        "G h. I j.",
    ]


def test_a_sentence_and_its_overlap_keep_to_the_longest_passage() -> None:
    found = texts("One two three four. Five six seven eight.", 8, 7, SENTENCES)
    assert found == ["One two three four.", "Five six seven eight."]


def test_a_sentence_longer_than_a_passage_is_cut_between_words() -> None:
    words = " ".join(f"w{number}" for number in range(20))
    assert [len(found.split()) for found in texts(words, 8, 0, SENTENCES)] == [8, 8, 4]


def test_passages_are_whole_paragraphs_of_one_section_with_their_heading() -> None:
    assert texts(TEXT, 40, 0, STRUCTURE) == [
        "Before all headings. Two sentences.",
        "# Setup\n\nPlug it in. Wait a minute.\n\nPress the button.",
        "## Details\n### Radio\n\n- item one\n- item two\n\n```sh\n# no heading\n\necho x\n```",
        "Limits\n======\nNever open it. Never.",
    ]


def test_a_section_that_does_not_fit_is_cut_between_paragraphs() -> None:
    assert texts(TEXT, 13, 0, STRUCTURE)[1:3] == [
        "# Setup\n\nPlug it in. Wait a minute.",
        "Press the button.",
    ]


def test_a_paragraph_that_does_not_fit_is_cut_between_sentences() -> None:
    assert texts("One two three. Four five six. Seven.", 9, 0, STRUCTURE) == [
        "One two three. Four five six.",
        "Seven.",
    ]


def test_structure_shares_whole_sentences_and_never_across_a_heading() -> None:
    assert texts("A b. C d.\n\nE f g h i.\n\n# H\n\nJ k.", 8, 4, STRUCTURE) == [
        "A b. C d.",
        "E f g h i.",
        "# H\n\nJ k.",
    ]
    assert texts("A b. C d.\n\nE f g h.\n\n# H\n\nJ k.", 8, 4, STRUCTURE)[1] == "C d.\n\nE f g h."


@pytest.mark.parametrize(
    ("text", "paragraphs", "sections"),
    [
        ("a\n\nb\r\n\r\nc", [0, 3, 8], []),
        ("a\nb\n---\nc", [0], []),
        ("a\n---\nb\n\nc", [9], [0]),
        ("    # code\n#hash\n####### seven", [0], []),
        ("# one\n## two\ntext", [], [0]),
        ("~~~\n# a\n\n```\n~~~\n# b", [0], [17]),
        ("```\n# never closed\n\nx", [0], []),
        ("```inline``` text\n\n# h", [0], [19]),
        ("1. one\n2. two\n\n- x", [0, 7, 15], []),
    ],
)
def test_blocks_of_markdown(text: str, paragraphs: list[int], sections: list[int]) -> None:
    found = blocks_of(text)
    assert (list(found.paragraphs), list(found.sections)) == (paragraphs, sections)


lines = st.lists(
    st.sampled_from(
        ["# head", "text one. Two!", "more text here", "", "===", "---", "```", "- item", "a b c."]
    ),
    max_size=30,
).map("\n".join)


@given(text=lines, most=st.integers(8, 30), share=st.floats(0, 0.9), by=st.sampled_from([*"ST"]))
@settings(max_examples=300, deadline=None)
def test_nothing_is_lost_and_nothing_is_too_long(
    text: str, most: int, share: float, by: str
) -> None:
    strategy = {"S": SENTENCES, "T": STRUCTURE}[by]
    tokens = Words()
    spans = cut(text, tokens, Chunking(most, int(share * most), strategy))
    covered = set()
    for span in spans:
        window = text[span.start : span.end]
        assert window == window.strip() != ""
        assert len(tokens.offsets(window)) <= most
        covered.update(range(span.start, span.end))
    assert not "".join(text[at] for at in range(len(text)) if at not in covered).strip()
    for one, two in pairwise(spans):
        assert one.start < two.start + (by == "S")
        assert one.end < two.end
        assert len(tokens.offsets(text[two.start : one.end])) <= int(share * most)
    if by == "T":
        sections = blocks_of(text).sections
        for span in spans:
            assert not any(span.start < section < span.end for section in sections)
