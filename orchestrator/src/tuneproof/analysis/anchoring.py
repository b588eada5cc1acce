"""A judge's verdict anchored in people: many judged pairs, and labels for a few of them.

A judge may like one arm better than people do. Its mean difference is then wrong, and more items
only make it more surely wrong. People label a probability sample of the pairs; the labels correct
the judge, and the judge makes the labels' interval narrower. The interval holds the mean difference
*by people* whatever the judge's errors are: a bad judge costs width, never validity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tuneproof.analysis.intervals import (
    Codes,
    Estimate,
    Floats,
    Interval,
    Limits,
    codes_of,
    estimate,
    interval_of,
)
from tuneproof.analysis.weighted import hajek, weighted_freedom, weights_of
from tuneproof.servicekit.errors import InvalidInput

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Anchored:
    """The mean difference by people, estimated from judged pairs and labels."""

    estimate: Estimate
    """Of the difference by people. Items and clusters are the labelled ones, and so are the degrees
    of freedom; a cluster's mean is λ J̄ plus its part of the correction."""
    judge_weight: float
    """λ, 0 to 1: how far the judge's differences are used; 0 is the labels alone."""
    judged: float
    """Mean difference by the judge over all pairs, in the measure's units."""
    bias: Estimate
    """Of J - H over the labelled pairs: how much better the judge likes the arm than people do,
    compared with what it is compared with."""
    pairs: int
    """Judged pairs, N."""
    identical: int
    """Pairs of identical texts among them."""


def anchor(
    judge: Floats,
    human: Floats,
    clusters: Codes,
    *,
    inclusion: Floats | None = None,
    identical: Flags | None = None,
) -> Anchored:
    """The mean difference by people over all pairs, by PPI++ on paired differences in clusters.

    All N pairs have the judge's difference Jᵢ, a sample L of n pairs has people's Hᵢ. With
    eᵢ = Hᵢ - λ Jᵢ,

        θ = λ J̄_N + mean_L(e),    λ = cov_L(H, J) / var_N(J), cut to 0 … 1.

    θ is unbiased for any fixed λ, since L is a probability sample; this λ makes its variance
    smallest (Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453, section 6: their pairs without a
    label are N - n, and their λ is ours times 1 - n/N, so that θ is the same). With

        ψᵢ = λ (Jᵢ - J̄_N)/N + [i in L] (eᵢ - ē)/n,    V = Σ_g c_g (Σ_{i in g} ψᵢ)²,

    where c_g = 1/(1 - h_g) by CR2, h_g the larger of cluster g's shares of the labels and of the
    pairs: G/(G - 1) where every cluster has one size and as many labels. Degrees of freedom are
    Satterthwaite's over the labelled clusters. Labels for all pairs give `intervals.estimate` of H.
    The papers' z interval for independent pairs centres labelled and other pairs each on their own
    mean; it lacks the corrections for few clusters.

    Unequal chances: means, covariance and ψ over L are weighted by 1/πᵢ (Hájek, `weighted.hajek`).

    Identical texts differ by 0, whatever anybody says, and need no label: pairs are post-stratified
    by it. With p the share of the other pairs, θ = λ J̄_N + p mean_L(e), ψᵢ gains
    ([texts differ] - p) ē/N, its last part is multiplied by p, and var(J) is over the other pairs
    (Holt and Smith 1979, Journal of the Royal Statistical Society A 142:33).

    Assumptions: clusters are drawn independently; L is drawn by chance, without looking at scores;
    a label says what its rater means, and which raters label what is chance.

    Args:
        judge: shape (N,), differences by the judge in the measure's units.
        human: shape (N,), differences by people, NaN where there is no label.
        clusters: shape (N,), any whole numbers.
        inclusion: shape (N,), the chance of each pair to be labelled; read for labelled pairs only.
            None where all pairs whose texts differ had the same.
        identical: shape (N,), pairs whose two answers are the same text; None for none.

    Raises:
        InvalidInput: shapes differ, a judge's difference is missing, labels are in fewer than two
            clusters, or an inclusion probability is out of range.
    """
    judge, known = _checked(judge, human, clusters, identical)
    count, differing = len(judge), len(judge) if identical is None else int((~identical).sum())
    if differing == 0:
        nothing = estimate(np.zeros(count), clusters)
        return Anchored(nothing, 0.0, 0.0, nothing, count, count)
    labelled = np.flatnonzero(known)
    weights = weights_of(None if inclusion is None else inclusion[labelled], len(labelled))
    weights = weights / weights.sum()
    ours, theirs = judge[labelled], human[labelled]
    apart = judge if identical is None else judge[~identical]
    power = _judge_weight(ours, theirs, weights, apart)

    share = differing / count
    errors = theirs - power * ours
    mean_error, judged = float(weights @ errors), float(judge.mean())
    value = power * judged + share * mean_error
    parts = power * (judge - judged) / count
    if identical is not None:
        parts += (~identical - share) * mean_error / count
    parts[labelled] += share * weights * (errors - mean_error)

    codes = codes_of(clusters)
    leverage = np.maximum(
        np.bincount(codes) / count,
        np.bincount(codes[labelled], weights=weights, minlength=codes.max() + 1),
    )
    sums = np.bincount(codes, weights=parts)
    error = math.sqrt(float((sums**2 / (1.0 - leverage)).sum()))
    spread = max(float(np.abs(judge).max()), float(np.abs(theirs).max()))
    groups = codes_of(codes[labelled])
    sizes = np.bincount(groups, weights=weights).astype(np.float64)
    corrections = np.bincount(groups, weights=weights * errors) / sizes
    found = Estimate(
        difference=value,
        standard_error=0.0 if error <= 1e-12 * spread else error,
        degrees_of_freedom=weighted_freedom(weights, groups),
        items=len(labelled),
        clusters=len(sizes),
        cluster_means=power * judged + share * corrections,
        cluster_sizes=sizes * len(labelled),
    )
    chances = None if inclusion is None else inclusion[labelled]
    bias = hajek(ours - theirs, clusters[labelled], chances)
    return Anchored(found, power, judged, bias, count, count - differing)


def anchored_interval(found: Anchored, confidence: float, limits: Limits | None) -> Interval | None:
    """The interval for the mean difference by people, or None where the labels support none.

    `intervals.interval_of` with the labelled clusters: below ten of them there is none, and where
    too few differ from the common value, the ends move out. What was not seen there is a
    correction p (H - λ J), which may be anything from p (low - λ high) to p (high - λ low). If all
    texts are identical, what was not seen is pairs that differ.

    Args:
        confidence: above 0, below 1.
        limits: lowest and highest difference of the measure; None without an upper end.
    """
    if limits is None or found.identical == found.pairs:
        return interval_of(found.estimate, confidence, limits)
    low, high = limits
    base = found.judge_weight * found.judged
    share = 1.0 - found.identical / found.pairs
    lowest = base + share * (low - found.judge_weight * high)
    highest = base + share * (high - found.judge_weight * low)
    interval = interval_of(found.estimate, confidence, (lowest, highest))
    if interval is None:
        return None
    return replace(interval, low=max(low, interval.low), high=min(high, interval.high))


def _judge_weight(judge: Floats, human: Floats, weights: Floats, apart: Floats) -> float:
    """λ: the weighted covariance over the labels by the variance over all pairs that differ."""
    variance = float(apart.var(ddof=1))
    if variance <= 1e-24 * max(1.0, float(np.abs(apart).max()) ** 2):
        return 0.0
    covariance = float(weights @ ((human - weights @ human) * (judge - weights @ judge)))
    return min(1.0, max(0.0, covariance / variance))


def _checked(
    judge: Floats, human: Floats, clusters: Codes, identical: Flags | None
) -> tuple[Floats, Flags]:
    """The judge's differences, 0 for identical texts, and which pairs have a label that counts."""
    shapes = {judge.shape, human.shape, clusters.shape}
    shapes |= set() if identical is None else {identical.shape}
    if len(shapes) != 1 or judge.ndim != 1 or not len(judge):
        raise InvalidInput(
            "judge, human, clusters and identical must have one and the same shape (N,), N at least"
            f" 1; got {sorted(shapes)}"
        )
    if not np.isfinite(judge).all():
        raise InvalidInput(
            f"{int((~np.isfinite(judge)).sum())} pairs lack the judge's difference: leave them out,"
            " and show what they could change by the hull"
        )
    known = np.isfinite(human)
    if identical is not None:
        judge, known = np.where(identical, 0.0, judge), known & ~identical
        if identical.all():
            return judge, known
    if len(np.unique(clusters[known])) < 2:
        raise InvalidInput(
            f"{int(known.sum())} labelled pairs whose texts differ, in"
            f" {len(np.unique(clusters[known]))} clusters: label pairs from two clusters at least;"
            " without labels a verdict is by the judge alone (`judge_bias.tipping_point`)"
        )
    return judge, known
