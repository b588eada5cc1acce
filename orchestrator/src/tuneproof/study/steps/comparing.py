"""Step: the judge says which of two answers is better, asked in both orders."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from tuneproof.results import Choice, Preference
from tuneproof.sdk import CompareInput, PairComparison
from tuneproof.servicekit.errors import TuneproofError, Unavailable
from tuneproof.servicekit.tracing import span
from tuneproof.study.services import Services
from tuneproof.study.state.store import Task, task
from tuneproof.study.steps.chain import AnswerWork, Chain
from tuneproof.study.steps.judging import check_judge, endpoint_failed
from tuneproof.study.steps.tally import Tally
from tuneproof.study.steps.work import Lane, TaskOutcome


@dataclass(frozen=True, slots=True)
class ComparedPair:
    """Two cells' answers to one item."""

    cell: str
    against: str
    item: str
    task: Task | None
    """None where both are the same text: a tie that nobody is asked about."""


def compared_pairs(chain: Chain) -> list[ComparedPair]:
    """The pairs that the study asks about, as far as both are answered."""
    cells = _cells(chain)
    if not cells:
        return []
    works = {(work.cell.name, work.asked.id): work for work in chain.answers()}
    texts = chain.state.outputs({place: work.task for place, work in works.items()})
    found = []
    for cell, against in cells:
        for item in chain.plan.asked:
            mine, theirs = texts.get((cell, item.id)), texts.get((against, item.id))
            if mine and theirs:
                one, other = str(mine["text"]), str(theirs["text"])
                asked = None if one == other else _task(chain, works[cell, item.id], one, other)
                found.append(ComparedPair(cell, against, item.id, asked))
    return found


def comparisons_total(chain: Chain) -> int:
    """How many pairs there are when all is answered, identical ones included."""
    return len(_cells(chain)) * len(chain.plan.asked)


def _cells(chain: Chain) -> list[tuple[str, str]]:
    """The cells of the primary comparisons that the judge decides, each with what it is compared
    with; none where the study file does not ask which answer is better."""
    judge = chain.plan.spec.judge
    if judge is None or not judge.compare:
        return []
    measures = chain.identities.measures
    criteria = {measure.name for measure in measures}
    named = chain.plan.primary(measures)
    return list(dict.fromkeys((one.cell, one.against) for one in named if one.measure in criteria))


def _task(chain: Chain, work: AnswerWork, mine: str, theirs: str) -> Task:
    judge, asked = chain.plan.spec.judge, work.asked
    if judge is None:
        raise AssertionError("a judge compares")
    pair = {"first": mine, "second": theirs}
    return task("choice", chain.judge_inputs(judge, asked, judge.compare) | pair)


async def compare_answers(chain: Chain, services: Services, tally: Tally) -> None:
    """Has every pair compared that is not yet."""
    tally.try_again()
    tasks = [one.task for one in compared_pairs(chain) if one.task is not None]
    missing = chain.state.without_output([each.key for each in tasks])
    lane = Lane(
        partial(_ask, services, chain.identities.judge_name, chain.plan.spec.execution.grades),
        chain.state,
        recover=services.recover,
    )
    for each in tasks:
        if each.key in missing:
            lane.add(each, tally)
    lane.close()
    with span("comparisons"):
        await lane.run()


async def _ask(
    services: Services, judge_name: str, in_flight: int, tasks: AsyncIterator[Task]
) -> AsyncGenerator[TaskOutcome, None]:
    judge = await services.judge()

    async def inputs() -> AsyncIterator[tuple[str, CompareInput]]:
        async for each in tasks:
            yield each.key, _input(each)

    async for key, outcome in judge.compare_many(inputs(), in_flight=in_flight):
        if isinstance(outcome, TuneproofError):
            yield key, outcome
            continue
        check_judge(outcome.judge_model, judge_name)
        yield key, _output(outcome)


def _input(one: Task) -> CompareInput:
    given = one.inputs
    return CompareInput(
        question=given["question"],
        first=given["first"],
        second=given["second"],
        references=tuple(given["references"]),
        passages=tuple(given["passages"]),
        rubrics=tuple(rubric for rubric, _ in given["rubrics"]),
        repeats=given["repeats"],
        seed=given["seed"],
        temperature=given["temperature"],
    )


def _output(found: PairComparison) -> dict[str, Any] | Unavailable:
    for grade in found.criteria.values():
        lost = [repeat.failures for repeat in grade.repeats if repeat.failures]
        if grade.preference is None and (failed := endpoint_failed(lost, len(grade.repeats))):
            return failed
    return {
        name: [[repeat.in_order or None, repeat.reversed or None] for repeat in grade.repeats]
        for name, grade in found.criteria.items()
    }


def preferences(chain: Chain) -> tuple[Preference, ...]:
    """What the judge preferred, by pair and criterion."""
    pairs = compared_pairs(chain)
    tasks = {place: one.task for place, one in enumerate(pairs) if one.task is not None}
    outputs = chain.state.outputs(tasks)
    tie: list[tuple[Choice, Choice]] = [("tie", "tie")]
    same = {measure.name: tie for measure in chain.identities.measures}
    return tuple(
        Preference(one.cell, one.against, one.item, criterion, tuple(map(tuple, repeats)))
        for place, one in enumerate(pairs)
        for criterion, repeats in (same if one.task is None else outputs.get(place, {})).items()
    )
