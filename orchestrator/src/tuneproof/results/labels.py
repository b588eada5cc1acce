"""What people said about answers of a study."""

from __future__ import annotations

from dataclasses import dataclass

from tuneproof.servicekit.digests import sha256_of_json


@dataclass(frozen=True, slots=True)
class Rating:
    """One rater's scores of one pair of answers, by one criterion."""

    rater: str
    cell: str
    against: str
    item: str
    criterion: str
    score: float
    """Of the cell's answer, on the rubric's scale."""
    score_against: float
    """Of the answer that it is compared with."""
    inclusion: float
    """The chance with which this pair was drawn for labelling, above 0 to 1."""
    again: bool = False
    """The rater saw this pair before: it tells how far the rater agrees with themselves, and
    nothing else."""
    texts: str = ""
    """Digest of both answers as they were rated (`pair_digest`); empty: not known."""


def pair_digest(text: str, against: str) -> str:
    """`sha256:<hex>` over two answers."""
    return sha256_of_json([text, against])
