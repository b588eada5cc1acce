"""A study as tables, a row a mapping: for data frames, spreadsheets and databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, get_args

from tuneproof.analysis.comparisons import Comparison, Comparisons
from tuneproof.analysis.costs import costs_by_cell
from tuneproof.analysis.scores import means_by_cell, measures_of, score_of
from tuneproof.results import Answer, Cell, ItemResult, StudyResults

Row = Mapping[str, Any]
"""Texts, numbers, truth values and None; `references` and `passages` are lists of texts."""
TableName = Literal["answers", "repeats", "cells", "comparisons"]
TABLES: tuple[TableName, ...] = get_args(TableName)


def rows_of(table: TableName, results: StudyResults, comparisons: Comparisons) -> list[Row]:
    """All rows of a table; each has the same keys.

    `answers`     each cell's answer to each question, with its scores
    `repeats`     each reading of each answer by the judge, with its reasons
    `cells`       each cell with the means over its answers
    `comparisons` each cell against the baseline by each measure; `primary` ones have a verdict
    """
    makers: Mapping[TableName, Callable[[], Iterator[Row]]] = {
        "answers": lambda: _answers(results),
        "repeats": lambda: _repeats(results),
        "cells": lambda: _cells(results),
        "comparisons": lambda: _comparisons(results, comparisons),
    }
    return list(makers[table]())


def _answers(results: StudyResults) -> Iterator[Row]:
    names = measures_of(results)
    for answer, cell, item in _asked(results):
        grades = answer.grade.criteria if answer.grade else {}
        yield {
            **_place(results, cell, item),
            "stratum": item.stratum,
            "question": item.question,
            "references": list(item.references.get(results.reference_style, ())),
            "passages": [passage.passage_id for passage in item.retrieved],
            "answer": answer.text if answer.served_by else None,
            "finish_reason": answer.finish_reason or None,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "seconds_in_batch": answer.seconds,
            "served_by": answer.served_by or None,
            "error": answer.error or None,
            **{f"score_{name}": score_of(answer, name) for name in names.names},
            **{
                f"sd_{name}": grades[name].standard_deviation if name in grades else None
                for name in names.judged
            },
        }


def _repeats(results: StudyResults) -> Iterator[Row]:
    for answer, cell, item in _asked(results):
        if answer.grade is None:
            continue
        for name, found in answer.grade.criteria.items():
            for number, repeat in enumerate(found.repeats, 1):
                yield {
                    **_place(results, cell, item),
                    "criterion": name,
                    "rubric": found.rubric,
                    "repeat": number,
                    "seed": repeat.seed,
                    "score": repeat.score,
                    "failure": repeat.failure or None,
                    "completion": repeat.completion,
                }


def _cells(results: StudyResults) -> Iterator[Row]:
    means, costs = means_by_cell(results), costs_by_cell(results)
    for cell in results.cells:
        given = [one for one in results.answers if one.cell == cell.name and one.served_by]
        yield {
            **_cell(results, cell),
            "label": cell.label,
            "tuned": cell.tuned,
            "baseline": cell not in results.compared,
            "adapter": cell.training.adapter_ref if cell.training else None,
            "answers": len(given),
            "prompt_tokens": costs[cell.name].prompt_tokens,
            "completion_tokens": costs[cell.name].completion_tokens,
            "seconds_alone": cell.alone.seconds if cell.alone else None,
            "first_token_seconds_alone": cell.alone.first_token_seconds if cell.alone else None,
            "price_of_an_answer": costs[cell.name].price,
            **{f"mean_{name}": found.mean for name, found in means[cell.name].items()},
            **{f"unscored_{name}": found.unscored for name, found in means[cell.name].items()},
        }


def _comparisons(results: StudyResults, comparisons: Comparisons) -> Iterator[Row]:
    cells = {cell.name: cell for cell in results.cells}
    for primary, listed in ((True, comparisons.primary), (False, comparisons.exploratory)):
        for one in listed:
            yield {**_cell(results, cells[one.cell]), "primary": primary, **_comparison(one)}


def _comparison(one: Comparison) -> Row:
    return {
        "against": one.against,
        "measure": one.measure,
        "by": one.by,
        "mean": one.mean,
        "mean_against": one.mean_against,
        "difference": one.difference,
        "low": one.interval.low if one.interval else None,
        "high": one.interval.high if one.interval else None,
        "confidence": one.interval.confidence if one.interval else None,
        "margin": one.margin,
        "verdict": str(one.verdict) if one.verdict else None,
        "within_margin": one.within_margin,
        "non_inferior": one.non_inferior,
        "items": one.items,
        "clusters": one.clusters,
        "unscored": one.unscored,
        "unscored_against": one.unscored_against,
    }


def _asked(results: StudyResults) -> Iterator[tuple[Answer, Cell, ItemResult]]:
    cells = {cell.name: cell for cell in results.cells}
    items = {item.id: item for item in results.items}
    for answer in results.answers:
        if answer.cell in cells and answer.item in items:
            yield answer, cells[answer.cell], items[answer.item]


def _cell(results: StudyResults, cell: Cell) -> Row:
    return {
        "study": results.name,
        "cell": cell.name,
        "model": cell.model,
        "arm": cell.arm,
        "size": cell.size,
        "seed": cell.seed,
    }


def _place(results: StudyResults, cell: Cell, item: ItemResult) -> Row:
    return {**_cell(results, cell), "item": item.id, "cluster": item.cluster}
