"""What a recipe does over training seeds, and what its next seed may do.

One adapter against the baseline says something about that adapter. About the recipe, training data
and hyper-parameters together, it says nothing: another seed is another adapter. With three seeds or
more, each answering the same items, both kinds of chance are in the interval: which items, and
which seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tuneproof.analysis.intervals import (
    Codes,
    Estimate,
    Floats,
    Interval,
    Limits,
    cluster_robust,
    codes_of,
    estimate,
    reach_of,
    why_no_interval,
)
from tuneproof.servicekit.errors import InvalidInput

MINIMUM_SEEDS = 3
"""Below it there is no interval for a recipe: two seeds leave one degree of freedom."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe's mean difference over seeds and items."""

    estimate: Estimate
    """Of the mean over all seeds that could be drawn and all items; with several seeds its variance
    is V. Items and clusters are those that every seed answered."""
    of_items: Estimate
    """The same with these seeds fixed: the items' chance alone."""
    next_seed: Estimate
    """Of what one more seed would show over all items: the same difference, a larger variance."""
    seed_means: tuple[float, ...]
    """Each seed's mean difference, in the order given."""
    seed_variance: float | None
    """σ²_seed, between the true means of seeds; None with one seed."""


def over_seeds(differences: Floats, clusters: Codes) -> Recipe:
    """A recipe's mean difference from S seeds that answered the same items.

    With d_si the difference of seed s on item i, D the mean of all, D_s a seed's and D_i an item's,

        V = V_items + max(0, S²_seeds/S - V_resid).

    V_items is the CR2 variance of the mean of the D_i, which holds the items' chance and that of
    seeds by items; S²_seeds is the variance of the D_s, which holds the seeds' chance and again
    that of seeds by items; V_resid = Σ_s V_CR2(r_s)/(S (S - 1)), with r_si = d_si - D_s - D_i + D,
    is what was counted twice. It is the variance for clusters in two ways, by items' clusters and
    by seeds (Cameron, Gelbach and Miller 2011, Journal of Business and Economic Statistics 29:238);
    seeds cannot make it smaller than V_items. Degrees of freedom are Satterthwaite's,

        df = V² / (V_items²/f + (S²_seeds/S)²/(S - 1) + V_resid²/(f (S - 1))),

    f those of V_items (Satterthwaite 1946, Biometrics Bulletin 2:110), cut to S - 1 … f.

    The next seed differs from D by V plus the seeds' own variance,
    σ² = max(0, S²_seeds - S V_resid): V_next = V + σ² (Higgins, Thompson and Spiegelhalter 2009,
    Journal of the Royal Statistical Society A 172:137), its degrees of freedom alike, with S²_seeds
    and V_resid times S + 1. The interval is for a seed's mean over all items; a study of n items
    sees it with the error of n items on top.

    Assumptions: seeds are drawn independently, as are clusters; the baseline is one and the same.

    Args:
        differences: shape (S, n), in the measure's units, none missing.
        clusters: shape (n,), any whole numbers.

    Raises:
        InvalidInput: shapes do not fit, or a value is missing.
    """
    if differences.ndim != 2 or differences.shape[1:] != clusters.shape or not differences.size:
        raise InvalidInput(
            "differences need the shape (seeds, items) and clusters (items,), got"
            f" {differences.shape} and {clusters.shape}"
        )
    if not np.isfinite(differences).all():
        raise InvalidInput("differences over seeds must be complete: leave out items with gaps")
    seeds = len(differences)
    by_item = differences.mean(axis=0)
    found = estimate(by_item, clusters)
    means = differences.mean(axis=1)
    known = tuple(float(each) for each in means)
    if seeds == 1 or found.standard_error is None:
        return Recipe(found, found, found, known, None)

    codes = codes_of(clusters)
    left = differences - by_item - means[:, None] + found.difference
    resid = sum(cluster_robust(each, codes)[1] for each in left) / (seeds * (seeds - 1))
    between = float(means.var(ddof=1))
    items = found.standard_error**2
    seed_variance = max(0.0, between - seeds * resid)
    total = items + seed_variance / seeds

    def freedom(variance: float, times: float) -> float:
        parts = items**2 / found.degrees_of_freedom
        parts += (times * between / seeds) ** 2 / (seeds - 1)
        parts += (times * resid) ** 2 / (found.degrees_of_freedom * (seeds - 1))
        if parts == 0.0:
            return found.degrees_of_freedom
        least = min(float(seeds - 1), found.degrees_of_freedom)
        return min(found.degrees_of_freedom, max(least, variance**2 / parts))

    def widened(variance: float, times: float) -> Estimate:
        return Estimate(
            found.difference,
            math.sqrt(variance),
            freedom(variance, times),
            found.items,
            found.clusters,
            found.cluster_means,
            found.cluster_sizes,
        )

    following = widened(total + seed_variance, seeds + 1.0)
    return Recipe(widened(total, 1.0), found, following, known, seed_variance)


def recipe_interval(found: Recipe, confidence: float, limits: Limits | None) -> Interval | None:
    """The interval for the recipe's mean difference; None where `why_no_recipe` says why."""
    return None if why_no_recipe(found) else reach_of(found.estimate, confidence, limits)


def prediction_interval(found: Recipe, confidence: float, limits: Limits | None) -> Interval | None:
    """Where the next seed's mean over all items will lie, with this confidence; None as above."""
    return None if why_no_recipe(found) else reach_of(found.next_seed, confidence, limits)


def why_no_recipe(found: Recipe) -> str:
    """Why there is no interval for a recipe; empty where there is one."""
    seeds = len(found.seed_means)
    if seeds < MINIMUM_SEEDS:
        return f"{seeds} training seed{'s' * (seeds > 1)}; a recipe needs {MINIMUM_SEEDS}"
    # Of the clusters alone: few seeds leave few degrees of freedom, and Student's t says what for.
    return why_no_interval(found.of_items)
