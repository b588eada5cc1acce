"""Bounds against rare losses: what holds however the differences are distributed.

An interval from a variance is blind to losses that the sample happens not to hold. With 40 clusters
and losses of 4 points in 2 % of answers, nearly half of the samples hold none. Two bounds do not
rely on the variance: one for the mean, one for the share of severe losses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from tuneproof.analysis.intervals import Codes, Estimate, Floats, Limits, estimate, upper_share
from tuneproof.servicekit.errors import InvalidInput

SEVERE = 2.0
"""Points that an answer loses at least, to be a severe loss, on a scale from 1 to 5."""

_LARGEST_BET = 0.75
"""Of the capital, on one cluster (Waudby-Smith and Ramdas use 1/2 or 3/4)."""


def guaranteed_lower(
    differences: Floats,
    clusters: Codes,
    limits: Limits,
    *,
    tail: float = 0.025,
    seed: int = 0,
) -> float:
    """A lower bound for the mean over items that holds with 1 - tail for any distribution.

    Rescale to x = (d - low)/(high - low). Bet against "the mean is m", cluster by cluster, in a
    random order: with x_g the mean and n_g the size of cluster g, s_g = n_g / max n, the capital is

        K_t(m) = Π_{g ≤ t} (1 + λ_g s_g (x_g - m)),    0 ≤ λ_g ≤ c/m,    c = 3/4.

    If m is the mean, E s_g (x_g - m) = 0: each factor is a fair bet whose stake is set before x_g
    is seen, and by Ville's inequality K ever reaches 1/tail with a chance of at most tail. The
    bound is the smallest m that the capital does not refute, max_t K_t(m) < 1/tail; K falls as m
    rises.
    The stakes are the paper's for a sample of fixed size G,

        λ_g = √(2 ln(1/tail) / (G v_{g-1})),

    with v the variance of s(x - m̂) seen so far, started at 1/4, and m̂ = (1/2 + Σ s x)/(1 + Σ s)
    (Waudby-Smith and Ramdas 2024, Journal of the Royal Statistical Society B 86:1, arXiv
    2010.09686, section 4; s = 1 is theirs).

    Assumptions: clusters are drawn independently from one population, none of whose clusters is
    larger than the largest one seen. With one very large cluster the bound is valid and weak.

    Args:
        differences: shape (n,), n at least 1, in the measure's units, inside `limits`.
        clusters: shape (n,), any whole numbers.
        limits: lowest and highest difference of the measure.
        tail: one-sided error, above 0 and below 1.
        seed: of the order of the clusters; fix it before the scores are seen.

    Returns:
        the bound in the measure's units, `limits[0]` at least and the mean at most.

    Raises:
        InvalidInput: no differences, one outside `limits`, or a tail out of range.
    """
    low, high = limits
    if not 0.0 < tail < 1.0:
        raise InvalidInput(f"tail must be between 0 and 1, got {tail}", field="tail")
    found = estimate(differences, clusters)
    if not found.items or not ((differences >= low) & (differences <= high)).all():
        raise InvalidInput(
            f"a guaranteed bound needs differences from {low:g} to {high:g}, got"
            f" {len(differences)} of them"
            + (f", from {differences.min():g} to {differences.max():g}" if found.items else "")
        )
    order = np.random.default_rng(seed).permutation(found.clusters)
    shares = (found.cluster_sizes / found.cluster_sizes.max())[order]
    values = np.clip((found.cluster_means[order] - low) / (high - low), 0.0, 1.0)
    stakes = _stakes(values, shares, tail)
    target = math.log(1.0 / tail)

    def refuted(mean: float) -> bool:
        bets = np.minimum(stakes, _LARGEST_BET / mean) * shares
        return float(np.log1p(bets * (values - mean)).cumsum().max()) >= target

    below, above = 0.0, float(shares @ values / shares.sum())
    while above - below > 1e-7:
        middle = (below + above) / 2.0
        below, above = (middle, above) if refuted(middle) else (below, middle)
    # The lower end is refuted, or 0: rounding never lifts the bound.
    return low + (high - low) * below


def _stakes(values: Floats, shares: Floats, tail: float) -> Floats:
    """λ_g before it is cut to c/m: shape (G,), each from the clusters before it alone."""
    steps = np.arange(1, len(values) + 1)
    means = (0.5 + np.cumsum(shares * values)) / (1.0 + np.cumsum(shares))
    variances = (0.25 + np.cumsum((shares * (values - means)) ** 2)) / (1.0 + steps)
    before = np.concatenate([[0.25], variances[:-1]])
    return np.sqrt(2.0 * math.log(1.0 / tail) / (len(values) * before))


@dataclass(frozen=True, slots=True)
class SevereLoss:
    """How many answers lose much, and how many more could."""

    share: float
    """Of items that lose at least `points`."""
    upper: float
    """Upper bound of that share in the population."""
    tail: float
    """One-sided error of the bound."""
    items: int
    losses: int
    effective_items: float
    """n*: how many independent items carry as much information about the share."""


def severe_loss(
    differences: Floats, clusters: Codes, *, points: float = SEVERE, tail: float = 0.025
) -> SevereLoss:
    """The share of items that lose at least `points`, with an upper bound for clustered items.

    Clopper and Pearson's upper end for p n* of n*, with Korn and Graubard's effective size

        n* = n · p (1 - p)/((n - 1) V) · (t_{n-1}/t_df)²,    G* ≤ n* ≤ n,

    n by the design effect: V is the CR2 variance of the share p, t the 1 - tail quantiles of
    Student's t, df Satterthwaite's (Korn and Graubard 1998, Survey Methodology 24:193; Clopper and
    Pearson 1934, Biometrika 26:404). G* = n²/Σ n_g², the number of clusters where all have one
    size, is the effective size if all items of a cluster lose or none does.

    Without a loss V is 0 and says nothing of how losses cluster; then n* = G*. A first loss would
    raise n* and could lower the bound, so it is never below that for 0 of G*, 1 - tail^(1/G*):
    G* clusters cannot show more than that few clusters fail. 0 of 60 items, each a cluster of its
    own, give .0596 at .025, the upper end of the two-sided 95 % interval.

    It is exact for single items and an approximation for clusters: in simulation with 60 documents
    of 4 items, where half of the losses take a whole document, it covers .95 at a tail of .025.

    Args:
        differences: shape (n,), n at least 1, in the measure's units.
        clusters: shape (n,), any whole numbers.
        points: above 0: a loss counts from here on.

    Raises:
        InvalidInput: no differences, or `points` or `tail` out of range.
    """
    if not len(differences) or not points > 0.0 or not 0.0 < tail < 1.0:
        raise InvalidInput(
            "severe losses need differences, points above 0 and a tail between 0 and 1; got"
            f" {len(differences)} differences, points {points:g} and tail {tail:g}"
        )
    # Scores are means of repeats: what is 2 points but for rounding counts.
    lost = (differences <= -points + 1e-9).astype(np.float64)
    found = estimate(lost, clusters)
    share, smallest = found.difference, _equal_clusters(found)
    size = _effective_size(found, smallest, tail)
    upper = max(upper_share(share * size, size, tail), upper_share(0.0, smallest, tail))
    return SevereLoss(share, upper, tail, found.items, int(lost.sum()), size)


def _equal_clusters(found: Estimate) -> float:
    """Kish's number of equal clusters: Kish 1965, Survey Sampling, section 11.7."""
    return found.items**2 / float((found.cluster_sizes**2).sum())


def _effective_size(found: Estimate, smallest: float, tail: float) -> float:
    """n* of `severe_loss`."""
    share = found.difference
    if not found.standard_error:
        return smallest
    wide = float(special.stdtrit(found.degrees_of_freedom, 1.0 - tail))
    usual = float(special.stdtrit(found.items - 1, 1.0 - tail))
    independent = share * (1.0 - share) / (found.items - 1)
    size = found.items * independent / found.standard_error**2 * (usual / wide) ** 2
    return min(float(found.items), max(smallest, size))
