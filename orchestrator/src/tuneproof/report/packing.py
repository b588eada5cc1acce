"""Data inside the page: JSON in gzip in base64, in parts that the page's script unpacks on demand.

A browser reads such a part in some milliseconds (`DecompressionStream`), from a file too. Base64
takes a third more than the bytes, but it is plain text that no HTML parser misreads.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass

PART_BYTES = 400_000
"""A part ends when its values take more than this many bytes as JSON: small enough to unpack while
the reader waits, large enough for gzip to find what repeats."""


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
        if size > PART_BYTES:
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
    found = gzip.compress(text.encode("utf-8", "replace"), 9, mtime=0)
    return Packed(name, base64.b64encode(found).decode())
