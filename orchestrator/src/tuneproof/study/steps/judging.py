"""Step: the judge grades every answer, and the forms of its own check."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from functools import partial

from tuneproof.results import Grade
from tuneproof.sdk import GradeInput
from tuneproof.servicekit.errors import TuneproofError, Unavailable, WrongState
from tuneproof.study.progress import Progress
from tuneproof.study.services import Services
from tuneproof.study.state.store import Task
from tuneproof.study.steps.chain import Chain
from tuneproof.study.steps.work import TaskOutcome, complete_stage

_PASSING = frozenset({"timeout", "endpoint"})
"""Kinds of failure that come from the endpoint's state at that moment, not from the answer."""


async def judge(chain: Chain, services: Services, progress: Progress) -> None:
    """Asks for every grade that is missing."""
    await _grade(chain, services, progress, "grades", list(chain.grades().values()))


async def check(chain: Chain, services: Services, progress: Progress) -> None:
    """Asks for the grades of the reader's check and of the judge's."""
    tasks = [*chain.reader_grades().values(), *chain.form_grades()]
    await _grade(chain, services, progress, "checks", tasks)


async def _grade(
    chain: Chain, services: Services, progress: Progress, name: str, tasks: Sequence[Task]
) -> None:
    await complete_stage(
        name,
        tasks,
        partial(_ask, services, chain.identities.judge_name),
        state=chain.state,
        services=services,
        progress=progress,
    )


async def _ask(
    services: Services, judge_name: str, tasks: Sequence[Task]
) -> AsyncIterator[TaskOutcome]:
    judge = await services.judge()
    inputs = {task.key: _input(task) for task in tasks}
    async for key, outcome in judge.grade_many(inputs):
        if isinstance(outcome, TuneproofError):
            yield key, outcome
            continue
        if outcome.criteria and judge_name and outcome.judge_model != judge_name:
            raise WrongState(
                f"the judge asks the model {outcome.judge_model!r}, but the study means"
                f" {judge_name!r}: give the --judge-url and --judge-model that the judge was"
                " started with, or restart it"
            )
        yield key, _output(outcome)


def _input(task: Task) -> GradeInput:
    given = task.inputs
    if not given["rubrics"]:
        return GradeInput("", given["answer"], tuple(given["references"]))
    return GradeInput(
        question=given["question"],
        answer=given["answer"],
        references=tuple(given["references"]),
        passages=tuple(given["passages"]),
        rubrics=tuple(rubric for rubric, _ in given["rubrics"]),
        repeats=given["repeats"],
        seed=given["seed"],
        temperature=given["temperature"],
    )


def _output(grade: Grade) -> object:
    """The grade, unless a criterion is unscored only because the endpoint did not answer."""
    for criterion in grade.criteria.values():
        kinds = {repeat.failure for repeat in criterion.repeats if repeat.score is None}
        if criterion.mean is None and kinds and kinds <= _PASSING:
            return Unavailable(
                f"the judge's endpoint failed {criterion.lost_repeats} of"
                f" {len(criterion.repeats)} repeats ({', '.join(sorted(kinds))})"
            )
    return asdict(grade)
