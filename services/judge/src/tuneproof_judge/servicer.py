"""The gRPC side: translates and delegates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast

import grpc
from google.rpc import status_pb2

from tuneproof.judge.v1 import judge_pb2 as pb
from tuneproof.judge.v1 import judge_pb2_grpc
from tuneproof.rubrics import RubricShelf
from tuneproof.servicekit.batch import answer_each
from tuneproof.servicekit.errors import AlreadyExists, InvalidInput
from tuneproof.servicekit.messages import message_of, value_from
from tuneproof.servicekit.paging import page
from tuneproof_judge.drafting import StepsTask
from tuneproof_judge.grade import Grade as GradeValue
from tuneproof_judge.grade import Usage
from tuneproof_judge.grading import Grader
from tuneproof_judge.messages import comparison_to_proto, grade_to_proto, pair_of, task_of
from tuneproof_judge.pairs import Comparison
from tuneproof_judge.prices import Prices

Context = grpc.aio.ServicerContext[Any, Any]

RequestT = TypeVar("RequestT", pb.GradeBatchRequest, pb.CompareBatchRequest)
ResponseT = TypeVar("ResponseT", pb.GradeBatchResponse, pb.CompareBatchResponse)


class JudgeServicer(judge_pb2_grpc.JudgeServiceServicer):
    """JudgeService on a grader and a shelf.

    Args:
        batch_concurrency: most items of one stream in flight.
        prices: what tokens cost; without it no reply tells a price.
    """

    def __init__(
        self,
        grader: Grader,
        rubrics: RubricShelf,
        *,
        batch_concurrency: int,
        prices: Prices | None = None,
    ) -> None:
        self._grader = grader
        self._prices = prices
        self._rubrics = rubrics
        self._batch_concurrency = batch_concurrency

    async def Grade(self, request: pb.GradeRequest, context: Context) -> pb.GradeResponse:
        grade = await self._grader.grade(task_of(request), deadline=_deadline(context))
        return pb.GradeResponse(grade=self._graded(grade))

    async def GradeBatch(
        self, request_iterator: AsyncIterator[pb.GradeBatchRequest], context: Context
    ) -> AsyncIterator[pb.GradeBatchResponse]:
        deadline = _deadline(context)

        async def grade(request: pb.GradeBatchRequest) -> pb.GradeBatchResponse:
            found = await self._grader.grade(task_of(request.grade), deadline=deadline)
            return pb.GradeBatchResponse(id=request.id, result=self._graded(found))

        async for response in self._each(request_iterator, grade, pb.GradeBatchResponse):
            yield response

    def _each(
        self,
        requests: AsyncIterator[RequestT],
        answer: Callable[[RequestT], Awaitable[ResponseT]],
        response: Callable[..., ResponseT],
    ) -> AsyncIterator[ResponseT]:
        """Answers each item of a stream, which must have an id of its own."""
        seen: set[str] = set()

        async def checked(request: RequestT) -> ResponseT:
            if not request.id:
                raise InvalidInput(
                    "id is empty: give each item one, since answers come in any order", field="id"
                )
            if request.id in seen:
                raise AlreadyExists(f"the id {request.id[:100]!r} came before in this stream")
            seen.add(request.id)
            return await answer(request)

        def refuse(request: RequestT, status: status_pb2.Status) -> ResponseT:
            return response(id=request.id, error=status)

        return answer_each(requests, checked, refuse, concurrency=self._batch_concurrency)

    async def Compare(self, request: pb.CompareRequest, context: Context) -> pb.CompareResponse:
        found = await self._grader.compare(pair_of(request), deadline=_deadline(context))
        return pb.CompareResponse(comparison=self._compared(found))

    async def CompareBatch(
        self, request_iterator: AsyncIterator[pb.CompareBatchRequest], context: Context
    ) -> AsyncIterator[pb.CompareBatchResponse]:
        deadline = _deadline(context)

        async def compare(request: pb.CompareBatchRequest) -> pb.CompareBatchResponse:
            found = await self._grader.compare(pair_of(request.compare), deadline=deadline)
            return pb.CompareBatchResponse(id=request.id, result=self._compared(found))

        async for response in self._each(request_iterator, compare, pb.CompareBatchResponse):
            yield response

    async def DraftSteps(
        self, request: pb.DraftStepsRequest, context: Context
    ) -> pb.DraftStepsResponse:
        task = value_from(StepsTask, request, scale=dict(request.scale))
        draft = await self._grader.draft(task, deadline=_deadline(context))
        usage = self._usage(draft.usage, [(draft.judge_model, draft.usage)])
        return message_of(pb.DraftStepsResponse, draft, usage=usage)

    def _graded(self, grade: GradeValue) -> pb.Grade:
        return grade_to_proto(grade, self._usage(grade.usage, grade.usage_by_model))

    def _compared(self, found: Comparison) -> pb.Comparison:
        usage = self._usage(found.usage, [(found.judge_model, found.usage)])
        return comparison_to_proto(found, usage)

    def _usage(self, total: Usage, by_model: Sequence[tuple[str, Usage]]) -> pb.Usage:
        price = self._prices.of(by_model) if self._prices else None
        currency = self._prices.currency if self._prices and price is not None else ""
        return message_of(pb.Usage, total, price=price, currency=currency)

    async def GetRubric(self, request: pb.GetRubricRequest, _: Context) -> pb.GetRubricResponse:
        return pb.GetRubricResponse(rubric=message_of(pb.Rubric, self._rubrics.get(request.id)))

    async def ListRubrics(
        self, request: pb.ListRubricsRequest, _: Context
    ) -> pb.ListRubricsResponse:
        rubrics, token = page(
            list(self._rubrics), request.page_size, request.page_token, lambda rubric: rubric.id
        )
        return message_of(pb.ListRubricsResponse, rubrics=rubrics, next_page_token=token)


def _deadline(context: Context) -> float | None:
    """The event loop's time at which the call's time is over."""
    remaining = cast("float | None", context.time_remaining())
    return None if remaining is None else asyncio.get_running_loop().time() + remaining
