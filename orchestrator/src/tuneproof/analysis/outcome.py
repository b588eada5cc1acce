"""The words of a verdict, read off an interval."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tuneproof.analysis.intervals import MINIMUM_CLUSTERS, Interval


class Outcome(StrEnum):
    """What may be said of an arm by one measure."""

    BETTER = "better"
    """The whole interval is above 0."""
    WORSE = "worse"
    """The whole interval is below 0."""
    EQUIVALENT = "equivalent"
    """The interval holds 0 and lies inside ±δ."""
    UNDECIDED = "undecided"
    """The interval holds 0 and reaches beyond ±δ."""
    UNSCORED = "undecided_unscored"
    """Another verdict were possible, had the answers without a score been scored."""
    TOO_FEW_CLUSTERS = "too_few_clusters"
    """No interval can be given."""


@dataclass(frozen=True, slots=True)
class Reading:
    """An outcome and whether the difference, though there, stays inside ±δ."""

    outcome: Outcome
    within_margin: bool


def read(interval: Interval | None, margin: float) -> Reading:
    """Read the verdict off an interval; nothing else decides it.

    Better or worse needs the interval on one side of 0 (its end may not touch it); equivalence is
    the interval-inclusion rule strictly inside ±δ, which is two one-sided tests at half the error
    (Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15:657).

    Args:
        margin: δ, 0 or more; with 0 nothing is equivalent nor within the margin.
    """
    if interval is None:
        return Reading(Outcome.TOO_FEW_CLUSTERS, within_margin=False)
    inside = -margin < interval.low and interval.high < margin
    if interval.low > 0.0:
        return Reading(Outcome.BETTER, inside)
    if interval.high < 0.0:
        return Reading(Outcome.WORSE, inside)
    return Reading(Outcome.EQUIVALENT if inside else Outcome.UNDECIDED, inside)


def words_of(reading: Reading, *, needed_items: int | None, clusters: int) -> str:
    """The verdict as people read it, as `undecided (needs about 340 items)`."""
    match reading.outcome:
        case Outcome.BETTER | Outcome.WORSE:
            return f"{reading.outcome}{', within the margin' if reading.within_margin else ''}"
        case Outcome.EQUIVALENT:
            return "equivalent"
        case Outcome.UNSCORED:
            return "undecided (unscored)"
        case Outcome.TOO_FEW_CLUSTERS:
            return f"too few clusters ({clusters}; an interval needs {MINIMUM_CLUSTERS})"
        case Outcome.UNDECIDED:
            if needed_items is None:
                return "undecided"
            return f"undecided (needs about {needed_items:,} items)"
