"""Simulated studies: sizes of clusters, differences in them, and what counts as covered."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tuneproof.analysis.intervals import Codes, Floats, Interval

POINTS = (-4.0, 4.0)
"""Differences of two scores from 1 to 5."""

SIZES = ("equal", "one to eight", "lognormal", "one half")


def clusters_of(random: np.random.Generator, sizes: str, count: int) -> Codes:
    """Each item's cluster, shape (n,): `count` clusters whose sizes are as named."""
    match sizes:
        case "equal":
            each = np.full(count, 3)
        case "one to eight":
            each = random.integers(1, 9, count)
        case "lognormal":
            each = np.minimum(np.ceil(random.lognormal(0.5, 1.0, count)), 60).astype(np.int64)
        case _:
            each = np.array([count - 1] + [1] * (count - 1))
    return np.repeat(np.arange(count), each)


def alike(random: np.random.Generator, clusters: Codes, correlation: float) -> Floats:
    """Normal values of mean 0 and variance 1 with this correlation inside clusters."""
    shared = random.normal(size=int(clusters.max()) + 1)[clusters]
    own = random.normal(size=len(clusters))
    return math.sqrt(correlation) * shared + math.sqrt(1.0 - correlation) * own


@dataclass
class Tally:
    """How often something holds."""

    hits: int = 0
    rounds: int = 0

    def add(self, hit: bool) -> None:
        self.hits += bool(hit)
        self.rounds += 1

    @property
    def share(self) -> float:
        return self.hits / self.rounds if self.rounds else math.nan


def holds(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high
