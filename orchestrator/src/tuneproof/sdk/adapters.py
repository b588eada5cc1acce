"""The generator's calls on adapters and aliases."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any
from uuid import uuid4

from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.sdk.client import Client
from tuneproof.sdk.connection import seconds_of
from tuneproof.sdk.pools import AdapterInfo, AliasInfo, ReplicaInfo
from tuneproof.sdk.readiness import until_ready
from tuneproof.servicekit.errors import NotFound, Unavailable
from tuneproof.servicekit.messages import message_of, value_from


class AdapterCalls(Client):
    """Declares, watches and removes adapters, and points aliases to them."""

    unknown_seconds = 15.0
    """How long a replica may not know what this client declared at another one."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._declared: dict[str, float] = {}

    async def declare(
        self,
        ref: str,
        *,
        required: bool = False,
        on_full: str = "refuse",
        allow_no_effect: bool = False,
        timeout: float = 60.0,
    ) -> AdapterInfo:
        """Adds an adapter of the registry to the pool; returns at once.

        Args:
            ref: `name@sha256:<hex>`.
            required: the service's readiness waits for it.
            on_full: when the capacity is used up: `refuse`, or `evict_idle`, which evicts the
                adapter that has been idle for longest.
            allow_no_effect: serves it even if it changes nothing.

        Raises:
            Overloaded: when the capacity is used up; names the limit and the adapters here.
        """
        request = message_of(
            pb.DeclareAdapterRequest,
            ref=ref,
            required=required,
            request_id=uuid4().hex,
            on_full=on_full,
            allow_no_effect=allow_no_effect,
        )
        declared = _adapter((await self._call(request, timeout)).adapter)
        self._declared[ref] = time.monotonic()
        return declared

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
            away_seconds: how long the service may be away; None: as long as `timeout`.
            on_change: gets each new state.

        Raises:
            WrongState: when the adapter failed; the message holds the reason.
            NotFound: when it is not declared, or somebody removes it.
            Unavailable: when the service is away for longer, or at the end of the time.
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
        try:
            now = await self.adapter(ref)
        except NotFound as error:
            if time.monotonic() - self._declared.get(ref, -math.inf) > self.unknown_seconds:
                raise
            raise Unavailable(error.message) from None
        yield now
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
        request = pb.WatchAdaptersRequest(refs=refs)
        async with aclosing(self._replies(request, timeout)) as replies:
            async for reply in replies:
                adapter = _adapter(reply.adapter)
                yield replace(adapter, state="removed") if reply.removed else adapter

    async def adapter(self, ref: str, *, timeout: float = 30.0) -> AdapterInfo:
        """An adapter by reference or alias."""
        return _adapter((await self._call(pb.GetAdapterRequest(ref=ref), timeout)).adapter)

    async def adapters(self, *, timeout: float = 30.0) -> list[AdapterInfo]:
        """All adapters of the pool, by name."""
        found = await self._entries(pb.ListAdaptersRequest(), "adapters", timeout)
        return [_adapter(each) for each in found]

    async def remove(
        self, ref: str, *, drain_seconds: float | None = None, timeout: float = 120.0
    ) -> None:
        """Takes an adapter out of the pool, after its running requests.

        Args:
            drain_seconds: how long these may take before they are aborted; None: 30 s.
        """
        request = message_of(pb.RemoveAdapterRequest, ref=ref, drain_timeout=drain_seconds)
        await self._call(request, timeout)

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
                It distinguishes two changes of the canary; `expected_ref` does not.
            force: even if the adapter is not ready.
            reason: why, as the digest of a gate's report.
            canary_ref: a second adapter, which serves `canary_percent` (1 to 99) of the requests.

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
        return value_from(AliasInfo, (await self._call(request, timeout)).alias)

    async def aliases(self, *, timeout: float = 30.0) -> list[AliasInfo]:
        """All aliases, by name."""
        found = await self._entries(pb.ListAliasesRequest(), "aliases", timeout)
        return [value_from(AliasInfo, each) for each in found]

    async def alias_versions(self, alias: str, *, timeout: float = 30.0) -> list[AliasInfo]:
        """What an alias was set to, the newest first.

        Raises:
            NotFound: when there is no such alias.
        """
        request = pb.ListAliasVersionsRequest(alias=alias)
        found = await self._entries(request, "versions", timeout)
        return [value_from(AliasInfo, each) for each in found]


def _adapter(message: pb.Adapter) -> AdapterInfo:
    return value_from(
        AdapterInfo,
        message,
        stage_seconds=seconds_of(message.stage_times),
        replicas={each.replica: value_from(ReplicaInfo, each) for each in message.replicas},
    )
