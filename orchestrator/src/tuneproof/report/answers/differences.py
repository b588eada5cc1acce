"""The differences between two answers, word by word."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

_WORDS = re.compile(r"\S+")

LONGEST = 600
"""Longest answers to compare, in words: matching takes quadratic time."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of words of the same kind."""

    kind: Literal["same", "added", "missing"]
    text: str


def mark(baseline: str, answer: str) -> tuple[Segment, ...]:
    """The answer in segments: what it shares with the baseline's, what it adds, what it lacks.

    It compares whole words; runs of blanks count as one. The segments but the `missing` ones are
    the answer's words in order. An answer that equals the baseline's, or exceeds `LONGEST` words,
    is one segment.
    """
    old, new = _WORDS.findall(baseline), _WORDS.findall(answer)
    if not old or max(len(old), len(new)) > LONGEST:
        return (Segment("same", answer),)
    segments: list[Segment] = []
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    for kind, old_from, old_to, new_from, new_to in matcher.get_opcodes():
        if kind == "equal":
            segments.append(Segment("same", " ".join(new[new_from:new_to])))
            continue
        if old_to > old_from:
            segments.append(Segment("missing", " ".join(old[old_from:old_to])))
        if new_to > new_from:
            segments.append(Segment("added", " ".join(new[new_from:new_to])))
    return tuple(segments)
