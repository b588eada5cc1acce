"""Item-level scores: one number per item, arm and measure, or None where there is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from tuneproof.results import Answer, StudyResults
from tuneproof.servicekit.errors import InvalidInput

ANSWER_WORDS = "answer_words"
"""Length of the answer in words (runs of characters between blanks)."""

JUDGE_RANGE = (1.0, 5.0)
LEXICAL_RANGE = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Measures:
    """What the answers of a study were scored by, each in order of first appearance."""

    judged: tuple[str, ...]
    """Criteria of the judge, in points from 1 to 5."""
    lexical: tuple[str, ...]
    """Lexical measures, shares from 0 to 1."""

    def range_of(self, measure: str) -> tuple[float, float] | None:
        """Lowest and highest value that the measure can take; None where it has no upper end.

        Raises:
            InvalidInput: no answer was scored by this measure.
        """
        if measure in self.judged:
            return JUDGE_RANGE
        if measure in self.lexical:
            return LEXICAL_RANGE
        if measure == ANSWER_WORDS:
            return None
        known = ", ".join((*self.judged, *self.lexical, ANSWER_WORDS))
        raise InvalidInput(
            f"no answer of the study was scored by `{measure}`; there are: {known}",
            field="primary.measure",
        )


def measures_of(results: StudyResults) -> Measures:
    """The measures by which at least one answer was scored, or could not be.

    Where no answer has a grade (the judge was down, say) it is those that the study file named:
    they are then unscored throughout, not unknown.
    """
    judged: dict[str, None] = {}
    lexical: dict[str, None] = {}
    for answer in results.answers:
        if answer.grade is not None:
            judged.update(dict.fromkeys(answer.grade.criteria))
            lexical.update(dict.fromkeys(answer.grade.lexical))
    if not judged and not lexical:
        (judged if results.judge_model else lexical).update(
            dict.fromkeys(named.measure for named in results.primary)
        )
    return Measures(tuple(judged), tuple(lexical))


def score_of(answer: Answer | None, measure: str) -> float | None:
    """An answer's score by a measure: for a criterion the mean over the repeats that were scored.

    None where there is no answer, no grade, or no repeat that could be scored; never 0 instead.
    """
    if answer is None or answer.grade is None:
        return None
    if measure == ANSWER_WORDS:
        return float(len(answer.text.split()))
    if measure in answer.grade.criteria:
        return answer.grade.criteria[measure].mean
    return answer.grade.lexical.get(measure)


def answers_by_arm(results: StudyResults) -> Mapping[str, Mapping[str, Answer]]:
    """Answers by arm, then by item; arms without answers are there, empty."""
    found: dict[str, dict[str, Answer]] = {arm.name: {} for arm in results.arms}
    for answer in results.answers:
        if answer.arm in found:
            found[answer.arm][answer.item] = answer
    return found


@dataclass(frozen=True, slots=True)
class Summary:
    """A measure over the items of one arm."""

    mean: float | None
    """None when nothing was scored."""
    standard_deviation: float | None
    """Over items; None for fewer than two."""
    scored: int
    unscored: int
    """Items of the study without a score in this arm."""


def summarise(scores: Iterable[float | None]) -> Summary:
    """Mean and standard deviation (n - 1) of item scores; items without a score only counted."""
    everything = list(scores)
    numbers = [score for score in everything if score is not None]
    return Summary(
        mean=float(np.mean(numbers)) if numbers else None,
        standard_deviation=float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None,
        scored=len(numbers),
        unscored=len(everything) - len(numbers),
    )


def means_by_arm(results: StudyResults) -> Mapping[str, Mapping[str, Summary]]:
    """Every measure of every arm over all items of the study, answer length included."""
    measures = measures_of(results)
    names = (*measures.judged, *measures.lexical, ANSWER_WORDS)
    return {
        arm: {
            measure: summarise(score_of(answers.get(item.id), measure) for item in results.items)
            for measure in names
        }
        for arm, answers in answers_by_arm(results).items()
    }
