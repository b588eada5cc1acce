"""The mean of a probability sample whose items were drawn with unequal chances, in clusters."""

from __future__ import annotations

import math

import numpy as np

from tuneproof.analysis.intervals import Codes, Estimate, Floats, codes_of, estimate
from tuneproof.servicekit.errors import InvalidInput


def hajek(values: Floats, clusters: Codes, inclusion: Floats | None = None) -> Estimate:
    """The mean over the population from which items were drawn, with its standard error by CR2.

    With wᵢ = 1/πᵢ, W = Σ wᵢ and a_g the sum of wᵢ over cluster g, mean and variance are

        m = Σ wᵢ xᵢ / W,    V = Σ_g (Σ_{i in g} wᵢ (xᵢ - m))² / (1 - a_g/W) / W².

    The mean is Hájek's: it needs no size of the population, and equal values give that value
    (Särndal, Swensson and Wretman 1992, Model Assisted Survey Sampling, section 5.7). Clusters are
    drawn independently; V leaves out a correction for a finite population. Equal chances give
    `intervals.estimate`.

    Args:
        values: shape (n,), in the measure's units.
        clusters: shape (n,), any whole numbers.
        inclusion: shape (n,), πᵢ, above 0 and at most 1; None where all are equal.

    Returns:
        an estimate whose cluster sizes are the weights' sums, scaled to n in all.

    Raises:
        InvalidInput: lengths differ, or a probability is not above 0 and at most 1.
    """
    count = len(values)
    if inclusion is None or count == 0:
        return estimate(values, clusters)
    weights = weights_of(inclusion, count)
    codes = codes_of(clusters)
    total = float(weights.sum())
    mean = float(weights @ values) / total
    sizes = np.bincount(codes, weights=weights)
    means = np.bincount(codes, weights=weights * values) / sizes
    groups = len(sizes)
    error = None
    if groups >= 2:
        residuals = sizes * (means - mean)
        error = math.sqrt(float((residuals**2 / (1.0 - sizes / total)).sum())) / total
        error = 0.0 if error <= 1e-12 * float(np.abs(values).max()) else error
    freedom = weighted_freedom(weights, codes) if groups >= 2 else 0.0
    scaled = sizes * count / total
    return Estimate(mean, error, freedom, count, groups, means, scaled)


def weights_of(inclusion: Floats | None, count: int) -> Floats:
    """wᵢ = 1/πᵢ, shape (n,)."""
    if inclusion is None:
        return np.ones(count)
    if inclusion.shape != (count,):
        raise InvalidInput(
            f"{count} values but inclusion probabilities of shape {inclusion.shape}: give one each"
        )
    if not ((inclusion > 0.0) & (inclusion <= 1.0)).all():
        raise InvalidInput("inclusion probabilities must be above 0 and at most 1")
    return 1.0 / inclusion


def weighted_freedom(weights: Floats, clusters: Codes) -> float:
    """Satterthwaite's degrees of freedom of the CR2 variance of a weighted mean.

    With items independent and of one variance, a_g and b_g the sums of wᵢ and wᵢ² over cluster g,
    W = Σ a_g, B = Σ b_g, the weighted residual sums of clusters have the covariances

        C_gh = [g = h] b_g - (a_g b_h + b_g a_h)/W + a_g a_h B/W²,

    and df = (tr M)² / Σ_gh M_gh² with M_gh = C_gh / √((1 - a_g/W)(1 - a_h/W)). M is a diagonal
    plus a matrix of rank 2, so that no matrix of G by G is made. Equal weights give
    `intervals.degrees_of_freedom` (Bell and McCaffrey 2002, Survey Methodology 28:169).

    Args:
        weights: shape (n,), above 0.
        clusters: shape (n,): codes 0 to G - 1, each occurring, G at least 2.
    """
    first = np.bincount(clusters, weights=weights)
    second = np.bincount(clusters, weights=weights**2)
    total, squares = float(first.sum()), float(second.sum())
    scale = 1.0 / np.sqrt(1.0 - first / total)
    diagonal = scale**2 * second
    factors = np.array([scale * first, scale * second])
    core = np.array([[squares / total**2, -1.0 / total], [-1.0 / total, 0.0]])
    products = np.array([[float(one @ other) for other in factors] for one in factors])
    inner = core @ products
    low_rank = core[0, 0] * factors[0] ** 2 + 2.0 * core[0, 1] * factors[0] * factors[1]
    trace = float((diagonal + low_rank).sum())
    norm = float((diagonal**2).sum() + 2.0 * (diagonal * low_rank).sum() + np.trace(inner @ inner))
    return trace**2 / norm
