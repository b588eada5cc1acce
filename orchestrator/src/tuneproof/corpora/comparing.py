"""Configurations of search side by side: means and paired differences, with intervals.

The intervals are those of a study (`analysis.intervals`): topics that share a document share a
cluster. The differences from the first configuration are simultaneous by Bonferroni, over the other
configurations, for each measure by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tuneproof.analysis.intervals import estimate, interval_of
from tuneproof.corpora.measuring import Measured
from tuneproof.corpora.topics import Topic

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over topics, or a mean difference, from -1 to 1."""

    mean: float
    low: float | None
    """None where the clusters allow no interval."""
    high: float | None
    ceiling: float | None = None
    """The most that the mean can be, where that is not 1."""


@dataclass(frozen=True, slots=True)
class Side:
    """One configuration."""

    name: str
    figures: Mapping[str, Figure]
    """By measure."""
    differences: Mapping[str, Figure]
    """From the first configuration; empty for that one."""


@dataclass(frozen=True, slots=True)
class SideBySide:
    """All configurations, over the topics that every one of them answered."""

    sides: tuple[Side, ...]
    topics: int
    clusters: int
    confidence: float = CONFIDENCE


def compare(topics: Sequence[Topic], measured: Mapping[str, Measured]) -> SideBySide:
    """Means and paired differences, over the topics that all configurations have scored."""
    scored = [set(next(iter(each.scores.values()))) for each in measured.values()]
    common = [topic for topic in topics if all(topic.id in ids for ids in scored)]
    numbers: dict[str, int] = {}
    codes = [numbers.setdefault(topic.cluster, len(numbers)) for topic in common]
    clusters = np.array(codes, dtype=np.int64)

    def figure(
        scores: Mapping[str, float], minus: Mapping[str, float] | None, confidence: float
    ) -> Figure:
        values = [scores[one.id] - (minus[one.id] if minus else 0.0) for one in common]
        found = estimate(np.array(values, dtype=np.float64), clusters)
        limits = (0.0, 1.0) if minus is None else (-1.0, 1.0)
        interval = interval_of(found, confidence, limits)
        ends = (interval.low, interval.high) if interval else (None, None)
        return Figure(found.difference, *ends)

    adjusted = 1.0 - (1.0 - CONFIDENCE) / max(1, len(measured) - 1)
    first = next(iter(measured))
    sides = []
    for name, each in measured.items():
        figures = {}
        for kind, scores in each.scores.items():
            plain = figure(scores, None, CONFIDENCE)
            most = each.ceilings.get(kind)
            ceiling = sum(most[one.id] for one in common) / len(common) if most else None
            figures[kind] = Figure(plain.mean, plain.low, plain.high, ceiling)
        differences = {
            kind: figure(scores, measured[first].scores[kind], adjusted)
            for kind, scores in each.scores.items()
            if name != first
        }
        sides.append(Side(name, figures, differences))
    return SideBySide(tuple(sides), len(common), len(numbers))
