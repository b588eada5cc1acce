"""The questions of a study by kind: what retrieval gave the prompt, what the model knows by heart.

Where the gold was not retrieved, or the documents do not answer the question, a refusal is right,
and a reference answer measures what the model knows by heart. A question that the base model
answers without passages shows little of retrieval: tuning that seems to help, or to do no harm, may
do so only there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tuneproof.analysis.refusals import is_refusal
from tuneproof.analysis.scores import (
    Summary,
    answers_by_cell,
    means_by_cell,
    measures_of,
    score_of,
)
from tuneproof.analysis.wording import words_of
from tuneproof.results import STRATA, Cell, ItemResult, StratumName, StudyResults

KnownName = Literal["by_heart", "not_by_heart"]
KindName = StratumName | KnownName

KNOWN_SHARE = 0.75
"""Of a criterion's range: an answer from here on is right, as 4 on a scale from 1 to 5."""

KNOWN_F1 = 0.5
"""The same for token F1, where no judge scores."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Questions of one kind, and the cells that it says something of."""

    name: KindName
    model: str
    """Whose knowledge decides; empty where retrieval does."""
    items: tuple[ItemResult, ...]
    cells: tuple[Cell, ...]
    """All, or those of the model, without the one whose answers decide."""


def kinds_of(results: StudyResults) -> tuple[Kind, ...]:
    """The kinds that have questions: by retrieval, then by what each model knows."""
    found = [
        Kind(name, "", tuple(item for item in results.items if item.stratum == name), results.cells)
        for name in STRATA
    ]
    for model, known in known_by_heart(results).items():
        cells = tuple(
            cell for cell in results.cells if cell.model == model and not cell.closed_book
        )
        names: tuple[KnownName, ...] = ("by_heart", "not_by_heart")
        found += [
            Kind(
                name,
                model,
                tuple(item for item in results.items if known.get(item.id) is (name == names[0])),
                cells,
            )
            for name in names
        ]
    return tuple(kind for kind in found if kind.items)


def known_by_heart(results: StudyResults) -> Mapping[str, Mapping[str, bool]]:
    """Whether a model answers an item without passages: by model, then by item.

    Read off the study's closed-book arm: its answer is right where the first criterion of the judge
    gives it three quarters of the range or more; without a judge, where it holds a reference or has
    a token F1 of a half. Models without such an arm, and items without a score, are not there.
    """
    cells = {cell.model: cell.name for cell in reversed(results.cells) if cell.closed_book}
    if not cells:
        return {}
    answers, judged = answers_by_cell(results), measures_of(results).judged.values()
    criterion = next((one for one in judged if one.high is not None), None)
    found: dict[str, dict[str, bool]] = {model: {} for model in cells}
    for model, cell in cells.items():
        for item in results.items:
            answer = answers[cell].get(item.id)
            score = score_of(answer, "token_f1" if criterion is None else criterion.name)
            if answer is None or score is None:
                continue
            if criterion is not None and criterion.high is not None:
                least = criterion.low + KNOWN_SHARE * (criterion.high - criterion.low)
                found[model][item.id] = score >= least
            else:
                references = item.references.get(results.reference_style, ())
                said = any(_holds(answer.text, one) for one in references)
                found[model][item.id] = said or score >= KNOWN_F1
    return found


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

    name: KindName
    items: int
    clusters: int
    refusal_is_right: bool
    """For an answer from the passages."""
    cells: Mapping[str, CellInStratum]
    model: str = ""
    """Whose knowledge decides; empty where retrieval does."""


def strata_of(results: StudyResults) -> tuple[Stratum, ...]:
    """The kinds that have items, each with the scores of its cells."""
    found = []
    answers = answers_by_cell(results)
    for kind in kinds_of(results):
        means = means_by_cell(results, kind.items)
        cells = {}
        for cell in kind.cells:
            by_item = answers[cell.name]
            given = [by_item[item.id] for item in kind.items if item.id in by_item]
            texts = [answer.text for answer in given if answer.served_by]
            refused = sum(map(is_refusal, texts))
            cells[cell.name] = CellInStratum(len(texts), refused, means[cell.name])
        found.append(
            Stratum(
                kind.name,
                len(kind.items),
                len({item.cluster for item in kind.items}),
                refusal_is_right=kind.name in ("missed", "unanswerable"),
                cells=cells,
                model=kind.model,
            )
        )
    return tuple(found)


def _holds(text: str, reference: str) -> bool:
    """Whether a text has the words of a reference, one after the other."""
    wanted = words_of(reference)
    return bool(wanted) and f" {' '.join(wanted)} " in f" {' '.join(words_of(text))} "
