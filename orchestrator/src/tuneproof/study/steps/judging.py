"""Step: the judge grades answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial

from tuneproof.results import Grade
from tuneproof.sdk import GradeInput
from tuneproof.servicekit.errors import TuneproofError, Unavailable, WrongState
from tuneproof.servicekit.tracing import span
from tuneproof.study.services import Services
from tuneproof.study.state.store import Task
from tuneproof.study.steps.chain import Chain
from tuneproof.study.steps.tally import GRADES, Tally
from tuneproof.study.steps.work import Ask, Lane, TaskOutcome

_PASSING = frozenset({"timeout", "endpoint"})
"""Kinds of failure that come from the endpoint's state at that moment, not from the answer."""


class Grading:
    """The judge's lane: what has no grade yet is asked for, what belongs to a check last.

    Args:
        tallies: by stage.
    """

    def __init__(self, chain: Chain, services: Services, tallies: Mapping[str, Tally]) -> None:
        bound = chain.plan.spec.execution.grades
        self._state = chain.state
        self._tallies = tallies
        self._lane = Lane(
            ask_judge(services, chain.identities.judge_name, bound),
            chain.state,
            recover=services.recover,
        )

    def ask(self, tasks: Sequence[Task], stage: str) -> int:
        """Has those grades asked for that are not there; how many are."""
        missing = self._state.without_output([task.key for task in tasks])
        wanted = [task for task in tasks if task.key in missing]
        for task in wanted:
            self._lane.add(task, self._tallies[stage], rank=(stage != GRADES, *rank_of(task)))
        return len(tasks) - len(wanted)

    def close(self) -> None:
        """Nothing more comes: `run` ends after what is here."""
        self._lane.close()

    async def run(self) -> None:
        """Grades until it is closed."""
        with span("grades"):
            await self._lane.run()


def ask_judge(services: Services, judge_name: str, in_flight: int) -> Ask:
    """Asks the judge for grades.

    Args:
        judge_name: the model that the study means; empty where no model judges.
        in_flight: most answers at once that the judge has and has not graded.
    """
    return partial(_ask, services, judge_name, in_flight)


def rank_of(task: Task) -> tuple[str, ...]:
    """Grades that share the beginning of the judge's prompt stand together: it ends in the
    answer."""
    given = task.inputs
    return given.get("question", ""), *given["references"], given["answer"]


async def _ask(
    services: Services, judge_name: str, in_flight: int, tasks: AsyncIterator[Task]
) -> AsyncGenerator[TaskOutcome, None]:
    judge = await services.judge()

    async def inputs() -> AsyncIterator[tuple[str, GradeInput]]:
        async for task in tasks:
            yield task.key, _input(task)

    async for key, outcome in judge.grade_many(inputs(), in_flight=in_flight):
        if isinstance(outcome, TuneproofError):
            yield key, outcome
            continue
        if outcome.criteria and judge_name:
            check_judge(outcome.judge_model, judge_name)
        yield key, _output(outcome)


def check_judge(asked: str, meant: str) -> None:
    """Checks that the judge asks the model that the study means.

    Raises:
        WrongState: it asks another.
    """
    if asked != meant:
        raise WrongState(
            f"the judge asks the model {asked!r}, but the study means {meant!r}: give the"
            " --judge-url and --judge-model that the judge was started with, or restart it"
        )


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
        mode=given.get("mode", "sampled"),
        settled_after=given.get("settled_after", 0),
        joint=given.get("joint", False),
    )


def _output(grade: Grade) -> object:
    for criterion in grade.criteria.values():
        lost = [[repeat.failure] for repeat in criterion.repeats if repeat.score is None]
        if criterion.mean is None and (failed := endpoint_failed(lost, len(criterion.repeats))):
            return failed
    return asdict(grade)


def endpoint_failed(lost: Sequence[Sequence[str]], repeats: int) -> Unavailable | None:
    """What is unscored only because the endpoint did not answer is to be asked again.

    Args:
        lost: kinds of failure of each lost repeat.
        repeats: all, the scored ones included.
    """
    kinds = {kind for each in lost for kind in each}
    if not kinds or not kinds <= _PASSING:
        return None
    return Unavailable(
        f"the judge's endpoint failed {len(lost)} of {repeats} repeats ({', '.join(sorted(kinds))})"
    )
