"""Did a cell stop using the passages? Scores and sources by kind of question (`strata`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tuneproof.analysis.intervals import Estimate, Interval, Limits, estimate, interval_of
from tuneproof.analysis.refusals import is_refusal
from tuneproof.analysis.scores import answers_by_cell, measures_of, score_of
from tuneproof.analysis.strata import KindName, kinds_of
from tuneproof.analysis.wording import ItemWords
from tuneproof.results import Answer, ItemResult, StudyResults

SHARE_LIMITS = (-1.0, 1.0)
"""Lowest and highest difference of two shares."""


@dataclass(frozen=True, slots=True)
class Change:
    """A cell beside what it is compared with, over the items that both have a value for."""

    mean: float | None
    mean_against: float | None
    difference: float | None
    interval: Interval | None
    """By itself, at the study's confidence: exploratory."""
    items: int


@dataclass(frozen=True, slots=True)
class SplitCell:
    """One cell's answers to the questions of one stratum."""

    cell: str
    against: str
    """Empty for a cell that is compared with none."""
    scores: Mapping[str, Change]
    """By measure."""
    sources: Change
    """Share of an answer's own words (function words and the question's left out) that the
    retrieved passages hold; refusals are left out."""
    answered: int
    refused: int


@dataclass(frozen=True, slots=True)
class Split:
    """The questions of one kind."""

    stratum: KindName
    items: int
    cells: tuple[SplitCell, ...]
    model: str = ""
    """Whose knowledge decides; empty where retrieval does."""


def splits_of(
    results: StudyResults,
    measures: Sequence[str],
    against: Mapping[str, str],
    read: Sequence[ItemWords] | None = None,
) -> tuple[Split, ...]:
    """The kinds that have items, each with its cells.

    Args:
        measures: whose scores are compared.
        against: by cell, the cell that it is compared with.
        read: the words of the items; None: read here.
    """
    answers = answers_by_cell(results)
    limits = {name: measures_of(results).of(name).limits for name in measures}
    shares = _shares(answers, ItemWords.of_study(results) if read is None else read)
    found = []
    for kind in kinds_of(results):
        items, cells = kind.items, []
        for cell in kind.cells:
            other = against.get(cell.name, "")
            mine, theirs = answers[cell.name], answers.get(other, {})
            texts = [mine[item.id].text for item in items if _is_there(mine.get(item.id))]
            cells.append(
                SplitCell(
                    cell=cell.name,
                    against=other,
                    scores={
                        name: _change(
                            items,
                            {item.id: score_of(mine.get(item.id), name) for item in items},
                            {item.id: score_of(theirs.get(item.id), name) for item in items},
                            paired=bool(other),
                            confidence=results.confidence,
                            limits=limits[name],
                        )
                        for name in measures
                    },
                    sources=_change(
                        items,
                        shares[cell.name],
                        shares.get(other, {}),
                        paired=bool(other),
                        confidence=results.confidence,
                        limits=SHARE_LIMITS,
                    ),
                    answered=len(texts),
                    refused=sum(map(is_refusal, texts)),
                )
            )
        found.append(Split(kind.name, len(items), tuple(cells), kind.model))
    return tuple(found)


def _is_there(answer: Answer | None) -> bool:
    return answer is not None and bool(answer.served_by)


def _shares(
    answers: Mapping[str, Mapping[str, Answer]], read: Sequence[ItemWords]
) -> Mapping[str, Mapping[str, float | None]]:
    return {
        cell: {words.item.id: _share(given.get(words.item.id), words) for words in read}
        for cell, given in answers.items()
    }


def _share(answer: Answer | None, words: ItemWords) -> float | None:
    if answer is None or not answer.served_by or is_refusal(answer.text):
        return None
    return words.share_from_passages(answer.text)


def _change(
    items: Sequence[ItemResult],
    mine: Mapping[str, float | None],
    theirs: Mapping[str, float | None],
    *,
    paired: bool,
    confidence: float,
    limits: Limits | None,
) -> Change:
    if not paired:
        own = [value for item in items if (value := mine.get(item.id)) is not None]
        return Change(float(np.mean(own)) if own else None, None, None, None, len(own))
    numbers: dict[str, int] = {}
    pairs, clusters = [], []
    for item in items:
        value, other = mine.get(item.id), theirs.get(item.id)
        if value is not None and other is not None:
            pairs.append((value, other))
            clusters.append(numbers.setdefault(item.cluster, len(numbers)))
    if not pairs:
        return Change(None, None, None, None, 0)
    values = np.array(pairs, dtype=np.float64)
    found: Estimate = estimate(values[:, 0] - values[:, 1], np.array(clusters, dtype=np.int64))
    return Change(
        mean=float(values[:, 0].mean()),
        mean_against=float(values[:, 1].mean()),
        difference=found.difference,
        interval=interval_of(found, confidence, limits),
        items=len(pairs),
    )
