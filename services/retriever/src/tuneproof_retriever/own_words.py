"""Words by which a keyword search must find a passage: its rarest ones."""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncIterator

import numpy as np

from tuneproof_retriever.stop_words import STOP_WORDS
from tuneproof_retriever.stores.protocol import StoredPassage

_WORD = re.compile(r"[^\W_]+")
_ENDINGS = ("", "s", "es", "d", "ed", "ing", "ly")
_MOST_BYTES = 30
_MOST_WORDS = 3
_CELLS = 2**20


class WordCounts:
    """In how many passages words are, in 4 MiB: words that share a cell count together."""

    def __init__(self) -> None:
        self._cells = np.zeros(_CELLS, np.uint32)

    async def counting(
        self, passages: AsyncIterator[list[StoredPassage]]
    ) -> AsyncIterator[list[StoredPassage]]:
        """The same lists, counted on their way."""
        async for batch in passages:
            for stored in batch:
                cells = {_cell(word) for word in _words(stored.passage.text)}
                self._cells[list(cells)] += 1
            yield batch

    def rarest(self, text: str) -> str:
        """Up to three words of a text, the rarest first; empty where it has none that surely is
        in a keyword index."""
        words = _words(text)
        return " ".join(
            sorted(words, key=lambda word: (self._cells[_cell(word)], word))[:_MOST_WORDS]
        )


def _words(text: str) -> set[str]:
    words = {word.lower() for word in _WORD.findall(text)}
    return {word for word in words if len(word.encode()) <= _MOST_BYTES and not _is_common(word)}


def _is_common(word: str) -> bool:
    """Whether an index that stems may take a word for a stop word."""
    return any(word.endswith(end) and word.removesuffix(end) in STOP_WORDS for end in _ENDINGS)


def _cell(word: str) -> int:
    return zlib.crc32(word.encode()) % _CELLS
