"""Data inside the page: JSON in gzip in base64, in parts that the page's script unpacks on demand.

A browser reads such a part in some milliseconds (`DecompressionStream`), from a file too. Base64
takes a third more than the bytes, but it is plain text that no HTML parser misreads. Of long texts
each word that occurs twice or more is written as one character, its place in a list: gzip looks
back 32 KiB only, and so sees farther. It takes 12 to 31 % off English text.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PART_CHARACTERS = 150_000
"""A part ends when its values take more than this as JSON: small enough to unpack while the reader
waits, large enough for gzip to find what repeats."""


FIRST_CODE = 0x3400
MOST_WORDS = 0x6C00
"""Words are written as the characters from 3400 to 9FFF (Chinese): three bytes, one block."""

_CODES = re.compile("[\u3400-\u9fff]")


@dataclass(frozen=True, slots=True)
class Words:
    """The words that long texts have in common; the page's script knows them as `words`."""

    order: tuple[str, ...]
    """The most frequent first."""
    codes: Mapping[str, str]
    """A character for each."""

    @classmethod
    def of(cls, texts: Iterable[str]) -> Words:
        """Counts what stands between blanks. Equal texts give equal words."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text.split(" "))
        often = sorted((-count, word) for word, count in counts.items() if count > 1 and word)
        order = tuple(word for _, word in often[:MOST_WORDS])
        return cls(order, {word: chr(FIRST_CODE + place) for place, word in enumerate(order)})

    def write(self, text: str) -> str:
        """A text by its words: after `~` each word as its character, or itself after a blank.

        A text that holds such a character, as Chinese does, stands as it is after `=`.
        """
        if _CODES.search(text):
            return f"={text}"
        codes = self.codes
        return "~" + "".join([codes.get(word) or f" {word}" for word in text.split(" ")])

    def read(self, written: str) -> str:
        """The text again, as the page's script reads it."""
        if written[0] == "=":
            return written[1:]
        parts = [
            f" {self.order[ord(one) - FIRST_CODE]}" if _CODES.match(one) else one
            for one in written[1:]
        ]
        return "".join(parts)[1:]


@dataclass(frozen=True, slots=True)
class Packed:
    """A block of the page."""

    name: str
    """The element is `pack-<name>`."""
    data: str
    """Characters of base64: no markup."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A long list, cut into blocks."""

    blocks: tuple[Packed, ...]
    starts: tuple[int, ...]
    """Number of the first value of each block."""


def pack(name: str, value: object) -> Packed:
    """One value as a block. Equal values give equal bytes."""
    return _packed(name, _written(value))


def pack_parts(name: str, values: Iterable[object]) -> Parts:
    """A list as blocks `<name>-0`, `<name>-1` …, each a list of consecutive values."""
    blocks: list[Packed] = []
    starts: list[int] = []
    kept: list[str] = []
    number, size = 0, 0
    for number, value in enumerate(values, 1):
        text = _written(value)
        kept.append(text)
        size += len(text)
        if size > PART_CHARACTERS:
            starts.append(number - len(kept))
            blocks.append(_packed(f"{name}-{len(blocks)}", f"[{','.join(kept)}]"))
            kept, size = [], 0
    if kept:
        starts.append(number - len(kept))
        blocks.append(_packed(f"{name}-{len(blocks)}", f"[{','.join(kept)}]"))
    return Parts(tuple(blocks), tuple(starts))


def _written(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _packed(name: str, text: str) -> Packed:
    # A lone surrogate is no UTF-8: it becomes a question mark.
    found = gzip.compress(text.encode("utf-8", "replace"), 6, mtime=0)
    return Packed(name, base64.b64encode(found).decode())
