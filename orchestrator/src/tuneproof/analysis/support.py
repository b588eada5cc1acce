"""What a verdict stands on: the judge's word, people's labels, and what holds without a variance.

judge       the comparison itself, and the tipping point where there are no labels
anchored    the difference by people, from labels of a probability sample (`anchoring`)
guaranteed  a lower bound of the mean for any distribution, and severe losses (`guarantees`)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuneproof.analysis.anchoring import Anchored, anchor, anchored_interval
from tuneproof.analysis.comparisons import Comparison, Comparisons
from tuneproof.analysis.families import family_tails, joined, read_tested
from tuneproof.analysis.guarantees import SevereLoss, guaranteed_lower, severe_loss
from tuneproof.analysis.intervals import Floats, Interval, Limits
from tuneproof.analysis.judge_bias import tipping_point
from tuneproof.analysis.paired import Paired, paired
from tuneproof.analysis.scores import answers_by_cell
from tuneproof.analysis.verdict import Reading, read, words_of
from tuneproof.results import Measure, PrimaryComparison, Rating, StudyResults

SEVERE_SHARE = 0.5
"""Of the range of a measure: a loss of so much is severe, as 2 points of a scale from 1 to 5."""


@dataclass(frozen=True, slots=True)
class ByPeople:
    """A verdict anchored in labels."""

    found: Anchored
    interval: Interval | None
    """None where the labels are in too few clusters."""
    reading: Reading
    words: str
    """The verdict for people."""
    labels: int
    """Labelled pairs."""
    raters: int


@dataclass(frozen=True, slots=True)
class Guaranteed:
    """What holds whatever the distribution of the differences; unscored answers at their worst."""

    lower: float
    """Lower bound of the mean difference, in the measure's units."""
    severe: SevereLoss
    points: float
    """A loss of so much is severe."""


@dataclass(frozen=True, slots=True)
class Support:
    """What one primary comparison stands on."""

    comparison: Comparison
    anchored: ByPeople | None
    """None without labels, and where these are in fewer than two clusters."""
    tipping: float | None
    """The judge's differential bias that would overturn its verdict; None without a conclusion."""
    guaranteed: Guaranteed | None
    """None of a measure without an upper end, and without items."""


def supports_of(results: StudyResults, comparisons: Comparisons) -> tuple[Support, ...]:
    """What each primary comparison stands on, in their order.

    The anchored verdicts share the error among themselves as the study file says.
    """
    answers = answers_by_cell(results)
    tail = tail_at_looks(results, (1.0 - results.confidence) / 2.0 / max(len(results.primary), 1))
    pairs = [
        paired(results, PrimaryComparison(one.cell, one.against, one.measure), one.scale, answers)
        for one in comparisons.primary
    ]
    people = [
        _labelled(results, PrimaryComparison(one.cell, one.against, one.measure), each, one.scale)
        for one, each in zip(comparisons.primary, pairs, strict=True)
    ]
    tails = family_tails(results, [_nothing if one is None else one.interval for one in people])
    found = []
    for one, each, labelled, ends in zip(comparisons.primary, pairs, people, tails, strict=True):
        margin, by = one.margin or 0.0, None
        if labelled is not None:
            interval = joined(results, labelled.interval, ends)
            by = labelled.told(interval, read_tested(interval, margin, ends))
        tipping = None if by else tipping_point(one.interval, margin)
        found.append(Support(one, by, tipping, guaranteed_of(each, one.scale, tail=tail)))
    return tuple(found)


def _nothing(_confidence: float) -> Interval | None:
    return None


def by_people(
    results: StudyResults,
    named: PrimaryComparison,
    pairs: Paired,
    *,
    scale: Measure,
    margin: float,
    confidence: float,
) -> ByPeople | None:
    """The verdict by people of one comparison; None without labels in two clusters."""
    found = _labelled(results, named, pairs, scale)
    if found is None:
        return None
    interval = found.interval(confidence)
    return found.told(interval, read(interval, margin))


@dataclass(frozen=True, slots=True)
class _Labelled:
    """A comparison by people before its confidence is known."""

    found: Anchored
    limits: Limits | None
    unscored: float
    """Share of the pairs without the judge's score."""
    labels: int
    raters: int

    def interval(self, confidence: float) -> Interval | None:
        """It holds whatever the unscored pairs could be worth."""
        interval = anchored_interval(self.found, confidence, self.limits)
        if interval is None or self.limits is None:
            return interval
        return _with_unscored(interval, self.unscored, self.limits)

    def told(self, interval: Interval | None, reading: Reading) -> ByPeople:
        """With its verdict."""
        clusters = f"{self.found.estimate.clusters} labelled"
        words = words_of(reading, clusters=clusters)
        return ByPeople(self.found, interval, reading, words, self.labels, self.raters)


def _labelled(
    results: StudyResults, named: PrimaryComparison, pairs: Paired, scale: Measure
) -> _Labelled | None:
    """What labels say of one comparison; None without labels in two clusters.

    Several raters' scores of a pair are averaged. Unscored pairs take no part in the estimate.
    """
    known = set(pairs.items)
    ratings = [
        one
        for one in results.labels
        if (one.cell, one.against, one.criterion) == (named.cell, named.against, named.measure)
        and one.item in known
        and not one.again
    ]
    human, inclusion = _labels(pairs.items, ratings)
    scored = pairs.scored
    human, inclusion = human[scored], inclusion[scored]
    clusters, identical = pairs.clusters[scored], pairs.identical[scored]
    labelled = np.isfinite(human) & ~identical
    if len(np.unique(clusters[labelled])) < 2:
        return None
    found = anchor(
        pairs.differences[scored], human, clusters, inclusion=inclusion, identical=identical
    )
    raters = len({one.rater for one in ratings})
    return _Labelled(found, scale.limits, float(np.mean(~scored)), int(labelled.sum()), raters)


def tail_at_looks(results: StudyResults, tail: float) -> float:
    """One-sided error of a bound that has no spending of its own: an even share of each look."""
    return tail if results.looks is None else tail / len(results.looks.fractions)


def guaranteed_of(
    pairs: Paired, scale: Measure, *, tail: float, points: float | None = None
) -> Guaranteed | None:
    """The bounds of one comparison.

    Args:
        points: a severe loss; None: half of the measure's range.
    """
    limits = scale.limits
    if limits is None or not len(pairs.items):
        return None
    severe = SEVERE_SHARE * limits[1] if points is None else points
    return Guaranteed(
        guaranteed_lower(pairs.worst, pairs.clusters, limits, tail=tail),
        severe_loss(pairs.worst, pairs.clusters, points=severe, tail=tail),
        severe,
    )


def _labels(items: Sequence[str], ratings: Sequence[Rating]) -> tuple[Floats, Floats]:
    """Mean difference by people and inclusion of each item: NaN where it has no label."""
    place = {item: index for index, item in enumerate(items)}
    sums, counts = np.zeros(len(items)), np.zeros(len(items))
    inclusion = np.ones(len(items))
    for one in ratings:
        at = place[one.item]
        sums[at] += one.score - one.score_against
        counts[at] += 1.0
        inclusion[at] = one.inclusion
    human = np.full(len(items), np.nan)
    human[counts > 0] = sums[counts > 0] / counts[counts > 0]
    return human, inclusion


def _with_unscored(interval: Interval, share: float, limits: Limits) -> Interval:
    """Holds the mean over all items, whatever a share of them without a score is worth."""
    low = min(interval.low, (1.0 - share) * interval.low + share * limits[0])
    high = max(interval.high, (1.0 - share) * interval.high + share * limits[1])
    return replace(interval, low=low, high=high)
