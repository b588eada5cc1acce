"""Rank correlations, and intervals of statistics over items in clusters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import special

from tuneproof.analysis.intervals import MINIMUM_CLUSTERS, Codes, Floats, Interval, codes_of

_MOST_GROUPS = 200
"""The jackknife leaves out so many groups of clusters at most."""


def spearman(first: Floats, second: Floats) -> float:
    """Spearman's rank correlation: the correlation of ranks, tied values sharing their mean rank.

    0.0 where one side has one value only: nothing was shown.

    Args:
        first, second: shape (n,).
    """
    ranks = [_ranks(each) for each in (first, second)]
    centred = [each - each.mean() for each in ranks]
    spread = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float((centred[0] * centred[1]).sum()) / spread if spread > 0.0 else 0.0


def kendall(first: Floats, second: Floats) -> float:
    """Kendall's τ-b (Kendall 1945, Biometrika 33:239), from the table of both values' counts.

    0.0 where one side has one value only.
    """
    (rows, row), (columns, column) = (
        np.unique(each, return_inverse=True) for each in (first, second)
    )
    table = np.zeros((len(rows), len(columns)))
    np.add.at(table, (row, column), 1.0)
    # Pairs that agree: each cell with what lies below and to the right; that disagree: below left.
    below = np.cumsum(np.cumsum(table[::-1, ::-1], axis=0), axis=1)[::-1, ::-1]
    across = np.cumsum(np.cumsum(table[::-1, :], axis=0), axis=1)[::-1, :]
    agreeing = float((table[:-1, :-1] * below[1:, 1:]).sum())
    opposed = float((table[:-1, 1:] * across[1:, :-1]).sum())
    pairs = [
        len(first) * (len(first) - 1) / 2 - float((counts * (counts - 1)).sum()) / 2
        for counts in (table.sum(axis=1), table.sum(axis=0))
    ]
    untied = float(np.sqrt(pairs[0] * pairs[1]))
    return (agreeing - opposed) / untied if untied > 0.0 else 0.0


def jackknife(
    statistic: Callable[[Codes], float], clusters: Codes, confidence: float
) -> Interval | None:
    """θ ± t·SE of a statistic over items in clusters, from -1 to 1; None for few clusters.

    SE² = (G-1)/G Σ_g (θ₍g₎ - mean θ₍·₎)², θ₍g₎ without the g-th group of clusters: each cluster is
    a group, and of more than 200 clusters every group has several (Kott 2001, Journal of Official
    Statistics 17:521). t has G-1 degrees of freedom.

    Args:
        statistic: of the items at these places.
        clusters: shape (n,), any whole numbers.
    """
    codes = codes_of(clusters)
    if (count := int(codes.max(initial=-1)) + 1) < MINIMUM_CLUSTERS:
        return None
    groups = min(count, _MOST_GROUPS)
    dealt = np.random.default_rng(0).permutation(count) % groups
    group = dealt[codes]
    without = np.array([statistic(np.flatnonzero(group != each)) for each in range(groups)])
    variance = (groups - 1) / groups * float(((without - without.mean()) ** 2).sum())
    reach = float(special.stdtrit(groups - 1, (1.0 + confidence) / 2.0)) * variance**0.5
    found = statistic(np.arange(len(codes)))
    return Interval(max(-1.0, found - reach), min(1.0, found + reach), confidence, "cluster-t")


def _ranks(values: Floats) -> Floats:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2.0)[place], dtype=np.float64)
