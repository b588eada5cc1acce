"""The scores of a study by stratum: by what retrieval gave the prompt.

Where the gold was not retrieved, or the documents do not answer the question, a refusal is right,
and a reference answer measures what the model knows by heart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tuneproof.analysis.refusals import is_refusal
from tuneproof.analysis.scores import Summary, answers_by_cell, means_by_cell
from tuneproof.results import STRATA, StratumName, StudyResults


@dataclass(frozen=True, slots=True)
class CellInStratum:
    """One cell's answers in a stratum."""

    answered: int
    refused: int
    """Of these, by the rule of `refusals`."""
    means: Mapping[str, Summary]
    """By measure."""


@dataclass(frozen=True, slots=True)
class Stratum:
    """Test questions of one kind."""

    name: StratumName
    items: int
    clusters: int
    refusal_is_right: bool
    """For an answer from the passages."""
    cells: Mapping[str, CellInStratum]


def strata_of(results: StudyResults) -> tuple[Stratum, ...]:
    """The strata that have items, each with the scores of every cell."""
    found = []
    answers = answers_by_cell(results)
    for name in STRATA:
        items = [item for item in results.items if item.stratum == name]
        if not items:
            continue
        means = means_by_cell(results, items)
        cells = {}
        for cell, by_item in answers.items():
            given = [by_item[item.id] for item in items if item.id in by_item]
            texts = [answer.text for answer in given if answer.served_by]
            refused = sum(map(is_refusal, texts))
            cells[cell] = CellInStratum(len(texts), refused, means[cell])
        found.append(
            Stratum(
                name,
                len(items),
                len({item.cluster for item in items}),
                refusal_is_right=name in ("missed", "unanswerable"),
                cells=cells,
            )
        )
    return tuple(found)
