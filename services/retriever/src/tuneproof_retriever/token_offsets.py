"""The tokens of texts, long ones in parts.

A tokenizer takes some 300 bytes for each token, and a text of 10 MB may have ten million tokens. So
it is given a long text in parts, and only two numbers are kept of each token.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar, overload

from tuneproof_retriever.embedders.protocol import Embedder, Offsets

T = TypeVar("T")

AT_ONCE = 200_000
"""Characters of which a tokenizer is asked for the tokens in one call."""


class LongOffsets(Sequence[tuple[int, int]]):
    """`Offsets` in 8 bytes a token."""

    def __init__(self) -> None:
        self._starts, self._ends = array("I"), array("I")

    def extend(self, offsets: Offsets, shift: int) -> None:
        """Adds the tokens of a part that begins at `shift`."""
        self._starts.extend(shift + start for start, _ in offsets)
        self._ends.extend(shift + end for _, end in offsets)

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)

    @overload
    def __getitem__(self, index: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[int, int]]: ...
    def __getitem__(self, index: int | slice) -> tuple[int, int] | list[tuple[int, int]]:
        if isinstance(index, slice):
            return list(zip(self._starts[index], self._ends[index], strict=True))
        return self._starts[index], self._ends[index]


async def offsets_of(
    embedder: Embedder, texts: Iterable[str], *, deadline: float | None
) -> list[Offsets]:
    """The tokens of each text, of any length."""
    found: list[Offsets] = []
    for group in groups(texts, len):
        if len(group[0]) > AT_ONCE:
            found.append(await _of_long(embedder, group[0], deadline))
        else:
            found += await embedder.offsets(group, deadline=deadline)
    return found


def groups(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Items whose tokens are in memory at once; one with too many characters is alone.

    Args:
        size: an item's characters.
    """
    group: list[T] = []
    total = 0
    for item in items:
        if group and total + size(item) > AT_ONCE:
            yield group
            group, total = [], 0
        group.append(item)
        total += size(item)
    if group:
        yield group


async def _of_long(embedder: Embedder, text: str, deadline: float | None) -> Offsets:
    found = LongOffsets()
    for start, part in _parts(text):
        [offsets] = await embedder.offsets([part], deadline=deadline)
        found.extend(offsets, start)
    return found


def _parts(text: str) -> Iterator[tuple[int, str]]:
    """Offset and text of parts that begin before white space, where there is any."""
    start = 0
    while len(text) - start > AT_ONCE:
        end = start + AT_ONCE
        spaces = (
            place
            for place in range(end, start + AT_ONCE // 2, -1)
            if text[place].isspace() and not text[place - 1].isspace()
        )
        end = next(spaces, end)
        yield start, text[start:end]
        start = end
    yield start, text[start:]
