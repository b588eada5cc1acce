"""Grading one answer, or comparing two: n repeats for every rubric, by one judge or a jury.

When does grading fail as a whole, and when does it only lose repeats? That depends on whether the
endpoint ever accepted a request:

- A broken set-up (key refused, model unknown) raises `WrongState` at once.
- If the endpoint accepted no request for *any* repeat of *any* rubric (no connection, or 429, 502,
  503, 504 at the last attempt), grading raises `Unavailable`: the answer was not judged, and
  asking again later is right.
- Every other failure costs its repeat, time-outs and HTTP 500 included, because the prompt itself
  may cause them. A lost repeat is counted by its kind and is never a score.
- While a batch has not answered, `Unavailable` too: no grade stands on a part of its repeats.

A criterion whose lost repeats are more than half is unscored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from tuneproof.rubrics import Rubric, RubricShelf
from tuneproof.servicekit.errors import Unavailable, WrongState
from tuneproof.servicekit.timing import Stages
from tuneproof_judge import lexical
from tuneproof_judge.drafting import MAX_TOKENS, Draft, StepsTask, read_steps
from tuneproof_judge.endpoint import ChatEndpoint
from tuneproof_judge.grade import (
    CriterionGrade,
    Failure,
    Grade,
    JuryGrade,
    LexicalScores,
    Pending,
    Repeat,
)
from tuneproof_judge.joint import joint_digest, render_joint
from tuneproof_judge.metrics import GRADES, REPEATS
from tuneproof_judge.pairs import (
    Comparison,
    PairGrade,
    PairReading,
    PairRepeat,
    digest_of,
    render_pair,
)
from tuneproof_judge.prompt import Subject, render
from tuneproof_judge.reading import Reader
from tuneproof_judge.replies import CallFailed
from tuneproof_judge.similarity import Similarity
from tuneproof_judge.task import CompareTask, GradeTask

T = TypeVar("T")

_RETRY_SECONDS = 5.0


class Grader:
    """Grades answers by the rubrics of a shelf.

    Args:
        endpoints: the judge model, or those of a jury; without any the grader computes lexical
            scores only.
        similarities: what else is computed beside these.
    """

    def __init__(
        self,
        rubrics: RubricShelf,
        *endpoints: ChatEndpoint,
        similarities: Sequence[Similarity] = (),
    ) -> None:
        self._rubrics = rubrics
        self._endpoints = endpoints
        self._similarities = similarities

    @property
    def model(self) -> str:
        """The judge model's name; of a jury, all names."""
        return " + ".join(each.model for each in self._endpoints)

    async def grade(self, task: GradeTask, *, deadline: float | None = None) -> Grade:
        """Grades one answer.

        Args:
            deadline: the event loop's time after which no new attempt begins.

        Raises:
            InvalidInput: the task breaks a limit, or lacks what a rubric reads.
            NotFound: a rubric is unknown.
            WrongState: there is no endpoint, its set-up is broken, or it gives no probabilities
                where the mode needs them.
            Unavailable: an endpoint accepted none of the requests.
        """
        rubrics = [self._rubrics.get(rubric_id) for rubric_id in task.rubrics]
        task.check(rubrics)
        if rubrics:
            self._need_endpoint()
        stages = Stages("judge")
        with stages.measure("lexical"):
            words = await _words(task.subject, self._similarities)
        if not rubrics:
            return Grade((), words, "", stages.seconds)
        with stages.measure("judge"):
            by_judge = await _all(
                self._judge(endpoint, rubrics, task, deadline) for endpoint in self._endpoints
            )
        if len(by_judge) == 1:
            return Grade(by_judge[0], words, self.model, stages.seconds)
        jury = [
            JuryGrade(jurors, rubric.high - rubric.low)
            for rubric, *jurors in zip(rubrics, *by_judge, strict=True)
        ]
        return Grade(jury, words, self.model, stages.seconds)

    async def compare(self, task: CompareTask, *, deadline: float | None = None) -> Comparison:
        """Compares two answers; as `grade`.

        Raises:
            WrongState: there is no endpoint, or a jury: let each judge compare alone.
        """
        rubrics = [self._rubrics.get(rubric_id) for rubric_id in task.rubrics]
        task.check(rubrics)
        self._need_endpoint()
        if len(self._endpoints) > 1:
            raise WrongState("a jury does not compare pairs: start a judge for each model")
        (endpoint,) = self._endpoints
        reader = Reader(endpoint, task.sampling, deadline)

        async def one(rubric: Rubric) -> PairGrade:
            prompts = (
                (render_pair(rubric, task.first, task.second), False),
                (render_pair(rubric, task.second, task.first), True),
            )
            readings = await _all(
                reader.compare(rubric, prompt, index, reversed_order=turned)
                for index in range(task.repeats)
                for prompt, turned in prompts
            )
            repeats = [
                PairRepeat(index, *readings[2 * index : 2 * index + 2])
                for index in range(task.repeats)
            ]
            return PairGrade(rubric.id, digest_of(rubric), rubric.criterion, repeats)

        grades = await _all(one(rubric) for rubric in rubrics)
        _raise_if_down(endpoint, [one for each in grades for one in each.readings])
        return Comparison(grades, endpoint.model)

    async def draft(self, task: StepsTask, *, deadline: float | None = None) -> Draft:
        """Has the judge model, of a jury the first, write evaluation steps.

        Raises:
            WrongState: there is no endpoint, its set-up is broken, or it wrote no list of steps.
            Unavailable: the endpoint failed.
        """
        task.check()
        self._need_endpoint()
        endpoint = self._endpoints[0]
        try:
            completion = await endpoint.complete(
                task.prompt,
                seed=task.seed,
                temperature=0.0,
                max_tokens=MAX_TOKENS,
                deadline=deadline,
            )
        except CallFailed as failed:
            if isinstance(failed.failure, Pending):
                raise _pending(endpoint, [failed.failure], 1) from None
            raise Unavailable(f"no steps: {failed.failure.detail}") from None
        return Draft(read_steps(completion.text), endpoint.model, completion.usage)

    def _need_endpoint(self) -> None:
        if not self._endpoints:
            raise WrongState(
                "this judge was started without a model: start it with --endpoint-url and"
                " --endpoint-model (any OpenAI-compatible endpoint), or name no rubric to get"
                " lexical scores",
                reason="NO_ENDPOINT",
            )

    async def _judge(
        self,
        endpoint: ChatEndpoint,
        rubrics: Sequence[Rubric],
        task: GradeTask,
        deadline: float | None,
    ) -> list[CriterionGrade]:
        if task.joint and len(rubrics) > 1:
            grades = await _jointly(Reader(endpoint, task.sampling, deadline), rubrics, task)
        else:
            # Repeats of one rubric follow each other, so that the endpoint has their prompt cached.
            grades = await _all(
                _alone(Reader(endpoint, task.sampling.of(rubric), deadline), rubric, task)
                for rubric in rubrics
            )
        _raise_if_down(endpoint, [repeat for each in grades for repeat in each.repeats])
        _count(grades)
        return grades


async def _alone(reader: Reader, rubric: Rubric, task: GradeTask) -> CriterionGrade:
    prompt = render(rubric, task.subject)
    repeats = await _settling(
        lambda index: reader.repeat(rubric, prompt, index),
        lambda found: [found],
        reader.sampling.repeats,
        task.settled_after,
    )
    weighted = task.mode == "weighted"
    return CriterionGrade(
        rubric.id,
        rubric.digest,
        rubric.criterion,
        repeats,
        task.mode,
        weighted and rubric.reasoning == "before",
        reader.endpoint.model,
    )


async def _jointly(
    reader: Reader, rubrics: Sequence[Rubric], task: GradeTask
) -> list[CriterionGrade]:
    prompt = render_joint(rubrics, task.subject)
    readings = await _settling(
        lambda index: reader.joint(rubrics, prompt, index),
        lambda found: found,
        task.repeats,
        task.settled_after,
    )
    return [
        CriterionGrade(
            rubric.id,
            joint_digest(rubric, rubrics),
            rubric.criterion,
            repeats,
            judge_model=reader.endpoint.model,
        )
        for rubric, *repeats in zip(rubrics, *readings, strict=True)
    ]


async def _settling(
    ask: Callable[[int], Coroutine[Any, Any, T]],
    repeats_of: Callable[[T], Sequence[Repeat]],
    count: int,
    settled_after: int,
) -> list[T]:
    """All repeats, or only the first ones if they have one score by each criterion."""
    first = min(count, settled_after or count)
    found = await _all(ask(index) for index in range(first))
    outcomes = [[repeat.outcome for repeat in repeats_of(each)] for each in found]
    settled = all(
        each == outcomes[0] and all(isinstance(one, int) for one in each) for each in outcomes
    )
    pending = any(isinstance(one, Pending) for each in outcomes for one in each)
    if settled or pending:
        return found
    return [*found, *await _all(ask(index) for index in range(first, count))]


async def _words(subject: Subject, similarities: Sequence[Similarity]) -> LexicalScores | None:
    given = subject.answer, subject.references
    if not subject.references:
        return None
    found = await asyncio.to_thread(lexical.score, *given)
    more: dict[str, Any] = {each.name: await each.score(*given) for each in similarities}
    return replace(found, **more)


async def _all(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Results of coroutines that run together, in their order; the first failure ends all."""
    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(each) for each in work]
    except ExceptionGroup as failed:
        # The first one; the group has cancelled the others.
        raise failed.exceptions[0] from None
    return [each.result() for each in running]


def _count(grades: Sequence[CriterionGrade]) -> None:
    for grade in grades:
        GRADES.labels(grade.rubric, "scored" if grade.scored else "unscored").inc()
        for repeat in grade.repeats:
            outcome = repeat.outcome
            kind = outcome.kind.value if isinstance(outcome, Failure) else "scored"
            REPEATS.labels(grade.rubric, kind).inc()


def _raise_if_down(endpoint: ChatEndpoint, asked: Sequence[Repeat | PairReading]) -> None:
    if pending := [one.outcome for one in asked if isinstance(one.outcome, Pending)]:
        raise _pending(endpoint, pending, len(asked))
    if not all(each.outage for each in asked):
        return
    last = asked[-1].outcome
    detail = last.detail if isinstance(last, Failure) else ""
    raise Unavailable(
        f"the judge's endpoint {endpoint.url} accepted none of {len(asked)} requests, after"
        f" retries ({detail}); see that it is up and that --endpoint-url is right",
        retry_after=_RETRY_SECONDS,
        reason="ENDPOINT_DOWN",
    )


def _pending(endpoint: ChatEndpoint, pending: Sequence[Pending], asked: int) -> Unavailable:
    detail = f" ({pending[0].detail})" if pending[0].detail else ""
    return Unavailable(
        f"{len(pending)} of {asked} requests wait for a batch of {endpoint.url}{detail};"
        " ask again later",
        reason="BATCH_PENDING",
    )
