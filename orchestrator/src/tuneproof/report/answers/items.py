"""The items of a study as the page's script shows them: the largest losses first.

The page holds an index of all items, which lists and filters, and what opens below a row: answers
with their differences marked, passages (each once, whatever number of items found it), and the
judge's reasons. `packing` cuts these into parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tuneproof.analysis import RULES, Failures, Measures, answers_by_cell, score_of
from tuneproof.report.answers.differences import mark
from tuneproof.report.answers.packing import Packed, Words, pack, pack_parts
from tuneproof.report.numbers import label_of, plain
from tuneproof.results import Answer, ItemResult, StratumName, StudyResults

STRATA_WORDS: Mapping[StratumName, str] = {
    "retrieved": "evidence retrieved",
    "missed": "evidence missed",
    "unanswerable": "unanswerable",
    "unknown": "evidence not known",
}
"""In the row of an item."""

DIFFERENT = 1 << 15
"""In the flags of an answer, beside a bit for each of `RULES`: other words than the cell's that it
is compared with."""

_SIGNS = {"same": " ", "added": "+", "missing": "-"}
_WAYS = {"worse": "w", "better": "b", "same": "s", "unscored": "u"}


@dataclass(frozen=True, slots=True)
class Answers:
    """What the page says about answers."""

    blocks: tuple[Packed, ...]
    order: tuple[ItemResult, ...]
    """As the page lists them."""
    anchors: Mapping[str, str]
    """By item id."""
    strata: tuple[StratumName, ...]
    """Kinds of questions that the study has."""
    measures: tuple[str, ...]
    """By the number that the page's script knows them by."""


def primary_measures(results: StudyResults) -> tuple[str, ...]:
    """The measures of the primary comparisons, each once, in their order."""
    return tuple(dict.fromkeys(named.measure for named in results.primary))


def shown_measures(results: StudyResults, measures: Measures) -> tuple[str, ...]:
    """The measures whose scores stand beside each question: the judge's, else the primary ones."""
    return tuple(measures.judged) or primary_measures(results) or tuple(measures.lexical)[:1]


def anchors_of(items: Sequence[ItemResult]) -> Mapping[str, str]:
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


def difference_of(answer: Answer | None, other: Answer | None, measure: str) -> float | None:
    """Score minus the other answer's; None where either is unscored."""
    mine, theirs = score_of(answer, measure), score_of(other, measure)
    return None if mine is None or theirs is None else mine - theirs


def answers_of(
    results: StudyResults,
    measures: Measures,
    against: Mapping[str, str],
    colours: Mapping[str, int],
    failures: Failures,
) -> Answers:
    """Packs all items and answers.

    Args:
        against: by cell, the cell that it is compared with.
        colours: by cell.
        failures: as `failures_by_cell` gives them.
    """
    words = Words.of(_texts(results))
    page = _Page(results, measures, against, colours, answers_by_cell(results), failures, words)
    order = tuple(sorted(results.items, key=page.loss))
    anchors = anchors_of(results.items)
    numbers: dict[tuple[str, str], int] = {}
    items = pack_parts("items", (page.item(item, numbers) for item in order))
    passages = pack_parts("passages", ([document, words.write(text)] for document, text in numbers))
    reasons = pack_parts("reasons", map(page.reasons, order))
    index = page.index(order, anchors) | {
        "words": words.order,
        "starts": {
            "items": items.starts,
            "passages": passages.starts,
            "reasons": reasons.starts,
        },
    }
    blocks = (pack("index", index), *items.blocks, *passages.blocks, *reasons.blocks)
    kinds = {item.stratum for item in order}
    strata = tuple(name for name in STRATA_WORDS if name in kinds)
    return Answers(blocks, order, anchors, strata, page.graded)


@dataclass(frozen=True)
class _Page:
    results: StudyResults
    measures: Measures
    against: Mapping[str, str]
    colours: Mapping[str, int]
    answers: Mapping[str, Mapping[str, Answer]]
    failures: Failures
    words: Words

    @cached_property
    def primary(self) -> tuple[str, ...]:
        """Measures of the primary comparisons."""
        return primary_measures(self.results)

    @cached_property
    def graded(self) -> tuple[str, ...]:
        """Every measure that the page has a score of for each answer."""
        shown = shown_measures(self.results, self.measures)
        return tuple(dict.fromkeys((*shown, *self.primary, *self.measures.judged)))

    def loss(self, item: ItemResult) -> float:
        """The worst difference of any cell as a share of the measure's range; 2 without one."""
        losses = [
            change / limits[1]
            for cell, other in self.against.items()
            for measure in self.primary
            if (limits := self.measures.of(measure).limits) is not None
            and (change := self._change(cell, other, item, measure)) is not None
        ]
        return min(losses, default=2.0)

    def index(self, order: Sequence[ItemResult], anchors: Mapping[str, str]) -> dict[str, object]:
        """What rows, filters and order need of all items at once."""
        names = [cell.name for cell in self.results.cells]
        shown, graded = shown_measures(self.results, self.measures), self.graded
        strata = list(STRATA_WORDS)
        return {
            "cells": [
                {
                    "label": cell.label,
                    "colour": self.colours[cell.name],
                    "against": names.index(other)
                    if (other := self.against.get(cell.name)) is not None
                    else -1,
                }
                for cell in self.results.cells
            ],
            "measures": [
                {
                    "name": name,
                    "label": label_of(name),
                    "decimals": decimals_of_one(self.measures, name),
                }
                for name in graded
            ],
            "shown": [graded.index(name) for name in shown],
            "primary": [graded.index(name) for name in self.primary],
            "rules": [{"name": rule.name, "label": rule.label} for rule in RULES],
            "strata": list(STRATA_WORDS.items()),
            "items": {
                "anchor": [anchors[item.id] for item in order],
                "id": [item.id for item in order],
                "question": [item.question for item in order],
                "cluster": [item.cluster for item in order],
                "stratum": [strata.index(item.stratum) for item in order],
            },
            "scores": [
                [
                    None
                    if (value := score_of(self._of(cell, item), name)) is None
                    else round(value, 6)
                    for item in order
                    for cell in names
                ]
                for name in graded
            ],
            "ways": [
                "".join(self._way(cell, item, name) for item in order for cell in names)
                for name in graded
            ],
            "flags": self._flags(order, names),
        }

    def item(self, item: ItemResult, numbers: dict[tuple[str, str], int]) -> dict[str, object]:
        """What opens below a row, without reasons; numbers the passages that are new."""
        styles = sorted(
            item.references.items(), key=lambda pair: pair[0] != self.results.reference_style
        )
        return {
            "references": [
                [
                    style,
                    style == self.results.reference_style,
                    [self.words.write(one) for one in wordings],
                ]
                for style, wordings in styles
            ],
            "passages": [
                [
                    numbers.setdefault((each.document_id, each.text), len(numbers)),
                    round(each.score, 6),
                    each.gold,
                ]
                for each in item.retrieved
            ],
            "answers": [self._answer(cell.name, item) for cell in self.results.cells],
        }

    def reasons(self, item: ItemResult) -> list[dict[str, object] | None]:
        """By cell and criterion, what the judge wrote in each repeat."""
        return [
            {
                name: [
                    [repeat.score, repeat.failure, repeat.seed, self.words.write(repeat.completion)]
                    for repeat in grade.repeats
                ]
                for name, grade in answer.grade.criteria.items()
            }
            if (answer := self._of(cell.name, item)) is not None and answer.grade is not None
            else None
            for cell in self.results.cells
        ]

    def _answer(self, cell: str, item: ItemResult) -> dict[str, object] | None:
        answer, other = self._of(cell, item), self._of(self.against.get(cell, ""), item)
        if answer is None:
            return None
        segments = [sign + self.words.write(text) for sign, text in _segments(answer, other)]
        grade, graded = answer.grade, self.graded
        return {
            "text": segments,
            "marked": any(segment[0] != " " for segment in segments),
            "same": other is not None and answer.text.split() == other.text.split(),
            "empty": not answer.text,
            "cut": answer.finish_reason == "length",
            "tokens": answer.completion_tokens,
            "seconds": round(answer.seconds, 4),
            "error": answer.error,
            "grades": [
                [
                    graded.index(name),
                    None
                    if found.standard_deviation is None
                    else round(found.standard_deviation, 4),
                    found.lost_repeats,
                    found.rubric,
                ]
                for name, found in (grade.criteria.items() if grade else ())
            ],
            "lexical": [
                [label_of(name), plain(value, self.measures.of(name).decimals)]
                for name, value in (grade.lexical.items() if grade else ())
            ],
        }

    def _flags(self, order: Sequence[ItemResult], names: Sequence[str]) -> list[int]:
        bits = {rule.name: 1 << place for place, rule in enumerate(RULES)}
        found = []
        for item in order:
            for cell in names:
                broken = self.failures[cell].get(item.id, ())
                answer = self._of(cell, item)
                other = self._of(self.against.get(cell, ""), item)
                differs = (
                    answer is not None
                    and other is not None
                    and answer.text.split() != other.text.split()
                )
                found.append(sum(bits[rule] for rule in broken) | (DIFFERENT if differs else 0))
        return found

    def _of(self, cell: str, item: ItemResult) -> Answer | None:
        return self.answers.get(cell, {}).get(item.id)

    def _change(self, cell: str, other: str, item: ItemResult, measure: str) -> float | None:
        return difference_of(self._of(cell, item), self._of(other, item), measure)

    def _way(self, cell: str, item: ItemResult, measure: str) -> str:
        other = self.against.get(cell)
        if other is None:
            return "-"
        change = self._change(cell, other, item, measure)
        return _WAYS[direction_of(change, self.results.margin.get(measure, 0.0))]


def _segments(answer: Answer, other: Answer | None) -> Iterator[tuple[str, str]]:
    """The text, marked against the other answer's: a sign of its kind and each segment."""
    if other is None:
        yield " ", answer.text
        return
    for segment in mark(other.text, answer.text):
        yield _SIGNS[segment.kind], segment.text


def _texts(results: StudyResults) -> Iterator[str]:
    """Everything long that the page shows."""
    for item in results.items:
        yield from (passage.text for passage in item.retrieved)
        yield from (one for wordings in item.references.values() for one in wordings)
    for answer in results.answers:
        yield answer.text
        for grade in answer.grade.criteria.values() if answer.grade else ():
            yield from (repeat.completion for repeat in grade.repeats)
