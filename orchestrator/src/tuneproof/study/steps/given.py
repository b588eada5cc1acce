"""Answers of other systems as pieces of a study's work: known from a file, not asked for."""

from __future__ import annotations

from typing import Any

from tuneproof.data.answers import GivenAnswer
from tuneproof.study.design.plan import Plan, PlannedCell
from tuneproof.study.state.store import Task, task


def given_task(cell: PlannedCell, plan: Plan, item: str) -> Task:
    """The task of an imported answer, whose inputs are all that the file says of it."""
    answer = plan.imported[cell.arm.name].by_item[item]
    return task("answer", {"given": _output(cell, answer)})


def output_of(done: Task) -> Any:
    """What the state keeps of an imported answer; None for one that a generator gives."""
    return done.inputs.get("given")


def _output(cell: PlannedCell, given: GivenAnswer) -> dict[str, Any]:
    imported = cell.arm.imported
    system = imported.system if imported is not None else ""
    return {
        "text": given.text,
        "finish_reason": "stop",
        "prompt_tokens": given.prompt_tokens,
        "completion_tokens": given.completion_tokens,
        "seconds": given.seconds,
        "served_by": system or cell.arm.name,
    }
