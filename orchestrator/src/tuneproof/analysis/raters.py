"""Whether judge and people agree: κ, and the judge's error by arm and by length."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np

from tuneproof.analysis.agreement import weighted_kappa
from tuneproof.analysis.intervals import (
    Codes,
    Estimate,
    Floats,
    Interval,
    codes_of,
    interval_of,
)
from tuneproof.analysis.judge_bias import judge_bias, thirds_by_length
from tuneproof.analysis.scores import answers_by_cell, score_of
from tuneproof.results import Measure, StudyResults

_CONFIDENCE = 0.95
"""Of each interval by itself: they are looked at, and decide nothing."""


@dataclass(frozen=True, slots=True)
class Bias:
    """The judge's mean error J - H in a group of answers."""

    group: str
    estimate: Estimate
    interval: Interval | None
    """At 95 %; None for few clusters."""


@dataclass(frozen=True, slots=True)
class Slope:
    """Of a straight line, with items in clusters."""

    value: float
    standard_error: float
    degrees_of_freedom: float
    """G - 1."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Judge and people on the labelled answers, by one criterion."""

    criterion: str
    raters: int
    answers: int
    """That at least one person rated and the judge scored."""
    judge_kappa: float
    """Weighted κ between the judge's rounded means and people's scores."""
    between_kappa: float | None
    """Between people, over the answers that two rated: the ceiling for a judge; None for one
    rater."""
    self_kappa: float | None
    """Of people with themselves, over the pairs that came twice."""
    by_arm: tuple[Bias, ...]
    """By cell, under its label. A bias that differs between arms makes a wrong verdict."""
    by_length: tuple[Bias, ...]
    """By thirds of the answers' length in words."""
    per_doubling: Slope | None
    """Of J - H over log2 of the words: what the judge adds for each doubling of the length, beyond
    what people see in it; None where all answers have one length."""


@dataclass(frozen=True, slots=True)
class _Rated:
    """One answer, as one rater scored it."""

    rater: str
    cell: str
    item: str
    score: float
    inclusion: float
    again: bool


def agreements_of(results: StudyResults) -> tuple[Agreement, ...]:
    """The agreement by every criterion that people labelled."""
    found = (_agreement(results, one) for one in results.criteria)
    return tuple(one for one in found if one is not None)


def _agreement(results: StudyResults, scale: Measure) -> Agreement | None:
    answers, clusters = answers_by_cell(results), {one.id: one.cluster for one in results.items}
    labels = {cell.name: cell.label for cell in results.cells}
    rated = list(_rated(results, scale.name))
    first: dict[tuple[str, str], list[_Rated]] = {}
    judge: dict[tuple[str, str], float] = {}
    for one in rated:
        judged = score_of(answers[one.cell].get(one.item), scale.name)
        if not one.again and judged is not None and one.item in clusters:
            first.setdefault((one.cell, one.item), []).append(one)
            judge[one.cell, one.item] = judged
    if not first or scale.high is None:
        return None
    levels = range(round(scale.low), round(scale.high) + 1)
    pairs = [(judge[at], one.score) for at, several in first.items() for one in several]
    names = list(first)
    codes = codes_of([clusters[item] for _, item in names])
    by_judge = np.array([judge[at] for at in names])
    by_people = np.array([fmean(one.score for one in first[at]) for at in names])
    inclusion = np.array([first[at][0].inclusion for at in names])

    def biases(groups: Sequence[str]) -> tuple[Bias, ...]:
        by_group = judge_bias(by_judge, by_people, groups, codes, inclusion)
        return tuple(
            Bias(group, found, interval_of(found, _CONFIDENCE, scale.limits))
            for group, found in by_group.items()
        )

    words = [len(answers[cell][item].text.split()) for cell, item in names]
    between = [
        (one.score, other.score)
        for several in first.values()
        for one, other in combinations(several, 2)
        if one.rater != other.rater
    ]
    return Agreement(
        scale.name,
        raters=len({one.rater for one in rated}),
        answers=len(first),
        judge_kappa=_kappa(pairs, levels) or 0.0,
        between_kappa=_kappa(between, levels),
        self_kappa=_kappa(list(_twice(rated)), levels),
        by_arm=biases([labels[cell] for cell, _ in names]),
        by_length=biases(thirds_by_length(words)),
        per_doubling=slope_of(np.log2(np.maximum(words, 1)), by_judge - by_people, codes),
    )


def slope_of(places: Floats, values: Floats, clusters: Codes) -> Slope | None:
    """The least-squares slope of values over places, with the cluster-robust variance CR1.

    V = G/(G - 1) · (n - 1)/(n - 2) Σ_g (Σ_{i in g} x̃ᵢ rᵢ)²/(Σ x̃²)², x̃ the centred places and r
    the residuals (Liang and Zeger 1986, Biometrika 73:13; the factor is Stata's).

    Args:
        places: shape (n,).
        values: shape (n,).
        clusters: shape (n,), any whole numbers.

    Returns:
        None with fewer than three values or two clusters, or where all places are one.
    """
    codes = codes_of(clusters)
    count, groups = len(values), len(np.unique(codes))
    centred = places - places.mean() if count else places
    spread = float(centred @ centred)
    if count < 3 or groups < 2 or spread <= 1e-12:
        return None
    slope = float(centred @ values) / spread
    residuals = values - values.mean() - slope * centred
    sums = np.bincount(codes, weights=centred * residuals)
    factor = groups / (groups - 1) * (count - 1) / (count - 2)
    error = math.sqrt(factor * float((sums**2).sum())) / spread
    return Slope(slope, error, float(groups - 1))


def _rated(results: StudyResults, criterion: str) -> Iterator[_Rated]:
    for one in results.labels:
        if one.criterion == criterion:
            for cell, score in ((one.cell, one.score), (one.against, one.score_against)):
                yield _Rated(one.rater, cell, one.item, score, one.inclusion, one.again)


def _twice(rated: Sequence[_Rated]) -> Iterator[tuple[float, float]]:
    """Both scores of each answer that one rater saw twice."""
    first = {(one.rater, one.cell, one.item): one.score for one in rated if not one.again}
    for one in rated:
        if one.again and (one.rater, one.cell, one.item) in first:
            yield first[one.rater, one.cell, one.item], one.score


def _kappa(pairs: Sequence[tuple[float, float]], levels: range) -> float | None:
    """Weighted κ of scores, rounded to levels, half up; None without pairs."""
    if not pairs:
        return None
    one, other = ([math.floor(pair[side] + 0.5) for pair in pairs] for side in (0, 1))
    return weighted_kappa(one, other, tuple(levels))
