"""Which examples share a row.

Best fit decreasing, as TRL's strategy `bfd`: the longest first, each into the fullest row that has
room for it. It is written out here because a plan counts rows without loading TRL, and because TRL
cuts what is longer than a row.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Sequence

LONGEST_ROW = 4096
"""Tokens of the rows of a default micro-batch together. Without flash attention the mask of a
packed row is dense, so its time and memory grow with the square of its length."""


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Rows of examples, by their places in `lengths`.

    Args:
        lengths: tokens of each example, `capacity` at most.
        capacity: tokens of a row.
    """
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []
    """Tokens that a row still takes, and the row's place; ascending."""
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        length = lengths[place]
        at = bisect_left(room, (length, 0))
        if at == len(room):
            rows.append([place])
            left = capacity - length
            row = len(rows) - 1
        else:
            left, row = room.pop(at)
            rows[row].append(place)
            left -= length
        if left:
            insort(room, (left, row))
    return rows


def padding(lengths: Sequence[int], micro_batch: int, seed: int) -> int:
    """Tokens of padding in one pass over examples in a drawn order, each micro-batch padded to its
    longest. The training draws another order, so this is an estimate."""
    drawn = list(lengths)
    random.Random(seed).shuffle(drawn)  # noqa: S311 - no secret
    batches = [drawn[at : at + micro_batch] for at in range(0, len(drawn), micro_batch)]
    return sum(max(batch) * len(batch) - sum(batch) for batch in batches)
