"""Which of two answers a judge prefers, asked in both orders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Choice = Literal["first", "second", "tie"]
"""The better one of a cell's answer, `first`, and what it is compared with, `second`."""


@dataclass(frozen=True, slots=True)
class Preference:
    """One pair of answers to one item, by one criterion."""

    cell: str
    against: str
    item: str
    criterion: str
    repeats: tuple[tuple[Choice | None, Choice | None], ...]
    """Of each repeat, what the judge chose with the cell's answer shown first, and with it shown
    second; None where its reply could not be read."""
