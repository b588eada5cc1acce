"""GeneratorService: translates and delegates."""

# ruff: noqa: ARG002 - gRPC hands every method a request and a context

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import grpc
from google.rpc import status_pb2

from tuneproof.adapters import BaseIdentity
from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc
from tuneproof.servicekit.batch import answer_each
from tuneproof.servicekit.errors import Internal
from tuneproof.servicekit.messages import message_of
from tuneproof_generator.doors.translation import delta_of, final_of, request_of
from tuneproof_generator.engine.protocol import EngineFacts
from tuneproof_generator.generation import GenerationOutcome, Generator

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class PoolDescription:
    """What GetPool answers."""

    base_model: str
    """The name under which the base is served."""
    replica: str
    identity: BaseIdentity
    engine: EngineFacts
    start_time: datetime
    openai_url: str
    """Base URL of the OpenAI door."""
    live_replicas: Callable[[], Sequence[str]]
    """Gives the names of the replicas whose lease runs, this one included."""


class GeneratorServicer(generator_pb2_grpc.GeneratorServiceServicer):
    """GeneratorService on a Generator.

    Args:
        concurrency: items of one batch stream that are under way at once.
    """

    def __init__(self, generator: Generator, pool: PoolDescription, *, concurrency: int) -> None:
        self._generator = generator
        self._pool = pool
        self._concurrency = concurrency

    async def Generate(
        self, request: pb.GenerateRequest, context: Context
    ) -> AsyncIterator[pb.GenerateResponse]:
        async with aclosing(self._generator.generate(request_of(request))) as pieces:
            async for piece in pieces:
                yield pb.GenerateResponse(
                    delta=delta_of(piece),
                    final=self._final(request, piece.outcome) if piece.outcome else None,
                )

    async def GenerateBatch(
        self, request_iterator: AsyncIterator[pb.GenerateBatchRequest], context: Context
    ) -> AsyncIterator[pb.GenerateBatchResponse]:
        answers = answer_each(
            request_iterator, self._answer, _refuse, concurrency=self._concurrency
        )
        async for response in answers:
            yield response

    async def GetPool(self, request: pb.GetPoolRequest, context: Context) -> pb.GetPoolResponse:
        described = self._pool
        pool = message_of(
            pb.Pool,
            described.engine,
            **described.identity.to_json(),
            base_model=described.base_model,
            engine_version=described.engine.version,
            replica=described.replica,
            process_id=os.getpid(),
            start_time=described.start_time,
            openai_url=described.openai_url,
            live_replicas=described.live_replicas(),
        )
        return pb.GetPoolResponse(pool=pool)

    async def _answer(self, request: pb.GenerateBatchRequest) -> pb.GenerateBatchResponse:
        text: list[str] = []
        ids: list[int] = []
        async with aclosing(self._generator.generate(request_of(request.generate))) as pieces:
            async for piece in pieces:
                text.append(piece.text)
                ids.extend(piece.token_ids)
                if piece.outcome:
                    final = self._final(request.generate, piece.outcome)
                    result = pb.Generation(text="".join(text), token_ids=ids, final=final)
                    return pb.GenerateBatchResponse(id=request.id, result=result)
        raise Internal("the engine ended an answer without saying why")

    def _final(self, request: pb.GenerateRequest, outcome: GenerationOutcome) -> pb.Final:
        return final_of(
            outcome,
            base_model=self._pool.base_model,
            replica=self._pool.replica,
            with_prompt_ids=request.return_prompt_token_ids,
        )


def _refuse(
    request: pb.GenerateBatchRequest, status: status_pb2.Status
) -> pb.GenerateBatchResponse:
    return pb.GenerateBatchResponse(id=request.id, error=status)
