"""Client of the generator: its answers, and the adapters that it serves."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from typing import Literal, overload

from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc
from tuneproof.sdk import generator_messages as messages_of
from tuneproof.sdk.adapters import AdapterCalls
from tuneproof.sdk.connection import Connection
from tuneproof.sdk.pools import PoolInfo
from tuneproof.sdk.restarts import restarted_on_loss
from tuneproof.sdk.streams import Exchange, Inputs
from tuneproof.sdk.values import GenerateInput, Generation, Messages, Restarted, Sampling
from tuneproof.servicekit.errors import Internal, TuneproofError
from tuneproof.servicekit.messages import value_from

_GREEDY = Sampling()


class GeneratorClient(AdapterCalls):
    """Generates, and manages adapters; an asynchronous context manager.

    Every method raises the service's own error (`InvalidInput`, `NotFound` …), `Unavailable` when
    the service cannot be reached, and `DeadlineExceeded` after `timeout` seconds.
    """

    def __init__(self, target: str, *, token: str | None = None) -> None:
        services = pb.DESCRIPTOR.services_by_name.values()
        super().__init__(Connection("generator", target, token=token, services=services))
        self._stub = generator_pb2_grpc.GeneratorServiceStub(self._connection.channel)

    async def pool(self, *, timeout: float = 30.0) -> PoolInfo:
        """What the replica that answers serves."""
        with self._connection.errors("GetPool"):
            reply = await self._stub.GetPool(pb.GetPoolRequest(), timeout=timeout)
        return value_from(PoolInfo, reply.pool)

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
        """Yields pieces of the answer's text as they come, and at last the whole `Generation`.

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
        stream = self._stub.Generate(messages_of.request(one), timeout=timeout)
        text: list[str] = []
        try:
            replies = aiter(stream)
            while True:
                with self._connection.errors("Generate"):
                    reply = await anext(replies, None)
                if reply is None:
                    raise Internal(f"{self._connection.peer} ended an answer without its usage")
                if reply.HasField("delta"):
                    text.append(reply.delta.text)
                    yield reply.delta.text
                if reply.HasField("final"):
                    yield messages_of.generation("".join(text), reply.final)
                    return
        finally:
            stream.cancel()

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

        def pack(name: str, one: GenerateInput) -> pb.GenerateBatchRequest:
            return pb.GenerateBatchRequest(id=name, generate=messages_of.request(one))

        def unpack(result: pb.Generation) -> Generation:
            return messages_of.generation(result.text, result.final)

        exchange = Exchange(
            *(self._connection, "GenerateBatch", self._stub.GenerateBatch, pack, unpack),
            in_flight=in_flight,
            timeout=timeout,
            stall=stall,
        )
        return exchange.outcomes(inputs)
