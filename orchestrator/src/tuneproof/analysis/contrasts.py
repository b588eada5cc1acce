"""Contrasts between comparisons: dose, model by arm, kinds of questions, wins beside means.

All are exploratory: each interval holds by itself, and none gives a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from tuneproof.analysis.comparisons import Comparison, Comparisons
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
from tuneproof.analysis.paired import paired
from tuneproof.analysis.scores import answers_by_cell, measures_of
from tuneproof.analysis.strata import known_by_heart
from tuneproof.results import Answer, Cell, Measure, PrimaryComparison, StudyResults


@dataclass(frozen=True, slots=True)
class Contrast:
    """One number that several comparisons make together."""

    kind: str
    """`slope`, `bend`, `models`, `passages`, `by_heart` or `wins`."""
    name: str
    """For people, as `short: slope over log2 of the pairs`."""
    measure: str
    value: float
    """In the measure's units; of `wins` a share from -1 to 1."""
    interval: Interval | None
    items: int


def contrasts_of(results: StudyResults) -> tuple[Contrast, ...]:
    """Every contrast that the study's tuned cells allow, by the measures it compares by."""
    measures, answers = measures_of(results), answers_by_cell(results)
    known = known_by_heart(results)
    names = dict.fromkeys(one.measure for one in results.primary)
    return tuple(
        contrast
        for name in names
        for contrast in _Contrasts(results, measures.of(name), answers, known).all()
    )


def weights_over_sizes(sizes: Sequence[int]) -> tuple[Floats, Floats | None]:
    """What a size's difference counts in the slope over log2(size), and in the bend.

    With x = log2(size) - mean, the slope's weights are x/Σx². The bend is the part of x² that is
    orthogonal to constant and slope, scaled so that it is the middle's distance above the line
    through the ends for three equally spaced sizes; None for fewer than three sizes. The bend is
    the lack of fit of a straight line: 0 where each doubling adds the same.

    Args:
        sizes: different, above 0, two or more.
    """
    places = np.log2(np.asarray(sizes, dtype=np.float64))
    places -= places.mean()
    slope = places / float(places @ places)
    if len(sizes) < 3:
        return slope, None
    bent = places**2
    bent -= bent.mean()
    bent -= places * float(bent @ places) / float(places @ places)
    return slope, -bent / float(np.abs(bent).max())


def between_groups(differences: Floats, clusters: Codes, first: np.ndarray) -> Estimate | None:
    """The mean difference of one group of items minus that of the others, of one study.

    With ψᵢ = [i first] (dᵢ - m₁)/n₁ - [i other] (dᵢ - m₀)/n₀,

        V = G/(G - 1) Σ_g (Σ_{i in g} ψᵢ)²,

    the linearised variance of a difference of two domain means in clusters (Särndal, Swensson and
    Wretman 1992, Model Assisted Survey Sampling, section 5.8), with one degree of freedom less than
    the smaller group has clusters.

    Args:
        differences: shape (n,).
        clusters: shape (n,), any whole numbers.
        first: shape (n,), bool.

    Returns:
        None where a group has fewer than two clusters.
    """
    groups = [np.unique(clusters[part]) for part in (first, ~first)]
    fewest = min(map(len, groups))
    if fewest < 2:
        return None
    parts = np.zeros(len(differences))
    means = []
    for part, sign in ((first, 1.0), (~first, -1.0)):
        mean = float(differences[part].mean())
        parts[part] = sign * (differences[part] - mean) / int(part.sum())
        means.append(mean)
    codes = codes_of(clusters)
    count = int(codes.max()) + 1
    sums = np.bincount(codes, weights=parts)
    error = math.sqrt(count / (count - 1) * float((sums**2).sum()))
    whole = estimate(differences, clusters)
    return replace(
        whole,
        difference=means[0] - means[1],
        standard_error=error,
        degrees_of_freedom=float(fewest - 1),
        clusters=fewest,
    )


@dataclass(frozen=True, slots=True)
class _Contrasts:
    """Those by one measure."""

    results: StudyResults
    scale: Measure
    answers: Mapping[str, Mapping[str, Answer]]
    known: Mapping[str, Mapping[str, bool]]
    """`strata.known_by_heart`."""

    def all(self) -> Iterator[Contrast]:
        recipes: dict[tuple[str, str], dict[int, list[Cell]]] = {}
        for cell in self.results.compared:
            if cell.tuned:
                sizes = recipes.setdefault((cell.model, cell.arm), {})
                sizes.setdefault(cell.size, []).append(cell)
        for (model, arm), sizes in recipes.items():
            name = f"{model} {arm}".strip()
            yield from self._over_sizes(name, sizes)
            largest = sizes[max(sizes)]
            values = self._mean(largest)
            yield from self._passages(name, values)
            yield from self._by_heart(model, name, values)
            yield from self._one("wins", f"{name}: net win rate", np.sign(values), None)
        for arm in dict.fromkeys(arm for _, arm in recipes):
            models = [model for model, other in recipes if other == arm]
            for one, other in combinations(models, 2):
                yield from self._models(arm, (one, recipes[one, arm]), (other, recipes[other, arm]))

    def _over_sizes(self, name: str, sizes: dict[int, list[Cell]]) -> Iterator[Contrast]:
        """The slope over log2(size), and its lack of fit."""
        if len(sizes) < 2 or not min(sizes):
            return
        order = sorted(sizes)
        slope, bend = weights_over_sizes(order)
        values = np.array([self._mean(sizes[size]) for size in order])
        yield from self._one("slope", f"{name}: for each doubling of the pairs", slope @ values,
                             float(np.abs(slope).sum()))  # fmt: skip
        if bend is not None:
            yield from self._one("bend", f"{name}: bend of that line", bend @ values,
                                 float(np.abs(bend).sum()))  # fmt: skip

    def _models(
        self,
        arm: str,
        one: tuple[str, dict[int, list[Cell]]],
        other: tuple[str, dict[int, list[Cell]]],
    ) -> Iterator[Contrast]:
        """Whether an arm does more to one model than to another, at the largest common size."""
        common = set(one[1]) & set(other[1])
        if common:
            size = max(common)
            values = self._mean(one[1][size]) - self._mean(other[1][size])
            name = f"{arm} {size or ''}".strip()
            yield from self._one("models", f"{name}: {one[0]} minus {other[0]}", values, 2.0)

    def _passages(self, name: str, values: Floats) -> Iterator[Contrast]:
        """Questions whose evidence was found minus those whose evidence was missed."""
        names = {"retrieved": 1.0, "missed": 0.0}
        group = np.array([names.get(item.stratum, np.nan) for item in self.results.items])
        yield from self._groups("passages", f"{name}: evidence found minus missed", values, group)

    def _by_heart(self, model: str, name: str, values: Floats) -> Iterator[Contrast]:
        """Questions that the base model answers without passages minus the others."""
        known = self.known.get(model, {})
        group = np.array([known.get(item.id, np.nan) for item in self.results.items], dtype=float)
        yield from self._groups("by_heart", f"{name}: known by heart minus not", values, group)

    def _groups(self, kind: str, name: str, values: Floats, group: Floats) -> Iterator[Contrast]:
        """The items whose group is 1 minus those whose group is 0; NaN is in neither."""
        known = np.isfinite(values) & np.isfinite(group)
        found = between_groups(values[known], self._clusters()[known], group[known] == 1.0)
        if found is not None:
            # The median of the clusters says nothing of two groups: no bound from what they share.
            interval = interval_of(found, self.results.confidence, None)
            yield Contrast(kind, name, self.scale.name, found.difference, interval, found.items)

    def _one(self, kind: str, name: str, values: Floats, times: float | None) -> Iterator[Contrast]:
        known = np.isfinite(values)
        if not known.any():
            return
        limits: Limits | None = (-1.0, 1.0)
        if times is not None:
            own = self.scale.limits
            limits = None if own is None else (times * own[0], times * own[1])
        found = estimate(values[known], self._clusters()[known])
        interval = interval_of(found, self.results.confidence, limits)
        yield Contrast(kind, name, self.scale.name, found.difference, interval, found.items)

    def _mean(self, cells: Sequence[Cell]) -> Floats:
        """Each item's difference, a mean over seeds; NaN where one lacks it: shape (n,)."""
        pairs = [
            paired(
                self.results,
                PrimaryComparison(cell.name, self.results.baseline_of(cell), self.scale.name),
                self.scale,
                self.answers,
            ).differences
            for cell in cells
        ]
        mean: Floats = np.mean(pairs, axis=0)
        return mean

    def _clusters(self) -> Codes:
        return codes_of([item.cluster for item in self.results.items])


def against_wins(results: StudyResults, comparisons: Comparisons) -> tuple[Comparison, ...]:
    """Primary comparisons whose mean and net win rate surely point in opposite directions."""
    answers = answers_by_cell(results)

    def wins(one: Comparison) -> Interval | None:
        named = PrimaryComparison(one.cell, one.against, one.measure)
        pairs = paired(results, named, one.scale, answers)
        signs = np.sign(pairs.differences[pairs.scored])
        found = estimate(signs, pairs.clusters[pairs.scored])
        return interval_of(found, results.confidence, (-1.0, 1.0))

    return tuple(
        one
        for one in comparisons.primary
        if one.interval is not None
        and not one.interval.low <= 0.0 <= one.interval.high
        and (share := wins(one)) is not None
        and (share.high < 0.0 if one.interval.low > 0.0 else share.low > 0.0)
    )
