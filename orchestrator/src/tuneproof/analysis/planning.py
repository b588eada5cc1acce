"""How large a study to run, from the differences of a pilot.

More items beat more repeats of the judge: repeats only make smaller what one item's grades scatter,
and items also differ from each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from tuneproof.analysis.intervals import Codes, Estimate, Floats, codes_of
from tuneproof.servicekit.errors import InvalidInput

PRUDENCE = 0.8
"""One-sided confidence of the variance that a plan reckons with. A pilot's own variance is too
small in half of all pilots; then so is the study."""


@dataclass(frozen=True, slots=True)
class Components:
    """Where the variance of paired differences comes from, each in squared units of the measure."""

    item: float
    """Between items, in what all seeds share; with one seed, all that differs between items."""
    seed: float | None
    """Between training seeds, in the mean over all items; None with one seed."""
    seed_by_item: float | None
    """Between seeds, item by item, beyond that; None with one seed."""
    repeat: float | None
    """Between the judge's repeats of one difference; None with one repeat, whose scatter is then
    in the component between items, or seeds by items."""


def components(differences: Floats) -> Components:
    """Variance components by analysis of variance, all effects random.

    With S seeds, n items, R repeats, means over the indices left out, and mean squares

        MS_seed = nR Σ_s (y_s - y)²/(S-1),     MS_item = SR Σ_i (y_i - y)²/(n-1),
        MS_both = R Σ (y_si - y_s - y_i + y)²/((S-1)(n-1)),
        MS_rep  = Σ (y_sir - y_si)²/(Sn(R-1)),

    repeat = MS_rep, seed by item = (MS_both - MS_rep)/R, item = (MS_item - MS_both)/(SR) and
    seed = (MS_seed - MS_both)/(nR), each 0 where it comes out below (Searle, Casella and McCulloch
    1992, Variance Components, chapter 4). With one seed, item = (MS_item - MS_rep)/R.

    Args:
        differences: shape (S, n, R), n at least 2, none missing; a repeat's difference is that of
            the r-th grade of one answer and the r-th of the other.

    Raises:
        InvalidInput: another shape, or a missing value.
    """
    if differences.ndim != 3 or differences.shape[1] < 2 or 0 in differences.shape:
        raise InvalidInput(
            "a pilot's differences need the shape (seeds, items, repeats) with two items at least,"
            f" got {differences.shape}"
        )
    if not np.isfinite(differences).all():
        raise InvalidInput("a pilot's differences must be complete: leave out items with gaps")
    seeds, items, repeats = differences.shape
    cells = differences.mean(axis=2)
    of_seed, of_item, mean = cells.mean(axis=1), cells.mean(axis=0), float(cells.mean())
    repeat = 0.0
    if repeats > 1:
        scatter = float(((differences - cells[:, :, None]) ** 2).sum())
        repeat = scatter / (seeds * items * (repeats - 1))
    between = seeds * repeats * float(((of_item - mean) ** 2).sum()) / (items - 1)
    known = repeat if repeats > 1 else None
    if seeds == 1:
        return Components(max(0.0, (between - repeat) / repeats), None, None, known)
    left = cells - of_seed[:, None] - of_item[None, :] + mean
    both = repeats * float((left**2).sum()) / ((seeds - 1) * (items - 1))
    trained = items * repeats * float(((of_seed - mean) ** 2).sum()) / (seeds - 1)
    return Components(
        item=max(0.0, (between - both) / (seeds * repeats)),
        seed=max(0.0, (trained - both) / (items * repeats)),
        seed_by_item=max(0.0, (both - repeat) / repeats),
        repeat=known,
    )


def intraclass_correlation(differences: Floats, clusters: Codes) -> float | None:
    """How alike the items of one cluster are: the share of variance that lies between clusters.

    ICC = (MSB - MSW)/(MSB + (n₀ - 1) MSW) with the mean squares between and within clusters and
    n₀ = (n - Σ n_g²/n)/(G - 1), cut to 0 … 1 (Donner and Koval 1980, Biometrics 36:19).

    Args:
        differences: shape (n,).
        clusters: shape (n,), any whole numbers.

    Returns:
        None where no cluster has two items, there are fewer than two, or nothing varies.
    """
    codes = codes_of(clusters)
    sizes = np.bincount(codes)
    count, groups = len(codes), len(sizes)
    if groups < 2 or count == groups:
        return None
    means = np.bincount(codes, weights=differences) / sizes
    between = float((sizes * (means - differences.mean()) ** 2).sum()) / (groups - 1)
    within = float(((differences - means[codes]) ** 2).sum()) / (count - groups)
    typical = (count - float((sizes**2).sum()) / count) / (groups - 1)
    whole = between + (typical - 1.0) * within
    return min(1.0, max(0.0, (between - within) / whole)) if whole > 0.0 else None


def best_repeats(
    item_variance: float, repeat_variance: float, *, answer_cost: float, judge_cost: float
) -> int:
    """How many repeats of the judge give the narrowest interval for the money.

    N items with R repeats cost N (c_answer + R c_judge), and the variance of the mean is
    (σ²_item + σ²_rep/R)/N. Their product is smallest at

        n* = √(c_answer σ²_rep / (c_judge σ²_item)),

    the size of the subsample in two stages (Cochran 1977, Sampling Techniques, section 10.6); of
    the whole numbers around it the better one is taken.

    Args:
        item_variance: σ²_item, 0 or more; with several seeds, seed by item included.
        repeat_variance: σ²_rep of one repeat, 0 or more.
        answer_cost: of one item without judging, in any unit of money or time, 0 or more.
        judge_cost: of one repeat for one item, in the same unit, above 0.

    Raises:
        InvalidInput: a value is out of range, or items do not vary: then repeats alone count.
    """
    if min(item_variance, repeat_variance, answer_cost) < 0.0 or judge_cost <= 0.0:
        raise InvalidInput(
            "variances and costs must be 0 or more, and the judge's cost above 0; got variances"
            f" {item_variance:g} and {repeat_variance:g}, costs {answer_cost:g} and {judge_cost:g}"
        )
    if item_variance == 0.0:
        if repeat_variance == 0.0 or answer_cost == 0.0:
            return 1
        raise InvalidInput("items do not vary in this pilot: any number of repeats pays; run more")

    def price(repeats: int) -> float:
        spread = item_variance + repeat_variance / repeats
        return spread * (answer_cost + repeats * judge_cost)

    exact = math.sqrt(answer_cost * repeat_variance / (judge_cost * item_variance))
    fewer = max(1, math.floor(exact))
    return min(fewer, fewer + 1, key=price)


def items_needed(
    pilot: Estimate,
    difference: float,
    *,
    to_show: Literal["difference", "equivalence"] = "difference",
    confidence: float = 0.95,
    power: float = 0.8,
    variance_ratio: float = 1.0,
) -> int:
    """How many items a study needs to reach its verdict, with clusters like the pilot's.

    One item's part of the variance, clusters included, is n V by CR2. The plan reckons with its
    upper limit, V_U = V df/χ²_{.2} with the pilot's df degrees of freedom (Browne 1995, Statistics
    in Medicine 14:1933), so that four studies in five have at least the power asked for, and

        N = n V_U (t_{(1 + confidence)/2} + t_{power'})² / Δ²,

    Student's t with df N/n degrees of freedom. To show a difference Δ, power' = power. To show
    equivalence within Δ where the true difference is 0, power' = (1 + power)/2, because both ends
    must stay inside (Julious 2004, Statistics in Medicine 23:1921). It says how
    large a *new* study should be. Adding items to this one until it is decided is another thing:
    `looks`.

    Args:
        pilot: with a standard error above 0.
        difference: Δ above 0, the smallest difference that matters, or the margin δ.
        confidence: of one interval, two-sided.
        power: above 0 and below 1.
        variance_ratio: variance of one item's difference in the new study over that in the pilot,
            as (σ²_item + σ²_rep/R)/(σ²_item + σ²_rep/R_pilot) for another number of repeats.

    Raises:
        InvalidInput: a value is out of range, or the pilot shows no variance.
    """
    if not pilot.standard_error:
        raise InvalidInput(
            f"the pilot's {pilot.items} items in {pilot.clusters} clusters show no variance to plan"
            " with: run a larger pilot"
        )
    if not (difference > 0.0 and 0.0 < confidence < 1.0 and 0.0 < power < 1.0):
        raise InvalidInput(
            "a plan needs a difference above 0, and confidence and power between 0 and 1; got"
            f" {difference:g}, {confidence:g} and {power:g}"
        )
    if not variance_ratio > 0.0:
        raise InvalidInput(f"variance_ratio must be above 0, got {variance_ratio:g}")
    freedom = pilot.degrees_of_freedom
    variance = pilot.items * pilot.standard_error**2 * variance_ratio
    variance *= freedom / float(special.chdtri(freedom, PRUDENCE))
    ahead = 1.0 - (1.0 - confidence) / 2.0
    reached = power if to_show == "difference" else (1.0 + power) / 2.0

    def enough(items: float) -> bool:
        known = freedom * items / pilot.items
        quantiles = special.stdtrit(known, ahead) + special.stdtrit(known, reached)
        return bool(items >= variance * quantiles**2 / difference**2)

    least, most = 1, 2
    while not enough(most):
        least, most = most, 2 * most
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (least, middle) if enough(middle) else (middle, most)
    return most


def anchored_reach(
    standard_error: float, items: int, labels: int, correlation: float, confidence: float = 0.95
) -> float:
    """Half the width of an anchored interval before there are labels, in the measure's units.

    People's differences are taken to vary as the judge's do, and to correlate with them by r. With
    σ² = N SE² the variance of one item, clusters included, the best λ is r and the variance of
    `anchoring.anchor` is

        V = σ² (r²/N + (1 - r²)/n).

    Args:
        standard_error: of the judge's mean difference over all items.
        items: N.
        labels: n, from 2 to N.
        correlation: r, 0 to 1.

    Raises:
        InvalidInput: a value is out of range.
    """
    if not (2 <= labels <= items and 0.0 <= correlation <= 1.0):
        raise InvalidInput(
            "a plan of labels needs 2 labels or more, no more than items, and a correlation from 0"
            f" to 1; got {labels} labels of {items} items, correlation {correlation:g}"
        )
    shared = correlation**2
    variance = items * standard_error**2 * (shared / items + (1.0 - shared) / labels)
    return float(special.stdtrit(labels - 1, (1.0 + confidence) / 2.0)) * math.sqrt(variance)
