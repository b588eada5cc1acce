"""Cells by what they have in common: one model, one arm, one number of pairs, over its seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tuneproof.analysis.comparisons import Comparison, Comparisons
from tuneproof.analysis.verdict import Verdict
from tuneproof.results import Cell, StudyResults


@dataclass(frozen=True, slots=True)
class SeedScore:
    """One cell's mean beside the mean of what it is compared with, over the items of both."""

    cell: str
    seed: int
    mean: float
    mean_against: float
    verdict: Verdict | None
    """None for an exploratory comparison."""

    @property
    def difference(self) -> float:
        """In the measure's unit."""
        return self.mean - self.mean_against


@dataclass(frozen=True, slots=True)
class Recipe:
    """Cells that differ in their seed only, by one measure."""

    model: str
    """Empty in a study of one model."""
    arm: str
    size: int
    tuned: bool
    measure: str
    seeds: tuple[SeedScore, ...]

    @property
    def mean(self) -> float:
        """Mean of the seeds' means: each seed counts the same."""
        return math.fsum(seed.mean for seed in self.seeds) / len(self.seeds)

    @property
    def mean_against(self) -> float:
        """Likewise of what they are compared with."""
        return math.fsum(seed.mean_against for seed in self.seeds) / len(self.seeds)

    @property
    def difference(self) -> float:
        """In the measure's unit."""
        return self.mean - self.mean_against

    @property
    def spread(self) -> float:
        """From the lowest to the highest mean of a seed."""
        means = [seed.mean for seed in self.seeds]
        return max(means) - min(means)


def against_of(results: StudyResults) -> dict[str, str]:
    """By cell, the baseline of its model; without the baselines themselves."""
    return {cell.name: results.baseline_of(cell) for cell in results.compared}


def recipes_of(
    results: StudyResults, comparisons: Comparisons, measures: Sequence[str]
) -> tuple[Recipe, ...]:
    """Every recipe by every measure, by model and arm in the order of the cells, smallest first.

    Cells that no answer could be compared of are left out.
    """
    scored: dict[tuple[str, str], Comparison] = {}
    for one in (*comparisons.primary, *comparisons.exploratory):
        scored.setdefault((one.cell, one.measure), one)
    groups: dict[tuple[str, str, int], list[Cell]] = {}
    for cell in results.cells:
        groups.setdefault((cell.model, cell.arm, cell.size), []).append(cell)
    found = []
    for measure in measures:
        for (model, arm, size), cells in groups.items():
            seeds = tuple(
                SeedScore(
                    cell.name,
                    cell.seed,
                    compared.mean,
                    compared.mean_against,
                    compared.verdict,
                )
                for cell in cells
                if (compared := scored.get((cell.name, measure))) is not None
                and compared.mean is not None
                and compared.mean_against is not None
            )
            if seeds:
                found.append(Recipe(model, arm, size, cells[0].tuned, measure, seeds))
    models = list(dict.fromkeys(cell.model for cell in results.cells))
    arms = list(dict.fromkeys(cell.arm for cell in results.cells))
    return tuple(
        sorted(
            found,
            key=lambda one: (
                measures.index(one.measure),
                models.index(one.model),
                arms.index(one.arm),
                one.size,
            ),
        )
    )
