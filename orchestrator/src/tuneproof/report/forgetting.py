"""What tuning forgot, as people read it: scores on lm-eval's tasks before and after."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot

from tuneproof.report.numbers import NONE, plain, signed
from tuneproof.results import StudyResults, TaskScore

DECIMALS = 3


@dataclass(frozen=True, slots=True)
class ForgettingRow:
    """One cell on one task, formatted."""

    cell: str
    label: str
    task: str
    metric: str
    before: str
    """Of the base model."""
    after: str
    difference: str
    error: str
    """Standard error of the difference, as of two samples: the tasks' own errors are of items, and
    the same items stand on both sides, so that it is rather too wide."""


def forgetting_rows(results: StudyResults) -> tuple[ForgettingRow, ...]:
    """A row for each tuned cell, task and metric; none where nothing was measured."""
    cells = {cell.name: cell for cell in results.cells}
    return tuple(
        _row(cell.name, cell.label, before[one.task, one.metric], one)
        for cell in results.compared
        for before in [{(o.task, o.metric): o for o in cells[results.baseline_of(cell)].forgetting}]
        for one in cell.forgetting
        if (one.task, one.metric) in before
    )


def _row(cell: str, label: str, before: TaskScore, after: TaskScore) -> ForgettingRow:
    error = NONE
    if before.standard_error is not None and after.standard_error is not None:
        error = plain(hypot(before.standard_error, after.standard_error), DECIMALS)
    return ForgettingRow(
        cell,
        label,
        after.task,
        after.metric,
        plain(before.value, DECIMALS),
        plain(after.value, DECIMALS),
        signed(after.value - before.value, DECIMALS),
        error,
    )
