"""A study that ran, as the pilot of the next one: what varies, and how large that should be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tuneproof.analysis.comparisons import Comparison, Comparisons
from tuneproof.analysis.intervals import Floats, estimate
from tuneproof.analysis.paired import paired
from tuneproof.analysis.planning import (
    Components,
    best_repeats,
    components,
    intraclass_correlation,
    items_needed,
)
from tuneproof.analysis.scores import answers_by_cell
from tuneproof.results import Answer, PrimaryComparison, StudyResults
from tuneproof.servicekit.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Pilot:
    """What one primary comparison tells of the next study."""

    cell: str
    measure: str
    items: int
    clusters: int
    variance: Components
    correlation: float | None
    """Of items in one cluster; None where no cluster has two."""
    repeats: int
    """The judge's, in the pilot; 0 where no judge scored."""
    best_repeats: int | None
    """Most precision for the time, at the pilot's times of answers and judgements; None without
    repeats to tell by."""
    for_difference: int
    """Items that show a difference of δ with a power of .8."""
    for_equivalence: int
    """Items that show that a true difference of 0 is inside ±δ."""


def pilots_of(results: StudyResults, comparisons: Comparisons) -> tuple[Pilot, ...]:
    """A plan from each primary comparison that shows how its items vary."""
    answers = answers_by_cell(results)
    found = (_pilot(results, one, comparisons, answers) for one in comparisons.primary)
    return tuple(one for one in found if one is not None)


def _pilot(
    results: StudyResults,
    one: Comparison,
    comparisons: Comparisons,
    answers: Mapping[str, Mapping[str, Answer]],
) -> Pilot | None:
    named = PrimaryComparison(one.cell, one.against, one.measure)
    pairs = paired(results, named, one.scale, answers)
    differences, clusters = pairs.differences[pairs.scored], pairs.clusters[pairs.scored]
    seen = estimate(differences, clusters)
    if not seen.standard_error or not one.margin:
        return None
    repeated = _repeats(results, named, answers)
    values = repeated if repeated is not None else differences[:, None]
    variance = components(values[None])
    count = values.shape[1] if repeated is not None else 0
    confidence = comparisons.adjusted_confidence
    return Pilot(
        one.cell,
        one.measure,
        seen.items,
        seen.clusters,
        variance,
        intraclass_correlation(differences, clusters),
        count,
        _best_repeats(results, variance, count),
        items_needed(seen, one.margin, confidence=confidence),
        items_needed(seen, one.margin, to_show="equivalence", confidence=confidence),
    )


def _repeats(
    results: StudyResults,
    named: PrimaryComparison,
    answers: Mapping[str, Mapping[str, Answer]],
) -> Floats | None:
    """Differences repeat by repeat, shape (n, R), of the items of which no repeat is lost."""
    rows: list[list[float]] = []
    for item in results.items:
        mine = _scores(answers[named.cell].get(item.id), named.measure)
        theirs = _scores(answers[named.against].get(item.id), named.measure)
        if mine and len(mine) == len(theirs):
            rows.append([one - other for one, other in zip(mine, theirs, strict=True)])
    widest = max((len(row) for row in rows), default=0)
    whole = [row for row in rows if len(row) == widest]
    return np.array(whole) if len(whole) >= 2 and widest >= 2 else None


def _scores(answer: Answer | None, measure: str) -> Sequence[float]:
    grade = answer.grade.criteria.get(measure) if answer and answer.grade else None
    scores = [one.score for one in grade.repeats] if grade else []
    return [] if None in scores else [float(score) for score in scores if score is not None]


def _best_repeats(results: StudyResults, variance: Components, repeats: int) -> int | None:
    """By the seconds that the pilot's answers and judgements took; at even costs without these."""
    if not repeats or variance.repeat is None:
        return None
    answered = results.stage_seconds.get("answers", 0.0)
    judged = results.stage_seconds.get("grades", 0.0) / repeats
    costs = (answered, judged) if answered > 0.0 and judged > 0.0 else (1.0, 1.0)
    try:
        return best_repeats(
            variance.item, variance.repeat, answer_cost=costs[0], judge_cost=costs[1]
        )
    except InvalidInput:  # The items do not vary.
        return None
