"""A study's results made by hand, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuneproof.results.measure import Measure
from tuneproof.results.study import (
    Answer,
    Cell,
    ItemResult,
    PrimaryComparison,
    StudyResults,
)


def results_of(
    items: Sequence[ItemResult],
    cells: Sequence[Cell],
    answers: Sequence[Answer],
    *,
    criteria: Sequence[str] = ("accuracy", "completeness"),
    **more: Any,
) -> StudyResults:
    """A study that a judge scored from 1 to 5, with a margin of .25 of each criterion. By default
    every cell but the first is compared with the first by every criterion, and nothing is known
    beside the answers.

    Args:
        more: fields of `StudyResults` that differ.
    """
    baseline = cells[0].name
    found: dict[str, Any] = {
        "name": "made",
        "description": "",
        "dataset": "made",
        "synthetic": False,
        "gold_only": False,
        "toy_model": False,
        "judge_model": "judge",
        "self_judged": False,
        "reference_style": "full",
        "items": tuple(items),
        "cells": tuple(cells),
        "baseline": baseline,
        "answers": tuple(answers),
        "retrieval": None,
        "reader_checks": (),
        "judge_checks": (),
        "primary": tuple(
            PrimaryComparison(cell.name, baseline, criterion)
            for cell in cells[1:]
            for criterion in criteria
        ),
        "margin": dict.fromkeys(criteria, 0.25),
        "confidence": 0.95,
        "notes": (),
        "provenance": {},
        "criteria": tuple(Measure(name, 1, 5, "points") for name in criteria),
    }
    return StudyResults(**{**found, **more})
