"""Several primary comparisons at once: which confidence each end of each interval has.

An interval's lower end claims "better than this", its upper end "worse than this". The two ends are
two families, each with half of the error, the tail a: a wrong word costs its share whatever its
direction. Of m comparisons,

bonferroni  each end has a/m: all intervals hold together (Dunn 1961, Journal of the American
            Statistical Association 56:52)
holm        ends that exclude 0 leave their family, and each that is left has a by their number
            (Holm 1979, Scandinavian Journal of Statistics 6:65)
sequence    in the order of the study file each end has a, until one does not exclude 0; what comes
            after it is not tested (Maurer, Hothorn and Lehmacher 1995, Biometrie in der
            chemisch-pharmazeutischen Industrie 6:3)

In the last two the words hold together, and so do the ends that do not exclude 0: they are the
bounds of Strassburger and Bretz (2008, Statistics in Medicine 27:4914). Proof for the lower ends by
Holm, T the comparisons whose difference is not above 0: with a chance of 1 - a, no lower end at
a/|T| of T is above its difference. Then none of T leaves the family, so at least |T| are left at
each step, and every lower end of T that is shown is at or below its difference; that of a
comparison outside T that stays is at or below 0, which is below its difference. An end that
excludes 0 is shown at the tail at which it left, and holds by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache

from tuneproof.analysis.intervals import Interval
from tuneproof.analysis.looks import plan_looks
from tuneproof.analysis.verdict import Reading, Verdict, read
from tuneproof.results import StudyResults


class Adjustment(StrEnum):
    """How the primary comparisons of a study share its error."""

    BONFERRONI = "bonferroni"
    """All intervals hold together."""
    HOLM = "holm"
    """All words hold together; what is decided leaves its share to the rest."""
    SEQUENCE = "sequence"
    """All words hold together; the order decides who is tested."""


Excludes = Callable[[float], bool]
"""Whether an end at this one-sided tail excludes 0; with a larger tail it does more easily."""


IntervalAt = Callable[[float], Interval | None]
"""A comparison's interval at a confidence."""


@dataclass(frozen=True, slots=True)
class Tails:
    """The one-sided errors of one interval's ends; None where its family ended before it."""

    low: float | None
    high: float | None


def family_tails(results: StudyResults, intervals: Sequence[IntervalAt]) -> tuple[Tails, ...]:
    """The errors of the two ends of each primary comparison's interval, as the study adjusts them.

    Args:
        intervals: of each primary comparison, in their order.
    """

    def low(at: IntervalAt) -> Excludes:
        return lambda tail: (one := at(one_sided(results, tail))) is not None and one.low > 0.0

    def high(at: IntervalAt) -> Excludes:
        return lambda tail: (one := at(one_sided(results, tail))) is not None and one.high < 0.0

    tail = (1.0 - results.confidence) / 2.0
    adjustment = Adjustment(results.adjustment)
    return tails_of(adjustment, tail, [*map(low, intervals)], [*map(high, intervals)])


def one_sided(results: StudyResults, tail: float) -> float:
    """The confidence of an interval each of whose ends has this error, at this look."""
    return at_this_look(results, 1.0 - 2.0 * tail)


def joined(results: StudyResults, at: IntervalAt, tails: Tails) -> Interval | None:
    """The interval whose ends have these errors.

    An end that is not tested is shown at the other's error, or at that of a single interval.
    """
    alone = (1.0 - results.confidence) / 2.0
    low, high = tails.low or tails.high or alone, tails.high or tails.low or alone
    first = at(one_sided(results, low))
    second = first if high == low else at(one_sided(results, high))
    if first is None or second is None or second is first:
        return first
    confidence = (first.confidence + second.confidence) / 2.0
    return replace(first, high=second.high, confidence=confidence)


def read_tested(interval: Interval | None, margin: float, tails: Tails) -> Reading:
    """`verdict.read`, and not tested where the word would rest on an end that is not."""
    reading = read(interval, margin)
    if interval is None or None not in (tails.low, tails.high):
        return reading
    tested = (reading.verdict is Verdict.BETTER and tails.low is not None) or (
        reading.verdict is Verdict.WORSE and tails.high is not None
    )
    return Reading(reading.verdict if tested else Verdict.NOT_TESTED, within_margin=False)


def at_this_look(results: StudyResults, confidence: float) -> float:
    """What one interval needs so that those of all planned looks hold together."""
    if results.looks is None:
        return confidence
    return _at_look(results.looks.fractions, results.looks.taken, confidence)


@cache
def _at_look(fractions: tuple[float, ...], taken: int, confidence: float) -> float:
    return plan_looks(fractions, confidence)[taken - 1].confidence


def tails_of(
    adjustment: Adjustment, tail: float, low: Sequence[Excludes], high: Sequence[Excludes]
) -> tuple[Tails, ...]:
    """The tails of each comparison's two ends, in their order.

    Args:
        tail: the error of each family.
        low: of each comparison, whether its lower end is above 0.
        high: likewise, whether its upper end is below 0.
    """
    lows, highs = share_tail(adjustment, tail, low), share_tail(adjustment, tail, high)
    return tuple(Tails(*both) for both in zip(lows, highs, strict=True))


def share_tail(
    adjustment: Adjustment, tail: float, excludes: Sequence[Excludes]
) -> Sequence[float | None]:
    """The tail at which each member of one family is shown; None for those not tested."""
    count = len(excludes)
    match adjustment:
        case Adjustment.BONFERRONI:
            return [tail / max(count, 1)] * count
        case Adjustment.HOLM:
            return _holm(tail, excludes)
        case _:
            found: list[float | None] = [None] * count
            for place, one in enumerate(excludes):
                found[place] = tail
                if not one(tail):
                    break
            return found


def _holm(tail: float, excludes: Sequence[Excludes]) -> Sequence[float]:
    """All that exclude 0 at one step leave together: one after the other they would, too."""
    left = set(range(len(excludes)))
    found = [tail / max(len(left), 1)] * len(left)
    while left:
        share = tail / len(left)
        leaving = {place for place in left if excludes[place](share)}
        for place in left:
            found[place] = share
        if not leaving:
            break
        left -= leaving
    return found
