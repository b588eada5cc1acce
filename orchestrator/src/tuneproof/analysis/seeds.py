"""Recipes over their training seeds: the interval for the recipe, and where its next seed lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tuneproof.analysis.comparisons import Comparison, Comparisons
from tuneproof.analysis.intervals import Interval
from tuneproof.analysis.paired import paired
from tuneproof.analysis.recipe import (
    Recipe,
    over_seeds,
    prediction_interval,
    recipe_interval,
    why_no_recipe,
)
from tuneproof.analysis.scores import answers_by_cell
from tuneproof.analysis.verdict import Reading, read, words_of
from tuneproof.results import Answer, Cell, Measure, PrimaryComparison, StudyResults


@dataclass(frozen=True, slots=True)
class OverSeeds:
    """One recipe by one measure."""

    model: str
    arm: str
    size: int
    scale: Measure
    found: Recipe
    interval: Interval | None
    """For the mean over all seeds and items; None where `why_not` says why."""
    next_seed: Interval | None
    """Where the mean of one more seed lies."""
    reading: Reading
    words: str
    """The verdict on the recipe, for people."""
    why_not: str


def over_seeds_of(
    results: StudyResults, comparisons: Comparisons, *, fewest: int = 2
) -> tuple[OverSeeds, ...]:
    """Every recipe of some seeds, two by default, that primary comparisons name, by measure.

    Items that a seed, or the baseline, lacks a score of are left out of all seeds.
    """
    cells, answers = {cell.name: cell for cell in results.cells}, answers_by_cell(results)
    groups: dict[tuple[str, str, int, str, str], list[Comparison]] = {}
    for one in comparisons.primary:
        cell = cells[one.cell]
        if cell.tuned:
            key = cell.model, cell.arm, cell.size, one.measure, one.against
            groups.setdefault(key, []).append(one)
    found = (
        _over_seeds(results, comparisons, cells[named[0].cell], named, answers)
        for named in groups.values()
        if len(named) >= fewest
    )
    return tuple(one for one in found if one is not None)


def _over_seeds(
    results: StudyResults,
    comparisons: Comparisons,
    cell: Cell,
    named: list[Comparison],
    answers: Mapping[str, Mapping[str, Answer]],
) -> OverSeeds | None:
    scale, margin = named[0].scale, named[0].margin or 0.0
    pairs = [
        paired(results, PrimaryComparison(one.cell, one.against, one.measure), scale, answers)
        for one in named
    ]
    differences = np.array([each.differences for each in pairs])
    complete = np.isfinite(differences).all(axis=0)
    if not complete.any():
        return None
    found = over_seeds(differences[:, complete], pairs[0].clusters[complete])
    confidence = comparisons.adjusted_confidence
    interval = recipe_interval(found, confidence, scale.limits)
    reading, why_not = read(interval, margin), why_no_recipe(found)
    return OverSeeds(
        cell.model,
        cell.arm,
        cell.size,
        scale,
        found,
        interval,
        prediction_interval(found, confidence, scale.limits),
        reading,
        why_not or words_of(reading, clusters=""),
        why_not,
    )
