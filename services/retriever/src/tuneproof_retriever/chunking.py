"""Cuts a text into windows of tokens that end at sentence ends where they can.

*Pieces* are words, each with the white space after it; windows are runs of pieces. Only a word
that is longer than a window is cut: `3.5` stays whole, and half a word may have more tokens alone
than it had as a part.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from tuneproof_retriever.corpus import Chunking

_SENTENCE_END = re.compile(
    r"""(?: [.!?\u2026]+ ["'\u201d\u2019)\]]* (?=\s|\Z)   # Latin: punctuation, then space
          | [\u3002\uff01\uff1f]+ ["\u201d\u2019)\]]*     # Chinese, Japanese: no space needed
          | (?=\n[^\S\n]*\n) )                            # an empty line
    """,
    re.VERBOSE,
)
# Chinese and Japanese marks after which a line may break.
_BREAKS_WITHOUT_SPACE = frozenset("\u3002\uff01\uff1f\uff0c\u3001\uff1b\uff1a")


class Tokens(Protocol):
    """The tokenizer of an embedder."""

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        """Start and end in code points of every token, special tokens left out."""


@dataclass(frozen=True)
class Span:
    """A window: `text[start:end]`, with no white space at either end."""

    start: int
    end: int


def cut(text: str, tokens: Tokens, chunking: Chunking) -> list[Span]:
    """Windows of at most `max_tokens` tokens that hold every character but white space.

    A window ends at the last sentence end inside it, or, where there is none, after the last
    word that fits. It begins with at most `overlap_tokens` tokens, in whole words, of the one
    before.

    Returns:
        Spans with growing starts and ends; none when the text has no token.
    """
    pieces = _Pieces.of(text, tokens, chunking.max_tokens)
    if not pieces.starts:
        return []
    return [
        Span(pieces.starts[first], pieces.end_of(text, last))
        for first, last in _windows(pieces, chunking)
    ]


@dataclass(frozen=True)
class _Pieces:
    starts: list[int]
    """Offset of each piece; it reaches to the next one's."""
    weights: list[int]
    """Tokens before each piece; one entry more than pieces."""
    sentence_ends: list[int]
    """Numbers of the pieces before which a sentence has ended."""

    @classmethod
    def of(cls, text: str, tokens: Tokens, max_tokens: int) -> _Pieces:
        starts: list[int] = []
        weights = [0]
        for start, weight in _weighed(text, tokens, max_tokens):
            starts.append(start)
            weights.append(weight)
        if starts:
            starts[0] = len(text) - len(text.lstrip())
        ends = (bisect_left(starts, match.end()) for match in _SENTENCE_END.finditer(text))
        return cls(starts, list(accumulate(weights)), sorted(set(ends)))

    def end_of(self, text: str, last: int) -> int:
        """Offset after the last visible character before piece number `last`."""
        limit = self.starts[last] if last < len(self.starts) else len(text)
        start = self.starts[last - 1]
        return start + len(text[start:limit].rstrip())


def _windows(pieces: _Pieces, chunking: Chunking) -> Iterator[tuple[int, int]]:
    weights, count = pieces.weights, len(pieces.starts)
    start = end = 0
    while end < count:
        limit = bisect_right(weights, weights[start] + chunking.max_tokens) - 1
        limit = max(limit, end + 1)
        if limit < count:
            nearest = bisect_right(pieces.sentence_ends, limit) - 1
            if nearest >= 0 and pieces.sentence_ends[nearest] > end:
                limit = pieces.sentence_ends[nearest]
        yield start, limit
        end = limit
        if end < count:
            start = _next_start(weights, start, end, chunking)


def _next_start(weights: list[int], start: int, end: int, chunking: Chunking) -> int:
    shared = bisect_left(weights, weights[end] - chunking.overlap_tokens)
    # The next window must hold the next piece, or it would only repeat this one.
    fitting = bisect_left(weights, weights[end + 1] - chunking.max_tokens)
    return min(max(shared, fitting, start + 1), end)


def _weighed(text: str, tokens: Tokens, max_tokens: int) -> Iterator[tuple[int, int]]:
    """Start and number of tokens of each piece."""
    offsets = [(start, end) for start, end in tokens.offsets(text) if end > start]
    first = 0
    for number in range(1, len(offsets) + 1):
        if number < len(offsets) and _inside_word(text, offsets[number - 1][1], offsets[number][0]):
            continue
        word = offsets[first:number]
        if len(word) <= max_tokens:
            yield word[0][0], len(word)
        else:
            yield from _parts_of_word(text, tokens, word, max_tokens)
        first = number


def _inside_word(text: str, end: int, start: int) -> bool:
    """Whether no word ends between a token's end and the next one's start."""
    if start < end:  # the bytes of one character
        return True
    # Between the two may be accents and control characters, which a normaliser drops.
    between = text[end - 1 : start]
    return not any(each.isspace() or each in _BREAKS_WITHOUT_SPACE for each in between)


def _parts_of_word(
    text: str, tokens: Tokens, word: Sequence[tuple[int, int]], max_tokens: int
) -> Iterator[tuple[int, int]]:
    starts = sorted({start for start, _ in word})
    # Half a window, since a part alone may have more tokens than it had in the word.
    parts = starts[:: max(1, max_tokens // 2)]
    for start, end in zip(parts, [*parts[1:], word[-1][1]], strict=True):
        yield start, max(1, len(tokens.offsets(text[start:end])))
