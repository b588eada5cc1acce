"""The gRPC side: translates and delegates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
from google.rpc import status_pb2

from tuneproof.judge.v1 import judge_pb2 as pb
from tuneproof.judge.v1 import judge_pb2_grpc
from tuneproof.rubrics import RubricShelf
from tuneproof.servicekit.batch import answer_each
from tuneproof.servicekit.errors import AlreadyExists, InvalidInput
from tuneproof.servicekit.messages import message_of, value_from
from tuneproof.servicekit.paging import page
from tuneproof_judge.grade import CriterionGrade, Failure, Grade, Repeat
from tuneproof_judge.grading import Grader
from tuneproof_judge.prompt import Subject
from tuneproof_judge.task import GradeTask

Context = grpc.aio.ServicerContext[Any, Any]

_DEFAULT_REPEATS = 10


class JudgeServicer(judge_pb2_grpc.JudgeServiceServicer):
    """JudgeService on a grader and a shelf.

    Args:
        batch_concurrency: most items of one stream in flight.
    """

    def __init__(self, grader: Grader, rubrics: RubricShelf, *, batch_concurrency: int) -> None:
        self._grader = grader
        self._rubrics = rubrics
        self._batch_concurrency = batch_concurrency

    async def Grade(self, request: pb.GradeRequest, context: Context) -> pb.GradeResponse:
        grade = await self._grader.grade(task_of(request), deadline=_deadline(context))
        return pb.GradeResponse(grade=grade_to_proto(grade))

    async def GradeBatch(
        self, request_iterator: AsyncIterator[pb.GradeBatchRequest], context: Context
    ) -> AsyncIterator[pb.GradeBatchResponse]:
        deadline = _deadline(context)
        seen: set[str] = set()

        async def answer(request: pb.GradeBatchRequest) -> pb.GradeBatchResponse:
            if not request.id:
                raise InvalidInput(
                    "id is empty: give each item one, since answers come in any order", field="id"
                )
            if request.id in seen:
                raise AlreadyExists(f"the id {request.id[:100]!r} came before in this stream")
            seen.add(request.id)
            grade = await self._grader.grade(task_of(request.grade), deadline=deadline)
            return pb.GradeBatchResponse(id=request.id, result=grade_to_proto(grade))

        def refuse(
            request: pb.GradeBatchRequest, status: status_pb2.Status
        ) -> pb.GradeBatchResponse:
            return pb.GradeBatchResponse(id=request.id, error=status)

        responses = answer_each(
            request_iterator, answer, refuse, concurrency=self._batch_concurrency
        )
        async for response in responses:
            yield response

    async def GetRubric(self, request: pb.GetRubricRequest, _: Context) -> pb.GetRubricResponse:
        return pb.GetRubricResponse(rubric=message_of(pb.Rubric, self._rubrics.get(request.id)))

    async def ListRubrics(
        self, request: pb.ListRubricsRequest, _: Context
    ) -> pb.ListRubricsResponse:
        rubrics, token = page(
            list(self._rubrics), request.page_size, request.page_token, lambda rubric: rubric.id
        )
        return message_of(pb.ListRubricsResponse, rubrics=rubrics, next_page_token=token)


def task_of(request: pb.GradeRequest) -> GradeTask:
    """The domain's task, with the contract's defaults."""
    return value_from(
        GradeTask,
        request,
        subject=value_from(Subject, request),
        repeats=request.repeats or _DEFAULT_REPEATS,
        temperature=request.temperature if request.HasField("temperature") else 1.0,
    )


def grade_to_proto(grade: Grade) -> pb.Grade:
    """The grade as a message; what is None stays absent."""
    criteria = map(_criterion_to_proto, grade.criteria)
    return message_of(pb.Grade, grade, criteria=criteria, stage_times=grade.seconds)


def _criterion_to_proto(grade: CriterionGrade) -> pb.CriterionGrade:
    return message_of(
        pb.CriterionGrade,
        grade,
        mode=pb.MODE_SAMPLED,
        scored_repeats=len(grade.scores),
        repeats=map(_repeat_to_proto, grade.repeats),
    )


def _repeat_to_proto(repeat: Repeat) -> pb.Repeat:
    case = "failure" if isinstance(repeat.outcome, Failure) else "score"
    return message_of(pb.Repeat, repeat, **{case: repeat.outcome})


def _deadline(context: Context) -> float | None:
    """The event loop's time at which the call's time is over."""
    remaining = cast("float | None", context.time_remaining())
    return None if remaining is None else asyncio.get_running_loop().time() + remaining
