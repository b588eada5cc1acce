"""The verdict of one comparison, read off its interval."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tuneproof.analysis.intervals import Interval


class Verdict(StrEnum):
    """The conclusion of one comparison of a cell by one measure."""

    BETTER = "better"
    """The whole interval is above 0."""
    WORSE = "worse"
    """The whole interval is below 0."""
    EQUIVALENT = "equivalent"
    """The interval holds 0 and lies inside ±δ."""
    UNDECIDED = "undecided"
    """The interval holds 0 and reaches beyond ±δ."""
    UNSCORED = "undecided_unscored"
    """Undecided only because of answers without a score: the scored ones alone would decide."""
    TOO_FEW_CLUSTERS = "too_few_clusters"
    """There is no interval: too few clusters, or too unequal ones."""
    NOT_TESTED = "not_tested"
    """The study reads its comparisons in a sequence, which ended before this one."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A verdict, and whether the difference stays inside ±δ."""

    verdict: Verdict
    within_margin: bool


def read(interval: Interval | None, margin: float) -> Reading:
    """Reads the verdict off an interval; nothing else decides it.

    *Better* or *worse* needs the interval on one side of 0 (its end may not touch it).
    *Equivalent* is the interval-inclusion rule, strictly inside ±δ, which is two one-sided tests
    at half the error (Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15:657).

    Args:
        margin: δ in the measure's units, 0 or more; with 0 nothing is equivalent nor within the
            margin.
    """
    if interval is None:
        return Reading(Verdict.TOO_FEW_CLUSTERS, within_margin=False)
    inside = -margin < interval.low and interval.high < margin
    if interval.low > 0.0:
        return Reading(Verdict.BETTER, inside)
    if interval.high < 0.0:
        return Reading(Verdict.WORSE, inside)
    return Reading(Verdict.EQUIVALENT if inside else Verdict.UNDECIDED, inside)


def words_of(reading: Reading, *, clusters: str) -> str:
    """The verdict as people read it, as `worse, within the margin`.

    Args:
        clusters: why the clusters give no interval, for a verdict that says so.
    """
    match reading.verdict:
        case Verdict.BETTER | Verdict.WORSE:
            return f"{reading.verdict}{', within the margin' if reading.within_margin else ''}"
        case Verdict.UNSCORED:
            return "undecided (unscored)"
        case Verdict.TOO_FEW_CLUSTERS:
            return f"too few clusters ({clusters})"
        case Verdict.NOT_TESTED:
            return "not tested (the sequence ended before it)"
        case _:
            return str(reading.verdict)
