"""AdapterService: translates and delegates."""

# ruff: noqa: ARG002 - gRPC hands every method a request and a context

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from tuneproof.adapters import AdapterRef
from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc
from tuneproof.servicekit.auth import caller_of
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.paging import page
from tuneproof_generator.adapters.traffic import DRAIN_SECONDS
from tuneproof_generator.doors.translation import adapter_of, alias_of, target_of
from tuneproof_generator.engine.residency import Residency
from tuneproof_generator.pool.adapter_pool import AdapterPool

Context = grpc.aio.ServicerContext[Any, Any]

_MAX_REQUEST_ID = 128


class AdapterServicer(generator_pb2_grpc.AdapterServiceServicer):
    """AdapterService on an AdapterPool."""

    def __init__(self, pool: AdapterPool) -> None:
        self._pool = pool

    async def DeclareAdapter(
        self, request: pb.DeclareAdapterRequest, context: Context
    ) -> pb.DeclareAdapterResponse:
        _check_request_id(request.request_id)
        view = await self._pool.declare(
            AdapterRef.parse(request.ref),
            required=request.required,
            request_id=request.request_id,
            allow_no_effect=request.allow_no_effect,
            evict=request.on_full == pb.ON_FULL_EVICT_IDLE,
        )
        return pb.DeclareAdapterResponse(adapter=adapter_of(view))

    async def GetAdapter(
        self, request: pb.GetAdapterRequest, context: Context
    ) -> pb.GetAdapterResponse:
        residency = await self._pool.views.residency()
        view = self._pool.views.get(request.ref)
        where = residency.get(view.record.ref, Residency.UNKNOWN)
        return pb.GetAdapterResponse(adapter=adapter_of(view, where))

    async def ListAdapters(
        self, request: pb.ListAdaptersRequest, context: Context
    ) -> pb.ListAdaptersResponse:
        residency = await self._pool.views.residency()
        views, token = page(
            self._pool.views.list(),
            request.page_size,
            request.page_token,
            lambda view: view.record.ref,
        )
        return pb.ListAdaptersResponse(
            adapters=[
                adapter_of(view, residency.get(view.record.ref, Residency.UNKNOWN))
                for view in views
            ],
            next_page_token=token,
        )

    async def WatchAdapters(
        self, request: pb.WatchAdaptersRequest, context: Context
    ) -> AsyncIterator[pb.WatchAdaptersResponse]:
        refs = frozenset(str(AdapterRef.parse(ref)) for ref in request.refs)
        async with aclosing(self._pool.views.watch(refs)) as changes:
            async for change in changes:
                if change.view is None:
                    gone = pb.Adapter(ref=change.ref)
                    yield pb.WatchAdaptersResponse(adapter=gone, removed=True)
                else:
                    yield pb.WatchAdaptersResponse(adapter=adapter_of(change.view))

    async def RemoveAdapter(
        self, request: pb.RemoveAdapterRequest, context: Context
    ) -> pb.RemoveAdapterResponse:
        seconds = DRAIN_SECONDS
        if request.HasField("drain_timeout"):
            seconds = request.drain_timeout.ToTimedelta().total_seconds()
            if seconds < 0:
                raise InvalidInput(
                    f"drain_timeout is {seconds} s, not 0 or more", field="drain_timeout"
                )
        await self._pool.remove(AdapterRef.parse(request.ref), seconds)
        return pb.RemoveAdapterResponse()

    async def SetAlias(self, request: pb.SetAliasRequest, context: Context) -> pb.SetAliasResponse:
        _check_request_id(request.request_id)
        if request.expected_ref:
            AdapterRef.parse(request.expected_ref)
        versioned = request.HasField("expected_version")
        alias = await self._pool.routes.set(
            request.alias,
            target_of(request),
            expected_ref=request.expected_ref,
            expected_version=request.expected_version if versioned else None,
            force=request.force,
            reason=request.reason,
            request_id=request.request_id,
            set_by=caller_of(context),
        )
        return pb.SetAliasResponse(alias=alias_of(alias))

    async def ListAliases(
        self, request: pb.ListAliasesRequest, context: Context
    ) -> pb.ListAliasesResponse:
        aliases = [self._pool.routes.table[name] for name in sorted(self._pool.routes.table)]
        chosen, token = page(
            aliases, request.page_size, request.page_token, lambda alias: alias.name
        )
        return pb.ListAliasesResponse(
            aliases=[alias_of(alias) for alias in chosen], next_page_token=token
        )

    async def ListAliasVersions(
        self, request: pb.ListAliasVersionsRequest, context: Context
    ) -> pb.ListAliasVersionsResponse:
        numbers = await self._pool.routes.versions(request.alias)
        # Pages are sorted by their key, and the newest comes first.
        chosen, token = page(
            numbers[::-1], request.page_size, request.page_token, lambda n: f"{10**18 - n:018d}"
        )
        versions = await self._pool.routes.history(request.alias, chosen)
        return pb.ListAliasVersionsResponse(
            versions=[alias_of(alias) for alias in versions], next_page_token=token
        )


def _check_request_id(request_id: str) -> None:
    if len(request_id) > _MAX_REQUEST_ID:
        raise InvalidInput(
            f"request_id has {len(request_id)} characters, more than {_MAX_REQUEST_ID}",
            field="request_id",
        )
