"""Client of the generator: its answers, and the adapters that it serves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from uuid import uuid4

from google.protobuf.duration_pb2 import Duration

from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc
from tuneproof.sdk import generator_messages as messages_of
from tuneproof.sdk.connection import Client, Connection, all_pages
from tuneproof.sdk.readiness import until_ready
from tuneproof.sdk.streams import Exchange, Inputs
from tuneproof.sdk.values import (
    AdapterInfo,
    AliasInfo,
    GenerateInput,
    Generation,
    Messages,
    PoolInfo,
    Sampling,
)
from tuneproof.servicekit.errors import Internal, NotFound, TuneproofError

_GREEDY = Sampling()


class GeneratorClient(Client):
    """Generates, and manages adapters; an asynchronous context manager.

    Every method raises the service's own error (`InvalidInput`, `NotFound` …), `Unavailable` when
    the service cannot be reached, and `DeadlineExceeded` after `timeout` seconds.
    """

    def __init__(self, target: str, *, token: str | None = None) -> None:
        super().__init__(Connection("generator", target, token=token, contract=pb.DESCRIPTOR))
        self._stub = generator_pb2_grpc.GeneratorServiceStub(self._connection.channel)
        self._adapters = generator_pb2_grpc.AdapterServiceStub(self._connection.channel)

    async def pool(self, *, timeout: float = 30.0) -> PoolInfo:
        """What the replica that answers serves."""
        with self._connection.errors("GetPool"):
            reply = await self._stub.GetPool(pb.GetPoolRequest(), timeout=timeout)
        return messages_of.pool(reply.pool)

    async def generate(
        self,
        model: str,
        messages: Messages,
        sampling: Sampling = _GREEDY,
        *,
        timeout: float = 600.0,
    ) -> AsyncIterator[str | Generation]:
        """Yields pieces of the answer's text as they come, and at last the whole `Generation`.

        Closing the iterator stops the work in the engine.

        Args:
            model: adapter reference `name@sha256:<hex>` or alias; empty: the base model.
        """
        request = messages_of.request(GenerateInput(messages, model, sampling))
        stream = self._stub.Generate(request, timeout=timeout)
        text: list[str] = []
        try:
            replies = aiter(stream)
            while True:
                with self._connection.errors("Generate"):
                    reply = await anext(replies, None)
                if reply is None:
                    raise Internal(f"{self._connection.peer} ended an answer without its usage")
                if reply.WhichOneof("event") == "final":
                    yield messages_of.generation("".join(text), reply.final)
                    return
                text.append(reply.delta.text)
                yield reply.delta.text
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

    async def declare(
        self, ref: str, *, required: bool = False, timeout: float = 60.0
    ) -> AdapterInfo:
        """Adds an adapter of the registry to the pool; returns at once.

        Args:
            ref: `name@sha256:<hex>`.
            required: the service's readiness waits for it.
        """
        request = pb.DeclareAdapterRequest(ref=ref, required=required, request_id=uuid4().hex)
        with self._connection.errors("DeclareAdapter"):
            reply = await self._adapters.DeclareAdapter(request, timeout=timeout)
        return messages_of.adapter(reply.adapter)

    async def wait_ready(
        self,
        ref: str,
        *,
        timeout: float = 600.0,
        on_change: Callable[[AdapterInfo], None] | None = None,
    ) -> AdapterInfo:
        """Waits until every live replica serves a declared adapter.

        Args:
            on_change: is told each new state.

        Raises:
            WrongState: when the adapter failed; the message holds the reason.
            NotFound: when it is not declared, or is removed meanwhile.
            Unavailable: when the service is away at the end of the time.
            DeadlineExceeded: when it is not ready within `timeout` seconds; names its last state.
        """
        return await until_ready(
            ref, lambda: self._changes(ref, timeout), timeout=timeout, on_change=on_change
        )

    async def _changes(self, ref: str, timeout: float) -> AsyncIterator[AdapterInfo]:
        """The adapter as it is, then each change."""
        yield await self.adapter(ref)
        stream = self._adapters.WatchAdapters(pb.WatchAdaptersRequest(refs=[ref]), timeout=timeout)
        try:
            replies = aiter(stream)
            while True:
                with self._connection.errors("WatchAdapters"):
                    reply = await anext(replies, None)
                if reply is None:
                    return
                if reply.removed:
                    raise NotFound(f"adapter {ref} was removed while it was waited for")
                yield messages_of.adapter(reply.adapter)
        finally:
            stream.cancel()

    async def adapter(self, ref: str, *, timeout: float = 30.0) -> AdapterInfo:
        """An adapter by reference or alias."""
        with self._connection.errors("GetAdapter"):
            reply = await self._adapters.GetAdapter(pb.GetAdapterRequest(ref=ref), timeout=timeout)
        return messages_of.adapter(reply.adapter)

    async def adapters(self, *, timeout: float = 30.0) -> list[AdapterInfo]:
        """All adapters of the pool, by name."""

        async def read(token: str) -> tuple[list[AdapterInfo], str]:
            with self._connection.errors("ListAdapters"):
                reply = await self._adapters.ListAdapters(
                    pb.ListAdaptersRequest(page_token=token), timeout=timeout
                )
            return [messages_of.adapter(one) for one in reply.adapters], reply.next_page_token

        return await all_pages(read)

    async def remove(
        self, ref: str, *, drain_seconds: float | None = None, timeout: float = 120.0
    ) -> None:
        """Takes an adapter out of the pool, after its running requests.

        Args:
            drain_seconds: how long these may take before they are aborted; None: 30 s.
        """
        request = pb.RemoveAdapterRequest(ref=ref)
        if drain_seconds is not None:
            drain = Duration()
            drain.FromTimedelta(timedelta(seconds=drain_seconds))
            request.drain_timeout.CopyFrom(drain)
        with self._connection.errors("RemoveAdapter"):
            await self._adapters.RemoveAdapter(request, timeout=timeout)

    async def set_alias(
        self,
        alias: str,
        ref: str,
        *,
        expected_ref: str = "",
        force: bool = False,
        reason: str = "",
        timeout: float = 30.0,
    ) -> AliasInfo:
        """Points an alias to an adapter.

        Args:
            expected_ref: where the alias points now; empty: it does not exist.
            force: even if the adapter is not ready.
            reason: who and why.

        Raises:
            WrongState: when the alias points elsewhere, or the adapter is not ready.
        """
        request = pb.SetAliasRequest(
            alias=alias,
            ref=ref,
            expected_ref=expected_ref,
            force=force,
            reason=reason,
            request_id=uuid4().hex,
        )
        with self._connection.errors("SetAlias"):
            reply = await self._adapters.SetAlias(request, timeout=timeout)
        return messages_of.alias(reply.alias)

    async def aliases(self, *, timeout: float = 30.0) -> list[AliasInfo]:
        """All aliases, by name."""

        async def read(token: str) -> tuple[list[AliasInfo], str]:
            with self._connection.errors("ListAliases"):
                reply = await self._adapters.ListAliases(
                    pb.ListAliasesRequest(page_token=token), timeout=timeout
                )
            return [messages_of.alias(one) for one in reply.aliases], reply.next_page_token

        return await all_pages(read)
