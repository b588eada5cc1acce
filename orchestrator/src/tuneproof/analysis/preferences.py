"""A judge that compares two answers: the score of each item, and how far position decides.

Judges prefer an answer for standing first, or last. Asked in both orders that cancels out of the
score, and is measured beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tuneproof.analysis.intervals import Estimate, Interval, codes_of, estimate, interval_of
from tuneproof.results import Choice, Preference, StudyResults

LIMITS = (-1.0, 1.0)

_FOR_CELL: dict[Choice, float] = {"first": 1.0, "tie": 0.0, "second": -1.0}


@dataclass(frozen=True, slots=True)
class ItemPreference:
    """One item."""

    score: float | None
    """From -1 (the other answer) to 1 (the cell's); None where fewer than half of the repeats have
    both orders."""
    position: float | None
    """From -1 (always the second) to 1 (always the first), None as the score."""


def item_preference(repeats: Sequence[tuple[Choice | None, Choice | None]]) -> ItemPreference:
    """What both orders show of one item.

    With a and b what the judge chose in the two orders, 1 for the cell's answer, -1 for the other
    and 0 for a tie, a repeat's score is (a + b)/2, and the pull of the position (a - b)/2: the
    cell's answer is shown first in the one, second in the other. A judge that looks at the position
    alone chooses once each, and gives a score of 0. Each is the mean over the repeats that have
    both orders: one order alone would let the position into the score.

    Args:
        repeats: the choice with the cell's answer shown first, and with it shown second.
    """
    both = [
        (_FOR_CELL[shown_first], _FOR_CELL[shown_second])
        for shown_first, shown_second in repeats
        if shown_first is not None and shown_second is not None
    ]
    if not both or 2 * len(both) < len(repeats):
        return ItemPreference(None, None)
    chosen = np.array(both)
    return ItemPreference(float(chosen.mean()), float((chosen[:, 0] - chosen[:, 1]).mean() / 2.0))


@dataclass(frozen=True, slots=True)
class Preferred:
    """One cell against another, over all items."""

    cell: str
    against: str
    criterion: str
    net: Estimate
    """Of the items' scores: the share of preferences for the cell minus that for the other."""
    interval: Interval | None
    position: Estimate
    """Of the pull of the position: 0 where the order does not matter."""
    position_interval: Interval | None
    ties: float
    """Share of all choices that are ties."""
    reversed: float
    """Share of the repeats in which the two orders name different answers."""
    items: int
    unscored: int


def preferences_of(results: StudyResults) -> tuple[Preferred, ...]:
    """Each pair of cells that the judge compared, by criterion.

    Intervals are those of means over items in clusters, each by itself at the study's confidence:
    exploratory. Items without a score are left out and counted.
    """
    groups: dict[tuple[str, str, str], dict[str, Preference]] = {}
    for one in results.preferences:
        groups.setdefault((one.cell, one.against, one.criterion), {})[one.item] = one
    return tuple(
        found
        for key, by_item in groups.items()
        if (found := _preferred(results, *key, by_item)) is not None
    )


def _preferred(
    results: StudyResults, cell: str, against: str, criterion: str, given: dict[str, Preference]
) -> Preferred | None:
    scores, clusters = [], []
    for item in results.items:
        if item.id in given:
            one = item_preference(given[item.id].repeats)
            if one.score is not None and one.position is not None:
                scores.append((one.score, one.position))
                clusters.append(item.cluster)
    if not scores:
        return None
    values, codes = np.array(scores), codes_of(clusters)
    net, position = estimate(values[:, 0], codes), estimate(values[:, 1], codes)
    chosen = list(_choices(given.values()))
    return Preferred(
        cell,
        against,
        criterion,
        net,
        interval_of(net, results.confidence, LIMITS),
        position,
        interval_of(position, results.confidence, LIMITS),
        ties=float(np.mean([choice == "tie" for both in chosen for choice in both])),
        reversed=float(np.mean([{one, other} == {"first", "second"} for one, other in chosen])),
        items=len(scores),
        unscored=len(given) - len(scores),
    )


def _choices(given: Iterable[Preference]) -> Iterator[tuple[Choice, Choice]]:
    """Of the repeats that have both orders."""
    for one in given:
        for first, second in one.repeats:
            if first is not None and second is not None:
                yield first, second
