"""S7 and S10: a recipe over training seeds, and the power of planned studies."""

from __future__ import annotations

import math

import numpy as np
from drawing import POINTS, Tally, alike, clusters_of, holds
from scipy import special

from tuneproof.analysis.intervals import estimate
from tuneproof.analysis.planning import items_needed
from tuneproof.analysis.recipe import over_seeds, prediction_interval, recipe_interval

Results = dict[str, float]

SEEDS = (3, 4, 8)
SEED_EFFECTS = (0.0, 0.1, 0.3)
"""Standard deviations between the true means of seeds, in points."""


def s7(random: np.random.Generator, studies: int) -> Results:
    """Coverage of a recipe's mean and of the next seed, 60 documents of one to eight items."""
    recipe: dict[int, list[float]] = {seeds: [] for seeds in SEEDS}
    following: dict[int, list[float]] = {seeds: [] for seeds in SEEDS}
    for seeds in SEEDS:
        for effect in SEED_EFFECTS:
            mine, next_one = Tally(), Tally()
            for _ in range(studies):
                clusters = clusters_of(random, "one to eight", 60)
                values = 0.1 + 0.8 * alike(random, clusters, 0.4)
                values = values + effect * random.normal(size=(seeds, 1))
                values += 0.5 * random.normal(size=values.shape)
                found = over_seeds(values, clusters)
                interval = recipe_interval(found, 0.95, POINTS)
                predicted = prediction_interval(found, 0.95, POINTS)
                if interval is None or predicted is None:
                    raise AssertionError("three seeds and 60 documents give intervals")
                mine.add(holds(interval, 0.1))
                next_one.add(holds(predicted, 0.1 + effect * random.normal()))
            recipe[seeds].append(mine.share)
            following[seeds].append(next_one.share)
    return {
        "s7_min": min(recipe[4] + recipe[8]),
        "s7_three": min(recipe[3]),
        "s7_next": min(following[4] + following[8]),
        "s7_next_three": min(following[3]),
    }


def s10(random: np.random.Generator, studies: int) -> Results:
    """Mean power of studies planned from pilots of 60 items, by the true variance.

    SD 1 and a difference of .25 to show; pairs of items that correlate by .4, or single items.
    """
    powers = []
    for size, correlation in ((1, 0.0), (2, 0.4), (5, 0.4)):
        clusters = np.arange(60) // size
        total = 0.0
        for _ in range(studies):
            pilot = estimate(alike(random, clusters, correlation), clusters)
            count = items_needed(pilot, 0.25)
            error = math.sqrt((1.0 + (size - 1) * correlation) / count)
            critical = float(special.stdtrit(max(count / size - 1, 1.0), 0.975))
            total += float(special.ndtr(0.25 / error - critical))
        powers.append(total / studies)
    return {"s10_min": min(powers), "s10_max": max(powers)}
