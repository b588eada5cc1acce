"""The items of a study as the page shows them: side by side, the largest losses first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tuneproof.analysis import Measures, answers_by_cell, measures_of, score_of
from tuneproof.report.differences import Segment, mark
from tuneproof.report.numbers import label_of, plain, signed
from tuneproof.results import Answer, Cell, CriterionGrade, ItemResult, StudyResults


@dataclass(frozen=True, slots=True)
class ScoreView:
    """One measure of one answer."""

    label: str
    text: str
    difference: str
    """Against the baseline, or empty."""
    direction: str
    spread: str = ""
    """Standard deviation of the repeats, or empty."""
    grade: CriterionGrade | None = None
    """Where the measure is a criterion."""


@dataclass(frozen=True, slots=True)
class AnswerView:
    """What one cell answered."""

    label: str
    colour: int
    answer: Answer | None
    segments: tuple[Segment, ...]
    """The text, marked against the baseline's."""
    same: bool
    """Word for word the baseline's answer."""
    scores: tuple[ScoreView, ...]
    lexical: tuple[tuple[str, str], ...]
    chips: tuple[ScoreView, ...]
    """The scores beside the question, by `shown_measures`."""


@dataclass(frozen=True, slots=True)
class ItemView:
    """One question with everything that belongs to it."""

    anchor: str
    item: ItemResult
    references: tuple[tuple[str, tuple[str, ...], bool], ...]
    """Style, wordings, and whether the answers were judged against it: that one first."""
    answers: tuple[AnswerView, ...]
    differences: Mapping[str, Mapping[str, float | None]]
    """Score minus the baseline's, by cell and primary measure; None where either is unscored."""
    loss: float
    """The worst of the differences as a share of the measure's range, for the order."""

    @property
    def hit(self) -> bool:
        """Whether a retrieved passage holds the evidence."""
        return any(passage.gold for passage in self.item.retrieved)


def primary_measures(results: StudyResults) -> tuple[str, ...]:
    """The measures of the primary comparisons, each once, in their order."""
    return tuple(dict.fromkeys(named.measure for named in results.primary))


def shown_measures(results: StudyResults, measures: Measures) -> tuple[str, ...]:
    """The measures whose scores stand beside each question: the judge's, else the primary ones."""
    return tuple(measures.judged) or primary_measures(results) or tuple(measures.lexical)[:1]


def anchors_of(items: tuple[ItemResult, ...]) -> Mapping[str, str]:
    """A fragment for every item's id, unique and of safe characters: `item-…`."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for place, item in enumerate(items, 1):
        slug = "item-" + re.sub(r"[^A-Za-z0-9._-]+", "-", item.id)
        if slug in taken:
            slug = f"{slug}-{place}"
        taken.add(slug)
        found[item.id] = slug
    return found


def direction_of(difference: float | None, margin: float) -> str:
    """`worse` or `better` where one answer's score moved by more than δ, `same`, or `unscored`.

    A rule for sorting answers, not a verdict: the verdict is the interval's.
    """
    if difference is None:
        return "unscored"
    if abs(difference) <= margin + 1e-9:
        return "same"
    return "worse" if difference < 0.0 else "better"


def decimals_of_one(measures: Measures, name: str) -> int:
    """Decimals for one answer's score: one less for a grade, the mean of a few repeats."""
    measure = measures.of(name)
    return max(measure.decimals - 1, 0) if name in measures.judged else measure.decimals


def item_views(results: StudyResults) -> tuple[ItemView, ...]:
    """Every item, the largest loss of any cell first; unscored ones last."""
    answers = answers_by_cell(results)
    measures = measures_of(results)
    anchors = anchors_of(results.items)
    views = [_item(results, item, anchors[item.id], answers, measures) for item in results.items]
    return tuple(sorted(views, key=lambda view: view.loss))


def _item(
    results: StudyResults,
    item: ItemResult,
    anchor: str,
    answers: Mapping[str, Mapping[str, Answer]],
    measures: Measures,
) -> ItemView:
    baseline = answers.get(results.baseline, {}).get(item.id)
    differences = {
        cell.name: {
            measure: _difference(answers[cell.name].get(item.id), baseline, measure)
            for measure in primary_measures(results)
        }
        for cell in results.compared
    }
    losses = [
        value / limits[1]
        for by_measure in differences.values()
        for measure, value in by_measure.items()
        if value is not None and (limits := measures.of(measure).limits) is not None
    ]
    styles = sorted(item.references.items(), key=lambda pair: pair[0] != results.reference_style)
    return ItemView(
        anchor=anchor,
        item=item,
        references=tuple(
            (style, wordings, style == results.reference_style) for style, wordings in styles
        ),
        answers=tuple(
            _answer(results, measures, cell, answers[cell.name].get(item.id), baseline)
            for cell in results.cells
        ),
        differences=differences,
        loss=min(losses, default=2.0),
    )


def _answer(
    results: StudyResults,
    measures: Measures,
    cell: Cell,
    answer: Answer | None,
    baseline: Answer | None,
) -> AnswerView:
    if cell.name == results.baseline:
        baseline = None
    text = answer.text if answer else ""
    grade = answer.grade if answer else None

    def score(measure: str) -> ScoreView:
        return _score(results, measures, measure, answer, baseline)

    return AnswerView(
        label=cell.label,
        colour=results.cells.index(cell),
        answer=answer,
        segments=mark(baseline.text, text) if baseline and answer else (Segment("same", text),),
        same=bool(baseline and answer and baseline.text.split() == text.split()),
        scores=tuple(map(score, grade.criteria)) if grade else (),
        lexical=tuple(
            (label_of(name), plain(value, measures.of(name).decimals))
            for name, value in (grade.lexical.items() if grade else ())
        ),
        chips=tuple(map(score, shown_measures(results, measures))),
    )


def _score(
    results: StudyResults,
    measures: Measures,
    measure: str,
    answer: Answer | None,
    baseline: Answer | None,
) -> ScoreView:
    value = score_of(answer, measure)
    change = _difference(answer, baseline, measure)
    margin = results.margin.get(measure, 0.0)
    decimals = decimals_of_one(measures, measure)
    grade = answer.grade.criteria.get(measure) if answer and answer.grade else None
    spread = grade.standard_deviation if grade else None
    return ScoreView(
        label=label_of(measure),
        text="unscored" if value is None else plain(value, decimals),
        difference="" if change is None else signed(change, decimals),
        direction="" if change is None else direction_of(change, margin),
        spread="" if spread is None else plain(spread, decimals),
        grade=grade,
    )


def _difference(answer: Answer | None, baseline: Answer | None, measure: str) -> float | None:
    mine, theirs = score_of(answer, measure), score_of(baseline, measure)
    return None if mine is None or theirs is None else mine - theirs
