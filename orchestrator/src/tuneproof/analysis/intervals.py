"""Confidence intervals for a mean of paired differences whose items come in clusters.

Assumptions: clusters (documents, say) are drawn independently of each other; items within one may
depend on each other in any way. The estimand is the mean over *items*, so a large cluster weighs
more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Limits = tuple[float, float]
"""Lowest and highest difference that a measure allows."""

MINIMUM_CLUSTERS = 10
"""Below it there is no interval: cluster-robust variances are then too small too often
(Cameron and Miller 2015, Journal of Human Resources 50:317, section VI)."""

MINIMUM_DIFFERING = 5
"""From 40 clusters on, so many must differ from the common value before the variance alone sets the
width (`_unseen`, `wanted_differing`). With four, a loss in 2 % of 400 clusters is covered .88."""

MINIMUM_FREEDOM = 3.0
"""Degrees of freedom below which there is no interval: one cluster then carries so much of the
mean that its luck decides the result."""

_VISIBLE = 0.01
"""A difference of this share of the measure's range counts as one; a smaller one counts in part."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided confidence interval in the measure's own units."""

    low: float
    high: float
    confidence: float
    """Of this one interval, the adjustment for several included."""
    method: Literal["cluster-t", "widened-t", "exact-binomial"]
    """`cluster-t`: D ± t · √V. `exact-binomial`: all clusters agree, and a count bounds what was
    not seen. `widened-t`: between the two, because few clusters differ."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean difference and what its sampling error is judged from."""

    difference: float
    """Mean over items, in the measure's units; NaN without items."""
    standard_error: float | None
    """√V by CR2; None for fewer than two clusters."""
    degrees_of_freedom: float
    """Satterthwaite's, from 1 to G - 1; 0 for fewer than two clusters."""
    items: int
    clusters: int
    cluster_means: Floats = field(repr=False, compare=False)
    """Shape (G,): mean difference in each cluster."""
    cluster_sizes: Floats = field(repr=False, compare=False)
    """Shape (G,): items in each cluster."""


def codes_of(clusters: Codes | Sequence[str]) -> Codes:
    """Clusters by codes 0 to G - 1, each occurring, in the order of their values or names."""
    if isinstance(clusters, np.ndarray) and _are_codes(clusters):
        return clusters
    return np.unique(clusters, return_inverse=True)[1].astype(np.int64)


def _are_codes(clusters: Codes) -> bool:
    """Looked at before they are sorted, which takes most of the time of an interval."""
    return bool(
        clusters.dtype == np.int64
        and len(clusters)
        and clusters.min() == 0
        and clusters.max() < len(clusters)
        and np.bincount(clusters).all()
    )


def cluster_robust(differences: Floats, clusters: Codes) -> tuple[float, float]:
    """Mean over items, and its cluster-robust variance by CR2.

    With n items, n_g of them in cluster g, D the mean of all dᵢ, u_g the sum of dᵢ - D over
    cluster g, and w_g = 1 / (1 - n_g/n),

        V = Σ_g w_g u_g² / n².

    It is the bias-reduced sandwich of a regression on a constant: the residuals of a cluster pull
    the mean towards themselves, and (I - H_gg)^(-1/2) undoes it. H_gg = 11ᵀ/n has the vector of
    ones as its only eigenvector with a value other than 0, n_g/n, so the matrix acts on a
    cluster's sum as √w_g (Bell and McCaffrey 2002, Survey Methodology 28:169; Pustejovsky and
    Tipton 2018, Journal of Business and Economic Statistics 36:672, section 2). V is unbiased when
    items are independent with one variance. Where each item is a cluster of its own it is s²/n,
    the variance of the paired t test.

    Args:
        differences: shape (n,), in the measure's units.
        clusters: shape (n,): codes 0 to G - 1, each occurring, G at least 2.

    Returns:
        mean, in the measure's units, and variance of the mean, in their square.
    """
    count = len(differences)
    mean = float(differences.mean())
    residuals = np.bincount(clusters, weights=differences - mean)
    sizes = np.bincount(clusters)
    return mean, float((residuals**2 / (1.0 - sizes / count)).sum()) / count**2


def degrees_of_freedom(sizes: Floats) -> float:
    """Satterthwaite's degrees of freedom of the CR2 variance of a mean, after Bell and McCaffrey.

    V is a quadratic form in the data. With items independent and of one variance it has the
    eigenvalues of B = C∘√(w wᵀ), where C = diag(n_g) - n_g n_h/n is the covariance of the cluster
    sums u_g, and V/E(V) is matched by a χ² with

        df = (tr B)² / Σ_gh B_gh².

    Because B_gg = n_g and B_gh = -√(w_g w_h) n_g n_h/n, and with a_g = w_g n_g², no matrix of G
    by G is needed:

        df = n² / (Σ n_g² + ((Σ a_g)² - Σ a_g²) / n²).

    Equal clusters give G - 1 (Bell and McCaffrey 2002; Pustejovsky and Tipton 2018, section 3.1).

    Args:
        sizes: shape (G,), items in each cluster, G at least 2.
    """
    total = float(sizes.sum())
    weighted = sizes**2 / (1.0 - sizes / total)
    cross = float(weighted.sum()) ** 2 - float((weighted**2).sum())
    return total**2 / (float((sizes**2).sum()) + cross / total**2)


def estimate(differences: Floats, clusters: Codes) -> Estimate:
    """The mean difference of one study with its standard error, for any number of items.

    Args:
        differences: shape (n,), in the measure's units.
        clusters: shape (n,), any whole numbers: items with the same one share a cluster.
    """
    items = len(differences)
    if items == 0:
        return Estimate(math.nan, None, 0.0, 0, 0, np.zeros(0), np.zeros(0))
    codes = codes_of(clusters)
    sizes = np.bincount(codes).astype(np.float64)
    means = np.bincount(codes, weights=differences) / sizes
    groups = len(sizes)
    if groups < 2:
        return Estimate(float(differences.mean()), None, 0.0, items, groups, means, sizes)
    mean, variance = cluster_robust(differences, codes)
    error = math.sqrt(variance)
    # Equal differences have no variance: what is left are rounding errors.
    spread = float(np.abs(differences).max())
    error = 0.0 if error <= 1e-12 * spread else error
    return Estimate(mean, error, degrees_of_freedom(sizes), items, groups, means, sizes)


def why_no_interval(found: Estimate) -> str:
    """Why `interval_of` gives no interval for reasons of the clusters; empty where it can."""
    if found.clusters < MINIMUM_CLUSTERS:
        return f"{found.clusters}; an interval needs {MINIMUM_CLUSTERS}"
    if found.degrees_of_freedom < MINIMUM_FREEDOM:
        return (
            f"{found.clusters}, so unequal that they count as"
            f" {found.degrees_of_freedom + 1.0:.1f}; an interval needs {MINIMUM_FREEDOM + 1.0:.0f}"
        )
    return ""


def interval_of(found: Estimate, confidence: float, limits: Limits | None) -> Interval | None:
    """The interval for the mean difference, or None where the data support none.

    D ± t · √V by Student's t with Satterthwaite's degrees of freedom, cut to `limits`, where
    enough clusters differ visibly from the common value (`wanted_differing`). √V says nothing of
    differences that were not seen: where fewer clusters differ, each end moves out towards the
    exact bound of `_unseen`, in proportion to how many are missing. The ends are continuous in the
    differences: there is no jump from clusters that all agree to clusters that nearly do.

    Args:
        confidence: above 0, below 1.
        limits: None for a measure without an upper end; then nothing bounds what was not seen,
            the interval is D ± t · √V, and there is none where V is 0.
    """
    return None if why_no_interval(found) else reach_of(found, confidence, limits)


def reach_of(found: Estimate, confidence: float, limits: Limits | None) -> Interval | None:
    """What `interval_of` gives, for an estimate that has its own rule of when there is one."""
    if found.standard_error is None:
        return None
    tail = (1.0 - confidence) / 2.0
    reach = float(special.stdtrit(found.degrees_of_freedom, 1.0 - tail)) * found.standard_error
    low, high = found.difference - reach, found.difference + reach
    if limits is None:
        return Interval(low, high, confidence, "cluster-t") if reach > 0.0 else None
    low, high = max(low, limits[0]), min(high, limits[1])
    missing = max(0.0, 1.0 - _differing(found, limits) / wanted_differing(found.clusters))
    if missing == 0.0:
        return Interval(low, high, confidence, "cluster-t")
    lowest, highest = _unseen(found, tail, limits)
    low += missing * min(0.0, lowest - low)
    high += missing * max(0.0, highest - high)
    return Interval(low, high, confidence, "exact-binomial" if missing == 1.0 else "widened-t")


def wanted_differing(clusters: int) -> float:
    """How many clusters must differ before the variance alone sets the width: 1 + G/10, at most 5.

    Losses that come with a chance p to each cluster are hardest to see. Where they are all that
    differs, this covers them in .90 of studies or more, whatever p and from 10 to 400 clusters. A
    flat five covers no better from 30 clusters on; below, intervals of studies with many ties were
    up to 2.7 times as wide as they need to be (docs/statistics.md).
    """
    return min(float(MINIMUM_DIFFERING), 1.0 + clusters / 10.0)


def _differing(found: Estimate, limits: Limits) -> float:
    """How many clusters differ from the median one.

    One that differs by less than 1 % of the measure's range counts in part.
    """
    visible = _VISIBLE * (limits[1] - limits[0]) / 2.0
    apart = np.abs(found.cluster_means - median_of(found.cluster_means))
    return float(np.minimum(apart / visible, 1.0).sum())


def median_of(values: Floats) -> float:
    """As numpy's, for finite values; its checks take several times as long."""
    low, high = (len(values) - 1) // 2, len(values) // 2
    parted = np.partition(values, (low, high))
    return float(parted[low] + parted[high]) / 2.0


def _unseen(found: Estimate, tail: float, limits: Limits) -> Limits:
    """How far the mean could lie from the value that clusters have in common.

    Let c be the median of the cluster means, and y_g the part of the way from c to the highest
    difference that cluster g goes up, from 0 to 1, n_g that to the lowest. The mean is
    c + (highest - c)·E(y) - (c - lowest)·E(n). Among variables from 0 to 1 with one mean, the
    one that is only ever 0 or 1 varies most, so Clopper and Pearson's ends for the count Σ y_g
    of G bound E(y) from above, and likewise E(n) from below (`upper_share`). Where all G
    clusters agree the bound is the familiar one for 0 of G: a share 1 - tail^(1/G) of clusters,
    about 3.7/G at 95 %, may differ by all that the measure allows. It rises with every y_g and
    falls with every n_g. Clusters of unequal size count as G = n²/Σ n_g² equal ones (Kish 1965,
    Survey Sampling, section 11.7).

    Returns:
        lowest and highest mean.
    """
    means, sizes = found.cluster_means, found.cluster_sizes
    common = median_of(means)
    shares = sizes / sizes.sum()
    count = 1.0 / float((shares**2).sum())
    up, down = limits[1] - common, common - limits[0]
    above = count * float((shares * np.maximum(means - common, 0.0)).sum()) / max(up, 1e-12)
    below = count * float((shares * np.maximum(common - means, 0.0)).sum()) / max(down, 1e-12)
    lowest = common - down * upper_share(below, count, tail) + up * _lower(above, count, tail)
    highest = common + up * upper_share(above, count, tail) - down * _lower(below, count, tail)
    return lowest, highest


def upper_share(events: float, count: float, tail: float) -> float:
    """Clopper and Pearson's upper end for the share behind `events` of `count`.

    It is the 1 - tail quantile of a beta distribution with events + 1 and count - events, also for
    numbers that are not whole; 0 of n gives 1 - tail^(1/n) (Clopper and Pearson 1934, Biometrika
    26:404).
    """
    return (
        1.0
        if events >= count
        else float(special.betaincinv(events + 1, count - events, 1.0 - tail))
    )


def _lower(events: float, count: float, tail: float) -> float:
    """Clopper and Pearson's lower end for the share behind `events` of `count`."""
    events = min(events, count)
    return 0.0 if events <= 1e-9 else float(special.betaincinv(events, count - events + 1, tail))
