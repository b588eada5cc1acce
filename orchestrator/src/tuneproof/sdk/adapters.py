"""The generator's calls on adapters and aliases."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

from google.protobuf.duration_pb2 import Duration

from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc
from tuneproof.sdk import generator_messages as messages_of
from tuneproof.sdk.connection import Client, Connection, all_pages
from tuneproof.sdk.pools import AdapterInfo, AliasInfo
from tuneproof.sdk.readiness import until_ready
from tuneproof.servicekit.messages import value_from, value_of


class AdapterCalls(Client):
    """Declares, watches and removes adapters, and points aliases to them."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._adapters = generator_pb2_grpc.AdapterServiceStub(connection.channel)

    async def declare(
        self,
        ref: str,
        *,
        required: bool = False,
        on_full: str = "refuse",
        timeout: float = 60.0,
    ) -> AdapterInfo:
        """Adds an adapter of the registry to the pool; returns at once.

        Args:
            ref: `name@sha256:<hex>`.
            required: the service's readiness waits for it.
            on_full: when the capacity is used up: `refuse`, or `evict_idle`, which evicts the
                adapter that has been idle for longest.

        Raises:
            Overloaded: when the capacity is used up; names the limit and the adapters here.
        """
        request = pb.DeclareAdapterRequest(
            ref=ref,
            required=required,
            request_id=uuid4().hex,
            on_full=value_of(pb.OnFull, on_full),
        )
        with self._connection.errors("DeclareAdapter"):
            reply = await self._adapters.DeclareAdapter(request, timeout=timeout)
        return messages_of.adapter(reply.adapter)

    async def wait_ready(
        self,
        ref: str,
        *,
        timeout: float = 600.0,
        away_seconds: float | None = None,
        on_change: Callable[[AdapterInfo], None] | None = None,
    ) -> AdapterInfo:
        """Waits until every live replica serves a declared adapter.

        Args:
            away_seconds: how long the service may be away meanwhile; None: as long as `timeout`.
            on_change: is told each new state.

        Raises:
            WrongState: when the adapter failed; the message holds the reason.
            NotFound: when it is not declared, or is removed meanwhile.
            Unavailable: when the service is away for so long, or at the end of the time.
            DeadlineExceeded: when it is not ready within `timeout` seconds; names its last state.
        """
        return await until_ready(
            ref,
            lambda: self._changes(ref, timeout),
            timeout=timeout,
            away_seconds=timeout if away_seconds is None else away_seconds,
            on_change=on_change,
        )

    async def _changes(self, ref: str, timeout: float) -> AsyncGenerator[AdapterInfo, None]:
        """The adapter as it is, then each change."""
        yield await self.adapter(ref)
        async with aclosing(self.watch([ref], timeout=timeout)) as changes:
            async for change in changes:
                yield change

    async def watch(
        self, refs: Sequence[str] = (), *, timeout: float = 24 * 3600.0
    ) -> AsyncGenerator[AdapterInfo, None]:
        """Yields the adapters as they are on the replica that answers, then each change.

        Args:
            refs: only these; none: all.

        Raises:
            Unavailable: when the replica ends; watch again, at another one.
        """
        stream = self._adapters.WatchAdapters(pb.WatchAdaptersRequest(refs=refs), timeout=timeout)
        try:
            replies = aiter(stream)
            while True:
                with self._connection.errors("WatchAdapters"):
                    reply = await anext(replies, None)
                if reply is None:
                    return
                adapter = messages_of.adapter(reply.adapter)
                yield replace(adapter, state="removed") if reply.removed else adapter
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
        expected_version: int | None = None,
        force: bool = False,
        reason: str = "",
        canary_ref: str = "",
        canary_percent: int = 0,
        timeout: float = 30.0,
    ) -> AliasInfo:
        """Points an alias to an adapter, or in parts to two.

        Args:
            ref: empty, with `force`: the alias is retired, and points nowhere.
            expected_ref: where the alias points now; empty: nowhere.
            expected_version: the alias's newest version, 0: it was never set; None: not compared.
                Tells two changes of the canary apart, which `expected_ref` does not.
            force: even if the adapter is not ready.
            reason: why, as the digest of a gate's report.
            canary_ref: a second adapter, that serves `canary_percent` (1 to 99) of the requests.

        Raises:
            WrongState: when the alias is not as expected, or the adapter is not ready.
        """
        request = pb.SetAliasRequest(
            alias=alias,
            ref=ref,
            expected_ref=expected_ref,
            expected_version=expected_version,
            force=force,
            reason=reason,
            canary_ref=canary_ref,
            canary_percent=canary_percent,
            request_id=uuid4().hex,
        )
        with self._connection.errors("SetAlias"):
            reply = await self._adapters.SetAlias(request, timeout=timeout)
        return value_from(AliasInfo, reply.alias)

    async def aliases(self, *, timeout: float = 30.0) -> list[AliasInfo]:
        """All aliases, by name."""

        async def read(token: str) -> tuple[list[AliasInfo], str]:
            with self._connection.errors("ListAliases"):
                reply = await self._adapters.ListAliases(
                    pb.ListAliasesRequest(page_token=token), timeout=timeout
                )
            return [value_from(AliasInfo, one) for one in reply.aliases], reply.next_page_token

        return await all_pages(read)

    async def alias_versions(self, alias: str, *, timeout: float = 30.0) -> list[AliasInfo]:
        """What an alias was set to, the newest first.

        Raises:
            NotFound: when there is no such alias.
        """

        async def read(token: str) -> tuple[list[AliasInfo], str]:
            with self._connection.errors("ListAliasVersions"):
                reply = await self._adapters.ListAliasVersions(
                    pb.ListAliasVersionsRequest(alias=alias, page_token=token), timeout=timeout
                )
            return [value_from(AliasInfo, one) for one in reply.versions], reply.next_page_token

        return await all_pages(read)
