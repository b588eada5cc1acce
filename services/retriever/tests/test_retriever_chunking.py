"""Windows of tokens: nothing lost, nothing too long, sentences kept."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tuneproof_retriever.chunking import cut
from tuneproof_retriever.corpus import Chunking
from tuneproof_retriever.embedders.model_folder import PACKAGED_MODEL, find_model


class WordPieces:
    """The tokenizer of the packaged model."""

    def __init__(self) -> None:
        self._tokenizer = Tokenizer.from_file(str(find_model(PACKAGED_MODEL) / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return self._tokenizer.encode(text, add_special_tokens=False).offsets


class Words:
    """One token per word or sign."""

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]


class Bytes:
    """One token per byte, as byte-level tokenizers give for rare characters."""

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [
            (place, place + 1)
            for place, character in enumerate(text)
            if not character.isspace()
            for _ in character.encode("utf-8", "surrogatepass")
        ]


PIECES = WordPieces()
WORDS = Words()

prose = st.lists(
    st.one_of(
        st.sampled_from(["Radios", "transmit", "a", "3.5", "dBm", "e.g.", "electroencephalograph"]),
        st.sampled_from([".", "!", "?\u201d", "\u3002", "\n\n", "\x00", "e\u0301", "\U0001f389"]),
        st.text(max_size=30),
    ),
    max_size=60,
).map(" ".join)
chunkings = st.integers(8, 40).flatmap(
    lambda most: st.builds(Chunking, st.just(most), st.integers(0, most - 1))
)


@pytest.mark.parametrize("tokens", [PIECES, WORDS, Bytes()], ids=["wordpiece", "words", "bytes"])
@given(text=prose, chunking=chunkings)
@example(text="a\u0301\u0301 b", chunking=Chunking(8, 7))
@example(text="\u65e5\u672c" * 30, chunking=Chunking(8, 7))
@example(text="x" * 300, chunking=Chunking(8, 0))
@settings(max_examples=120, deadline=None)
def test_windows_cover_the_text_in_order(tokens: WordPieces, text: str, chunking: Chunking) -> None:
    spans = cut(text, tokens, chunking)
    if not spans:
        assert not tokens.offsets(text)
        return
    covered = set()
    for span in spans:
        window = text[span.start : span.end]
        assert window == window.strip() != ""
        covered.update(range(span.start, span.end))
    gaps = [text[place] for place in range(len(text)) if place not in covered]
    assert all(character.isspace() for character in gaps)
    assert spans == sorted(spans, key=lambda span: span.start)
    assert all(one.end < two.end for one, two in pairwise(spans))
    assert all(one.start < two.start for one, two in pairwise(spans))


@pytest.mark.parametrize("tokens", [PIECES, WORDS], ids=["wordpiece", "words"])
@given(
    text=st.lists(
        st.sampled_from(["alpha", "Beta", "gamma3", ".", "!", ",", "electro", "(x)", "1.2"])
    ).map(" ".join),
    chunking=chunkings,
)
@settings(max_examples=120, deadline=None)
def test_windows_and_overlaps_keep_to_their_size(
    tokens: WordPieces, text: str, chunking: Chunking
) -> None:
    spans = cut(text, tokens, chunking)
    for span in spans:
        assert len(tokens.offsets(text[span.start : span.end])) <= chunking.max_tokens
    for one, two in pairwise(spans):
        shared = text[two.start : one.end]
        assert len(tokens.offsets(shared)) <= chunking.overlap_tokens


def test_a_window_ends_at_the_last_sentence_end_inside_it() -> None:
    text = "One two three. Four five! Six seven eight nine ten eleven. Twelve."
    spans = cut(text, WORDS, Chunking(10))
    assert [text[span.start : span.end] for span in spans] == [
        "One two three. Four five!",
        "Six seven eight nine ten eleven. Twelve.",
    ]


def test_signs_set_apart_and_empty_lines_end_sentences() -> None:
    text = "gain is four dB . power is\n\nheading one two three four five"
    spans = cut(text, WORDS, Chunking(9))
    assert [text[span.start : span.end] for span in spans] == [
        "gain is four dB . power is",
        "heading one two three four five",
    ]
    assert _texts(text, Chunking(6))[0] == "gain is four dB ."


def test_decimals_and_what_belongs_to_a_word_stay_whole() -> None:
    text = "a gain of 3.5 dB, (or 2.25) at-most"
    for most in range(5, 15):
        words = [word for window in _texts(text, Chunking(most)) for word in window.split()]
        assert words == text.split()


def test_text_without_spaces_is_cut_after_its_full_stops() -> None:
    text = "\u7532\u4e59\u4e19\u3002\u4e01\u620a\u5df1\u3002\u5e9a\u8f9b\u3002"
    spans = cut(text, PIECES, Chunking(9))
    assert [text[span.start : span.end] for span in spans] == [text[:8], text[8:]]


def test_a_sentence_longer_than_the_window_is_cut_between_words() -> None:
    text = " ".join(f"word{number}" for number in range(25)) + " ."
    spans = cut(text, PIECES, Chunking(8))
    words = [text[span.start : span.end].split() for span in spans]
    assert [word for window in words for word in window] == text.split()


def test_overlap_repeats_the_end_of_the_window_before() -> None:
    text = " ".join(f"w{number}" for number in range(20))
    spans = cut(text, WORDS, Chunking(8, 3))
    assert [text[span.start : span.end].split()[0] for span in spans] == ["w0", "w5", "w10", "w15"]


def test_a_word_longer_than_a_window_is_cut_into_parts_that_fit() -> None:
    text = "start " + "abcdefghij" * 9 + " end"
    spans = cut(text, PIECES, Chunking(8))
    assert len(spans) > 2
    assert all(len(PIECES.offsets(text[span.start : span.end])) <= 8 for span in spans)
    assert "".join(text[span.start : span.end] for span in spans).replace(" ", "") == (
        text.replace(" ", "")
    )


def test_blank_text_has_no_window() -> None:
    assert cut(" \n\t ", PIECES, Chunking(8)) == []


def _texts(text: str, chunking: Chunking) -> list[str]:
    return [text[span.start : span.end] for span in cut(text, WORDS, chunking)]
