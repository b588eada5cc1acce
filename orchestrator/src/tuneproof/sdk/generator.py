"""Client of the generator: its answers, and the adapters that it serves."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Literal, overload

from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1.generator_pb2_grpc import AdapterServiceStub, GeneratorServiceStub
from tuneproof.sdk.adapters import AdapterCalls
from tuneproof.sdk.connection import seconds_of
from tuneproof.sdk.pools import PoolInfo
from tuneproof.sdk.restarts import restarted_on_loss
from tuneproof.sdk.streams import Inputs
from tuneproof.sdk.values import GenerateInput, Generation, Messages, Restarted, Sampling
from tuneproof.servicekit.errors import Internal, InvalidInput, TuneproofError
from tuneproof.servicekit.messages import message_of, value_from, values_of, word_of

_GREEDY = Sampling()


class GeneratorClient(AdapterCalls):
    """Generates, and manages adapters; see `Client` for the errors."""

    service, contract = "generator", pb.DESCRIPTOR
    stubs = GeneratorServiceStub, AdapterServiceStub

    async def pool(self, *, timeout: float = 30.0) -> PoolInfo:
        """What the replica that answers serves."""
        return value_from(PoolInfo, (await self._call(pb.GetPoolRequest(), timeout)).pool)

    @overload
    def generate(
        self,
        model: str,
        messages: Messages,
        sampling: Sampling = ...,
        *,
        timeout: float = ...,
        restart_on_loss: Literal[False] = ...,
    ) -> AsyncGenerator[str | Generation, None]: ...

    @overload
    def generate(
        self,
        model: str,
        messages: Messages,
        sampling: Sampling = ...,
        *,
        timeout: float = ...,
        restart_on_loss: bool,
    ) -> AsyncGenerator[str | Restarted | Generation, None]: ...

    def generate(
        self,
        model: str,
        messages: Messages,
        sampling: Sampling = _GREEDY,
        *,
        timeout: float = 600.0,
        restart_on_loss: bool = False,
    ) -> AsyncGenerator[str | Restarted | Generation, None]:
        """Yields pieces of the answer's text as they come, then the whole `Generation`.

        Closing the iterator stops the work in the engine.

        Args:
            model: adapter reference `name@sha256:<hex>` or alias; empty: the base model.
            timeout: seconds for the whole answer, restarts included.
            restart_on_loss: when the replica is lost in the middle of the answer, asks again with
                the same seed; one is chosen where sampling is random and has none. A `Restarted`
                comes first, then the pieces from the start. Another replica's pieces may differ:
                an engine rounds by what else is in its batch.
        """
        if not restart_on_loss:
            return self._generate(GenerateInput(messages, model, sampling), timeout)
        if sampling.temperature and sampling.seed is None:
            sampling = replace(sampling, seed=random.getrandbits(31))
        one = GenerateInput(messages, model, sampling)
        return restarted_on_loss(lambda left: self._generate(one, left), timeout=timeout)

    async def _generate(
        self, one: GenerateInput, timeout: float
    ) -> AsyncGenerator[str | Generation, None]:
        text: list[str] = []
        async with aclosing(self._replies(_request(one), timeout)) as replies:
            async for reply in replies:
                if reply.HasField("delta"):
                    text.append(reply.delta.text)
                    yield reply.delta.text
                if reply.HasField("final"):
                    yield _generation("".join(text), reply.final)
                    return
        raise Internal(f"{self._connection.peer} ended an answer without its usage")

    def generate_many(
        self,
        inputs: Inputs[GenerateInput],
        *,
        in_flight: int = 64,
        timeout: float = 24 * 3600.0,
        stall: float = 600.0,
    ) -> AsyncIterator[tuple[str, Generation | TuneproofError]]:
        """Answers many requests over one stream, in any order; see `Exchange` for the limits.

        Args:
            inputs: by id of the caller's.
        """

        return self._outcomes(
            pb.GenerateBatchRequest,
            inputs,
            lambda one: {"generate": _request(one)},
            lambda result: _generation(result.text, result.final),
            in_flight=in_flight,
            timeout=timeout,
            stall=stall,
        )


def _request(one: GenerateInput) -> pb.GenerateRequest:
    for number, message in enumerate(one.messages, 1):
        missing = {"role", "content"} - set(message)
        if missing:
            raise InvalidInput(f"message {number} lacks its {' and its '.join(sorted(missing))}")
    chat = [message_of(pb.Message, role=m["role"], content=m["content"]) for m in one.messages]
    return message_of(pb.GenerateRequest, one, chat=pb.Chat(messages=chat))


def _generation(text: str, final: pb.Final) -> Generation:
    return Generation(
        text=text,
        finish_reason=word_of(pb.FinishReason, final.finish_reason),
        stage_seconds=seconds_of(final.stage_times),
        **values_of(final.usage),
        **values_of(final.served_by),
    )
