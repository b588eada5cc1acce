"""The report for machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tuneproof.analysis import (
    Comparison,
    Comparisons,
    Repeats,
    Summary,
    means_by_cell,
    repeats_by_cell,
)
from tuneproof.report.caveats import warnings
from tuneproof.report.findings import findings, headline
from tuneproof.results import Cell, StudyResults

SCHEMA = "tuneproof.report/2"
"""Changes when a key is removed or changes its meaning; new keys may come without it."""


def report_json(results: StudyResults, comparisons: Comparisons) -> dict[str, Any]:
    """The study as JSON values: everything but the answers themselves. Numbers are finite.

    Keys: `schema`; `study` (name, description, dataset, items, clusters, judge_model,
    reference_style, and the flags synthetic, gold_only, toy_model, self_judged); `verdict`
    (headline; cells: each cell, label, arm, size, seed, by, direction of `findings.Direction`,
    phrase, sentences); `warnings` (kind caution | note, text); `intervals` (confidence,
    adjusted_confidence, adjustment); `comparisons` and `exploratory` (each: cell, against, measure,
    scale {name, low, high or null, unit, decimals}, by, items, clusters, mean, mean_against,
    difference, standard_error, degrees_of_freedom, interval {low, high, confidence, method} or
    null, scored_interval likewise, margin, verdict, within_margin, words, non_inferior, unscored,
    unscored_against, bounds [low, high] or null); `cells` (name, label, arm, size, seed, answers,
    errors, seconds_per_answer, repeats {asked, lost}, adapter or null, means by measure {mean,
    standard_deviation, scored, unscored}); `checks` (reader, judge: the results' own fields);
    `retrieval` or null; `provenance`; `stage_seconds`.
    """
    means, repeats = means_by_cell(results), repeats_by_cell(results)
    return {
        "schema": SCHEMA,
        "study": {
            "name": results.name,
            "description": results.description,
            "dataset": results.dataset,
            "items": len(results.items),
            "clusters": len({item.cluster for item in results.items}),
            "judge_model": results.judge_model,
            "reference_style": results.reference_style,
            "synthetic": results.synthetic,
            "gold_only": results.gold_only,
            "toy_model": results.toy_model,
            "self_judged": results.self_judged,
        },
        "verdict": {
            "headline": headline(findings(results, comparisons)),
            "cells": [asdict(found) for found in findings(results, comparisons)],
        },
        "warnings": [asdict(warning) for warning in warnings(results, comparisons)],
        "intervals": {
            "confidence": comparisons.confidence,
            "adjusted_confidence": comparisons.adjusted_confidence,
            "adjustment": comparisons.adjustment,
        },
        "comparisons": [_comparison(one) for one in comparisons.primary],
        "exploratory": [_comparison(one) for one in comparisons.exploratory],
        "cells": [
            _cell(results, cell, means[cell.name], repeats[cell.name]) for cell in results.cells
        ],
        "checks": {
            "reader": [asdict(check) for check in results.reader_checks],
            "judge": [
                {
                    **asdict(check),
                    "confusion": [list(row) for row in check.confusion],
                    "levels": list(check.levels),
                }
                for check in results.judge_checks
            ],
        },
        "retrieval": None if results.retrieval is None else asdict(results.retrieval),
        "provenance": dict(results.provenance),
        "stage_seconds": dict(results.stage_seconds),
    }


def _comparison(one: Comparison) -> dict[str, Any]:
    return {
        **asdict(one),
        "verdict": None if one.verdict is None else str(one.verdict),
        "bounds": None if one.bounds is None else list(one.bounds),
    }


def _cell(
    results: StudyResults, cell: Cell, means: Mapping[str, Summary], repeats: Repeats
) -> dict[str, Any]:
    answers = [answer for answer in results.answers if answer.cell == cell.name]
    timed = [answer.seconds for answer in answers if answer.grade or not answer.error]
    return {
        "name": cell.name,
        "label": cell.label,
        "arm": cell.arm,
        "size": cell.size,
        "seed": cell.seed,
        "answers": len(answers),
        "errors": sum(bool(answer.error) for answer in answers),
        "seconds_per_answer": sum(timed) / len(timed) if timed else None,
        "repeats": asdict(repeats),
        "adapter": cell.training.adapter_ref if cell.training else None,
        "means": {measure: asdict(summary) for measure, summary in means.items()},
    }
