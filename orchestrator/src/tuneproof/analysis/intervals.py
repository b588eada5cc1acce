"""Confidence intervals for a mean of paired differences whose items come in clusters.

Assumptions: clusters (documents, say) are drawn independently of each other; items within one may
depend in any way. The estimand is the mean over *items*, so that a large cluster weighs more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]

MINIMUM_CLUSTERS = 10
"""Below it no interval is given: cluster-robust variances are then far too small too often
(Cameron and Miller 2015, Journal of Human Resources 50:317, section VI)."""

POWER = 0.80
"""Chance of seeing a difference that is there, for which `needed_items` plans."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided confidence interval in the measure's own units."""

    low: float
    high: float
    confidence: float
    """Of this one interval, the adjustment for several included."""
    method: Literal["cluster-t", "exact-binomial"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean difference and what its sampling error is judged from."""

    difference: float
    """NaN without items."""
    standard_error: float | None
    """Cluster-robust; None for fewer than two clusters."""
    items: int
    clusters: int


def cluster_robust(differences: Floats, clusters: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Mean over items and its cluster-robust variance.

    With n items in G clusters, D the mean of all dᵢ and u_g the sum of dᵢ - D over cluster g,

        V = G / (G - 1) · Σ_g u_g² / n².

    This is the sandwich estimator of a regression on a constant with the CR1 correction
    G/(G - 1) · (n - 1)/(n - k), where k = 1 (Liang and Zeger 1986; Cameron and Miller 2015,
    section II); unequal cluster sizes are allowed. Where each item is a cluster of its own it is
    s²/n, the variance of the paired t test.

    Args:
        differences: shape (..., n): one study per leading index.
        clusters: shape (n,): codes 0 to G - 1, each occurring, G at least 2.

    Returns:
        mean and variance, each of shape (...).
    """
    count = differences.shape[-1]
    groups = int(clusters.max()) + 1
    mean = differences.mean(axis=-1)
    members = np.zeros((count, groups))
    members[np.arange(count), clusters] = 1.0
    sums = (differences - mean[..., None]) @ members
    return mean, groups / (groups - 1) * (sums**2).sum(axis=-1) / count**2


def estimate(differences: Floats, clusters: npt.NDArray[np.int64]) -> Estimate:
    """The mean difference of one study with its standard error; never fails, whatever the size."""
    items = len(differences)
    if items == 0:
        return Estimate(math.nan, None, 0, 0)
    codes = np.unique(clusters, return_inverse=True)[1].astype(np.int64)
    groups = int(codes.max()) + 1
    if groups < 2:
        return Estimate(float(differences.mean()), None, items, groups)
    mean, variance = cluster_robust(differences, codes)
    error = math.sqrt(float(variance))
    # Sums of rounding errors are no variance: equal differences have none.
    spread = float(np.abs(differences).max())
    return Estimate(float(mean), 0.0 if error <= 1e-12 * spread else error, items, groups)


def interval_of(
    found: Estimate, confidence: float, limits: tuple[float, float] | None
) -> Interval | None:
    """The interval for the mean difference, or None where there is no honest one.

    D ± t · √V with G - 1 degrees of freedom (Student's t), cut to `limits`.

    Where V is 0 (every difference zero, say) that would be an interval of no width, which claims
    what G clusters cannot show. Then: all G clusters agreed on D, so that with the interval's
    confidence at most a share p = 1 - ((1 - confidence)/2)^(1/G) of clusters would not (the upper
    end of Clopper and Pearson's interval for 0 of G; about 3.7/G at 95 %), and these could differ
    by all that the measure allows: from D - p·(D - lowest) to D + p·(highest - D). It supposes
    clusters of about equal size; without limits (a measure with no upper end) there is none.

    Args:
        confidence: above 0, below 1.
        limits: lowest and highest difference that the measure allows.
    """
    if found.standard_error is None or found.clusters < MINIMUM_CLUSTERS:
        return None
    centre = found.difference
    tail = (1.0 - confidence) / 2.0
    if found.standard_error > 0.0:
        reach = float(stats.t.ppf(1.0 - tail, found.clusters - 1)) * found.standard_error
        low, high = centre - reach, centre + reach
        if limits is not None:
            low, high = max(low, limits[0]), min(high, limits[1])
        return Interval(low, high, confidence, "cluster-t")
    if limits is None:
        return None
    share = 1.0 - tail ** (1.0 / found.clusters)
    return Interval(
        centre - share * (centre - limits[0]),
        centre + share * (limits[1] - centre),
        confidence,
        "exact-binomial",
    )


def needed_items(
    found: Estimate, confidence: float, margin: float, limits: tuple[float, float] | None
) -> int | None:
    """About how many items would decide, clusters being as large and as alike as those seen.

    The smallest N at which a true difference of δ is found with 80 % power by the two-sided test
    at the interval's level: N = n·V · (t₁ + t₂)² / δ², where t₁ and t₂ are the quantiles of
    Student's t at 1 - (1 - confidence)/2 and .80 with G·N/n - 1 degrees of freedom (Chow, Shao
    and Wang 2008, section 3.1, with the cluster-robust variance in place of s²). If the study
    has so many items already, the difference lies in between; N is then what would either tell
    the observed difference from 0 or show it inside ±δ, whichever takes fewer, were it the true
    one. With V = 0: where the fallback of `interval_of` reaches no further than δ.

    Returns:
        N, rounded up to two significant digits and above the items of the study; None where the
        margin is 0, nothing can be planned from (fewer than two clusters), or it would take more
        than a million.
    """
    if found.standard_error is None or margin <= 0.0:
        return None
    per_cluster = found.items / found.clusters
    floor = max(found.items + 1, math.ceil(MINIMUM_CLUSTERS * per_cluster))
    tail = (1.0 - confidence) / 2.0
    if found.standard_error == 0.0:
        if limits is None:
            return None
        widest = max(found.difference - limits[0], limits[1] - found.difference)
        room = margin - abs(found.difference)
        if room <= 0.0 or room >= widest:
            return None
        groups = math.log(tail) / math.log1p(-room / widest)
        return _about(max(groups * per_cluster, floor))
    unit = found.standard_error**2 * found.items
    seen = abs(found.difference)
    distances = [margin]
    if _size(unit, margin, tail, per_cluster) <= found.items:
        distances = [seen, abs(margin - seen)]
    sizes = [_size(unit, distance, tail, per_cluster) for distance in distances if distance > 0.0]
    return _about(max(min(sizes), floor)) if sizes else None


def _size(unit: float, distance: float, tail: float, per_cluster: float) -> float:
    """Items at which `distance` is seen; `unit` is the variance that one item would have."""
    both = float(stats.norm.ppf(1.0 - tail) + stats.norm.ppf(POWER))
    size = unit * both**2 / distance**2
    # The quantiles depend on the size through the degrees of freedom; it settles in a few rounds.
    for _ in range(20):
        freedom = max(size / per_cluster - 1.0, 1.0)
        both = float(stats.t.ppf(1.0 - tail, freedom) + stats.t.ppf(POWER, freedom))
        size = unit * both**2 / distance**2
    return size


def _about(size: float) -> int | None:
    if not size <= 1e6:
        return None
    step = int(10 ** max(len(str(math.ceil(size))) - 2, 0))
    return math.ceil(size / step) * step
