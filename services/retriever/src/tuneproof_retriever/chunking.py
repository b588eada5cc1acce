"""Cuts a text into windows of tokens: the most that fit, sentences, or paragraphs of a section.

*Pieces* are words, each with the white space after it; windows are runs of pieces. Only a word
that is longer than a window is cut: `3.5` stays whole, and half a word may have more tokens alone
than it had as a part.

A text of 10 MB may have ten million pieces, so numbers of pieces and offsets are kept in arrays.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import chain, groupby, islice, pairwise
from typing import Protocol

from tuneproof_retriever.corpus import Chunking, ChunkingStrategy
from tuneproof_retriever.structure import blocks_of

_SENTENCE_END = re.compile(
    # Possessive, and only from the first mark of a row: else a long row takes quadratic time.
    r"""(?: (?<![.!?\u2026]) [.!?\u2026]++ ["'\u201d\u2019)\]]*+ (?=\s|\Z)   # Latin: then space
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


@dataclass(frozen=True, slots=True)
class Span:
    """A window: `text[start:end]`, with no white space at either end."""

    start: int
    end: int


def cut(text: str, tokens: Tokens, chunking: Chunking, most: int | None = None) -> list[Span]:
    """Windows of at most `max_tokens` tokens that hold every character but white space.

    Where a window ends, and what it repeats of the one before, depends on the strategy:

    - tokens: it ends at the last sentence end inside it, and begins with at most `overlap_tokens`
      tokens, in whole words, of the one before;
    - sentences: it ends with its first new sentence, and begins with the whole sentences before
      it that fit into the overlap;
    - structure: it ends at the last paragraph end inside it, or the last sentence end, and not
      later than its section; it begins with whole sentences of its own section.

    Where nothing better is inside it, it ends after the last word that fits.

    Args:
        most: number of windows after which it stops; None: it does not.

    Returns:
        Spans with growing starts and ends; none when the text has no token.
    """
    pieces = _Pieces.of(text, tokens, chunking.max_tokens)
    if not pieces.starts:
        return []
    places = _places(text, pieces, chunking.by)
    return [
        Span(pieces.starts[first], pieces.end_of(text, last))
        for first, last in islice(_windows(pieces.weights, places, chunking), most)
    ]


@dataclass(frozen=True)
class _Pieces:
    starts: array[int]
    """Offset of each piece; it reaches to the next one's."""
    weights: array[int]
    """Tokens before each piece; one entry more than pieces."""

    @classmethod
    def of(cls, text: str, tokens: Tokens, max_tokens: int) -> _Pieces:
        starts, weights = array("I"), array("I", [0])
        for start, weight in _weighed(text, tokens, max_tokens):
            starts.append(start)
            weights.append(weights[-1] + weight)
        if starts:
            starts[0] = len(text) - len(text.lstrip())
        return cls(starts, weights)

    def at(self, offsets: Iterable[int]) -> array[int]:
        """Numbers of the pieces that begin at these offsets or next after them, each once.

        Args:
            offsets: ascending.
        """
        return _once(bisect_left(self.starts, offset) for offset in offsets)

    def end_of(self, text: str, last: int) -> int:
        """Offset after the last visible character before piece number `last`."""
        limit = self.starts[last] if last < len(self.starts) else len(text)
        start = self.starts[last - 1]
        return start + len(text[start:limit].rstrip())


@dataclass(frozen=True)
class _Places:
    """Numbers of the pieces before which windows end or begin, ascending."""

    walls: Sequence[int]
    """No window with a new piece before one reaches beyond it."""
    ends: Sequence[Sequence[int]]
    """Where a window ends that cannot hold the rest, best first."""
    begins: Sequence[int] | None
    """Where an overlap begins; None: anywhere."""
    floors: Sequence[int]
    """No overlap reaches back beyond one."""
    nested: bool = False
    """Whether a window may hold all of the one before."""


def _places(text: str, pieces: _Pieces, by: ChunkingStrategy) -> _Places:
    sentences = pieces.at(chain([0], (match.end() for match in _SENTENCE_END.finditer(text))))
    if by is ChunkingStrategy.TOKENS:
        return _Places([], [sentences], None, [])
    if by is ChunkingStrategy.SENTENCES:
        return _Places(sentences, [], sentences, [], nested=True)
    blocks = blocks_of(text)
    paragraphs, sections = pieces.at(blocks.paragraphs), pieces.at(blocks.sections)
    begins = _once(merge(sentences, paragraphs, sections))
    return _Places(sections, [paragraphs, sentences], begins, sections)


def _once(ascending: Iterable[int]) -> array[int]:
    """The same numbers without repetitions."""
    return array("I", (number for number, _ in groupby(ascending)))


def _windows(
    weights: Sequence[int], places: _Places, chunking: Chunking
) -> Iterator[tuple[int, int]]:
    count = len(weights) - 1
    start = end = 0
    while end < count:
        limit = bisect_right(weights, weights[start] + chunking.max_tokens) - 1
        limit = max(limit, end + 1)
        end = _end(places, end, limit, count)
        yield start, end
        if end < count:
            start = _next_start(weights, places, start, end, chunking)


def _end(places: _Places, before: int, limit: int, count: int) -> int:
    """Where a window ends whose new pieces begin at `before` and that may reach to `limit`."""
    last = _next(places.walls, before + 1, count)
    if last <= limit:
        return last
    for ends in places.ends:
        nearest = bisect_right(ends, limit) - 1
        if nearest >= 0 and ends[nearest] > before:
            return ends[nearest]
    return limit


def _next(places: Sequence[int], least: int, default: int) -> int:
    """The first place that is `least` or more."""
    index = bisect_left(places, least)
    return places[index] if index < len(places) else default


def _next_start(
    weights: Sequence[int], places: _Places, start: int, end: int, chunking: Chunking
) -> int:
    shared = bisect_left(weights, weights[end] - chunking.overlap_tokens)
    # The next window must hold the next piece, or it would only repeat this one.
    needed = weights[end + 1]
    if places.begins is not None:  # then it holds the next sentence, if that fits at all
        whole = weights[_next(places.begins, end + 1, len(weights) - 1)]
        needed = whole if whole - weights[end] <= chunking.max_tokens else needed
    fitting = bisect_left(weights, needed - chunking.max_tokens)
    floor = bisect_right(places.floors, end) - 1
    first = max(
        shared,
        fitting,
        start if places.nested else start + 1,
        places.floors[floor] if floor >= 0 else 0,
    )
    if places.begins is not None:
        first = _next(places.begins, first, end)
    return min(first, end)


def _weighed(text: str, tokens: Tokens, max_tokens: int) -> Iterator[tuple[int, int]]:
    """Start and number of tokens of each piece."""
    for starts, end, count in _words(text, tokens.offsets(text)):
        if count <= max_tokens:
            yield starts[0], count
            continue
        # Half a window, since a part alone may have more tokens than it had in the word.
        parts = starts[:: max(1, max_tokens // 2)]
        for start, stop in pairwise([*parts, end]):
            yield start, max(1, len(tokens.offsets(text[start:stop])))


def _words(text: str, offsets: Iterable[tuple[int, int]]) -> Iterator[tuple[array[int], int, int]]:
    """Of each word where its tokens start, each place once, where it ends, and its tokens."""
    starts = array("I")
    count = before = 0
    for start, end in offsets:
        if end <= start:
            continue
        if count and not _inside_word(text, before, start):
            yield starts, before, count
            starts, count = array("I"), 0
        if not starts or start > starts[-1]:
            starts.append(start)
        count += 1
        before = end
    if count:
        yield starts, before, count


def _inside_word(text: str, end: int, start: int) -> bool:
    """Whether no word ends between a token's end and the next one's start."""
    if start < end:  # the bytes of one character
        return True
    # Between the two may be accents and control characters, which a normaliser drops.
    between = text[end - 1 : start]
    return not any(each.isspace() or each in _BREAKS_WITHOUT_SPACE for each in between)
