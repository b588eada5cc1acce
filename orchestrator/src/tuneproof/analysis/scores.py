"""Item-level scores: one number per item, cell and measure, or None where there is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from tuneproof.results import ANSWER_WORDS, LEXICAL, Answer, ItemResult, Measure, StudyResults
from tuneproof.servicekit.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Measures:
    """What the answers of a study were scored by, each in order of first appearance."""

    judged: Mapping[str, Measure]
    """Criteria of the judge, by name."""
    lexical: Mapping[str, Measure]
    """Word overlap with the references, by name."""

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, the answer's length last."""
        return (*self.judged, *self.lexical, ANSWER_WORDS.name)

    def of(self, name: str) -> Measure:
        """A measure by name.

        Raises:
            InvalidInput: no answer was scored by it.
        """
        known = {**self.judged, **self.lexical, ANSWER_WORDS.name: ANSWER_WORDS}
        if name not in known:
            raise InvalidInput(
                f"no answer of the study was scored by `{name}`; there are: {', '.join(known)}",
                field="primary.measure",
            )
        return known[name]


def measures_of(results: StudyResults) -> Measures:
    """The measures by which at least one answer was scored, or could not be.

    Where no answer has a grade (the judge was down, say) it is those that the study file named:
    they are then unscored throughout, not unknown.

    Raises:
        InvalidInput: the results do not say the range of a criterion.
    """
    graded = [answer.grade for answer in results.answers if answer.grade is not None]
    judged = dict.fromkeys(chain.from_iterable(grade.criteria for grade in graded))
    lexical = dict.fromkeys(chain.from_iterable(grade.lexical for grade in graded))
    if not judged and not lexical:
        overlap = {measure.name for measure in LEXICAL}
        for named in results.primary:
            (lexical if named.measure in overlap else judged)[named.measure] = None
    known = {measure.name: measure for measure in (*LEXICAL, *results.criteria)}
    if lacking := [name for name in (*judged, *lexical) if name not in known]:
        raise InvalidInput(f"the results do not say the range of {', '.join(lacking)}")
    return Measures({name: known[name] for name in judged}, {name: known[name] for name in lexical})


def score_of(answer: Answer | None, measure: str) -> float | None:
    """An answer's score by a measure, in its unit: for a criterion the mean of the scored repeats.

    None where there is no answer or no grade, or where the judge left it unscored because fewer
    than half of the repeats could be read; never 0 instead.
    """
    if answer is None or answer.grade is None:
        return None
    if measure == ANSWER_WORDS.name:
        return float(len(answer.text.split()))
    if measure in answer.grade.criteria:
        return answer.grade.criteria[measure].mean
    return answer.grade.lexical.get(measure)


def answers_by_cell(results: StudyResults) -> Mapping[str, Mapping[str, Answer]]:
    """Answers by cell, then by item; cells without answers are there, empty."""
    found: dict[str, dict[str, Answer]] = {cell.name: {} for cell in results.cells}
    for answer in results.answers:
        if answer.cell in found:
            found[answer.cell][answer.item] = answer
    return found


@dataclass(frozen=True, slots=True)
class Summary:
    """A measure over the items of one cell."""

    mean: float | None
    """None when nothing was scored."""
    standard_deviation: float | None
    """Over items; None for fewer than two."""
    scored: int
    unscored: int
    """Items of the study without a score in this cell."""


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


def means_by_cell(
    results: StudyResults, items: Sequence[ItemResult] | None = None
) -> Mapping[str, Mapping[str, Summary]]:
    """Every measure of every cell, answer length included.

    Args:
        items: None: all of the study.
    """
    names = measures_of(results).names
    chosen = results.items if items is None else items
    return {
        cell: {
            measure: summarise(score_of(answers.get(item.id), measure) for item in chosen)
            for measure in names
        }
        for cell, answers in answers_by_cell(results).items()
    }


@dataclass(frozen=True, slots=True)
class Repeats:
    """What the judge's repeats of one cell's answers gave, all criteria together."""

    asked: int
    lost: int
    """Repeats that could not be read; the others of the same answer count."""


def repeats_by_cell(results: StudyResults) -> Mapping[str, Repeats]:
    """How many of the judge's repeats were lost, by cell; none without a judge."""
    found = {}
    for cell, answers in answers_by_cell(results).items():
        lost = [
            repeat.score is None
            for answer in answers.values()
            if answer.grade is not None
            for criterion in answer.grade.criteria.values()
            for repeat in criterion.repeats
        ]
        found[cell] = Repeats(len(lost), sum(lost))
    return found
