"""Grading one answer: lexical scores, and n sampled repeats for every rubric.

When does grading fail as a whole, and when does it only lose repeats? That depends on whether the
endpoint ever accepted a request:

- A broken set-up (key refused, model unknown) raises `WrongState` at once.
- If the endpoint accepted no request for *any* repeat of *any* rubric (no connection, or 429, 502,
  503, 504 at the last attempt), grading raises `Unavailable`: the answer was not judged, and
  asking again later is right.
- Every other failure costs its repeat, time-outs and HTTP 500 included, because the prompt itself
  may cause them. A lost repeat is counted by its kind and is never a score.

A criterion whose lost repeats are more than half is unscored.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

from tuneproof.rubrics import Rubric, RubricShelf
from tuneproof.servicekit.errors import Unavailable, WrongState
from tuneproof.servicekit.timing import Stages
from tuneproof_judge import lexical
from tuneproof_judge.endpoint import ChatEndpoint
from tuneproof_judge.form import read_score
from tuneproof_judge.grade import CriterionGrade, Failure, FailureKind, Grade, Repeat, Usage
from tuneproof_judge.metrics import GRADES, REPEATS
from tuneproof_judge.prompt import render
from tuneproof_judge.replies import CallFailed, Completion
from tuneproof_judge.task import GradeTask

_SEED_BITS = 31
_RETRY_SECONDS = 5.0


class Grader:
    """Grades answers by the rubrics of a shelf.

    Args:
        endpoint: the judge model; without one the grader computes lexical scores only.
    """

    def __init__(self, rubrics: RubricShelf, endpoint: ChatEndpoint | None) -> None:
        self._rubrics = rubrics
        self._endpoint = endpoint

    async def grade(self, task: GradeTask, *, deadline: float | None = None) -> Grade:
        """Grades one answer.

        Args:
            deadline: the event loop's time after which no new attempt begins.

        Raises:
            InvalidInput: the task breaks a limit, or lacks what a rubric reads.
            NotFound: a rubric is unknown.
            WrongState: there is no endpoint, or its set-up is broken.
            Unavailable: the endpoint accepted none of the requests.
        """
        task.check()
        rubrics = [self._rubrics.get(rubric_id) for rubric_id in task.rubrics]
        for rubric in rubrics:
            task.check_for(rubric)
        if rubrics and self._endpoint is None:
            raise WrongState(
                "this judge was started without a model: start it with --endpoint-url and"
                " --endpoint-model (any OpenAI-compatible endpoint), or name no rubric to get"
                " lexical scores",
                reason="NO_ENDPOINT",
            )
        stages = Stages("judge")
        with stages.measure("lexical"):
            words = await asyncio.to_thread(
                lexical.score, task.subject.answer, task.subject.references
            )
        if not rubrics or self._endpoint is None:
            return Grade((), words, "", stages.seconds)
        with stages.measure("judge"):
            criteria = await self._judge(self._endpoint, rubrics, task, deadline)
        return Grade(criteria, words, self._endpoint.model, stages.seconds)

    async def _judge(
        self,
        endpoint: ChatEndpoint,
        rubrics: Sequence[Rubric],
        task: GradeTask,
        deadline: float | None,
    ) -> list[CriterionGrade]:
        async def repeat(rubric: Rubric, prompt: str, index: int, seed: int) -> Repeat:
            try:
                completion = await endpoint.complete(
                    prompt,
                    seed=seed,
                    temperature=task.temperature,
                    max_tokens=rubric.max_tokens,
                    deadline=deadline,
                )
            except CallFailed as failed:
                usage = Usage(requests=failed.requests)
                return Repeat(index, seed, failed.failure, usage=usage, outage=failed.outage)
            outcome = outcome_of(completion, rubric)
            return Repeat(index, seed, outcome, completion.text, completion.usage)

        # Repeats of one rubric follow each other, so that the endpoint has their prompt cached.
        running: list[list[asyncio.Task[Repeat]]] = []
        try:
            async with asyncio.TaskGroup() as group:
                for rubric in rubrics:
                    prompt = render(rubric, task.subject)
                    own_seeds = seeds(task.seed, rubric.digest, task.repeats)
                    running.append(
                        [
                            group.create_task(repeat(rubric, prompt, index, seed))
                            for index, seed in enumerate(own_seeds)
                        ]
                    )
        except ExceptionGroup as failed:
            # The first one; the group has cancelled the others.
            raise failed.exceptions[0] from None
        repeats = [[one.result() for one in each] for each in running]
        _raise_if_down(endpoint, [one for each in repeats for one in each])
        grades = [
            CriterionGrade(rubric.id, rubric.digest, rubric.criterion, tuple(found))
            for rubric, found in zip(rubrics, repeats, strict=True)
        ]
        _count(grades)
        return grades


def seeds(seed: int, rubric_digest: str, count: int) -> list[int]:
    """The repeats' seeds: 31 bits, all different, and equal for equal arguments.

    More repeats begin with the seeds of fewer. The rubric is part of the seed, so that two criteria
    do not share their luck.
    """
    found: list[int] = []
    for index in range(count):
        digest = hashlib.sha256(f"{seed}\n{rubric_digest}\n{index}".encode()).digest()
        value = int.from_bytes(digest[:4], "big") >> (32 - _SEED_BITS)
        while value in found:
            value = (value + 1) % (1 << _SEED_BITS)
        found.append(value)
    return found


def outcome_of(completion: Completion, rubric: Rubric) -> int | Failure:
    """The score of a completion, or why it has none."""
    if completion.refusal or completion.finish_reason == "content_filter":
        said = completion.refusal or "stopped by the endpoint's content filter"
        return Failure(FailureKind.REFUSED, said[:300])
    if completion.finish_reason == "length":
        return Failure(
            FailureKind.CUT_OFF, f"cut off at the rubric's max_tokens of {rubric.max_tokens}"
        )
    return read_score(completion.text, rubric.scores)


def _count(grades: Sequence[CriterionGrade]) -> None:
    for grade in grades:
        GRADES.labels(grade.rubric, "scored" if grade.scored else "unscored").inc()
        for repeat in grade.repeats:
            outcome = repeat.outcome
            kind = outcome.kind.value if isinstance(outcome, Failure) else "scored"
            REPEATS.labels(grade.rubric, kind).inc()


def _raise_if_down(endpoint: ChatEndpoint, repeats: Sequence[Repeat]) -> None:
    if not all(repeat.outage for repeat in repeats):
        return
    last = repeats[-1].outcome
    detail = last.detail if isinstance(last, Failure) else ""
    raise Unavailable(
        f"the judge's endpoint {endpoint.url} accepted none of {len(repeats)} requests, after"
        f" retries ({detail}); see that it is up and that --endpoint-url is right",
        retry_after=_RETRY_SECONDS,
        reason="ENDPOINT_DOWN",
    )
