"""Generators' pools without an engine, in a process: the contract's states, capacity and aliases.

    python fake_pool.py COUNT

It prints so many addresses, each of a pool of its own, then serves without end. What a test wants
to go wrong, it says by names: adapters called `bad…` fail, an alias called `lossy…` loses the
answers to a rollback, and someone else changes the canary of `busy…` when its history was read.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime

from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc as stubs
from tuneproof.servicekit import errors
from tuneproof.servicekit.calls import CallInterceptor
from tuneproof.servicekit.logs import configure_logging
from tuneproof.servicekit.paging import page
from tuneproof.servicekit.server import Service, make_server

CAPACITY = 4
STAGES = (
    ("fetch", pb.ADAPTER_STATE_FETCHING),
    ("verify", pb.ADAPTER_STATE_VERIFYING),
    ("load", pb.ADAPTER_STATE_LOADING),
)
STEP_SECONDS = 0.01


class Pool(stubs.GeneratorServiceServicer, stubs.AdapterServiceServicer):
    """One replica called `r1`."""

    def __init__(self) -> None:
        self._adapters: dict[str, pb.Adapter] = {}
        self._versions: dict[str, list[pb.Alias]] = {}
        self._watchers: dict[asyncio.Queue[pb.WatchAdaptersResponse], set[str]] = {}
        self._loading: set[asyncio.Task[None]] = set()

    async def GetPool(self, request, context):
        pool = pb.Pool(base_model="toy", replica="r1", max_cpu_loras=CAPACITY, live_replicas=["r1"])
        return pb.GetPoolResponse(pool=pool)

    async def DeclareAdapter(self, request, context):
        ref = request.ref
        if ref not in self._adapters:
            if len(self._adapters) >= CAPACITY:
                self._make_room(request.on_full)
            self._adapters[ref] = pb.Adapter(ref=ref, required=request.required)
            self._move(ref, pb.ADAPTER_STATE_PENDING)
            self._loading.add(asyncio.create_task(self._load(ref)))
        return pb.DeclareAdapterResponse(adapter=self._adapters[ref])

    def _make_room(self, on_full) -> None:
        idle = next((ref for ref in self._adapters if not self._aliases_of(ref)), None)
        if on_full != pb.ON_FULL_EVICT_IDLE or idle is None:
            held = ", ".join(self._adapters)
            raise errors.Overloaded(f"all {CAPACITY} adapters are held: {held}", retry_after=10.0)
        self._remove(idle)

    async def _load(self, ref: str) -> None:
        adapter = self._adapters[ref]
        # Nothing happens unseen, or a test could not say what its watch must see.
        while not any(not refs or ref in refs for refs in self._watchers.values()):
            await asyncio.sleep(STEP_SECONDS)
        for stage, state in STAGES:
            self._move(ref, state)
            await asyncio.sleep(STEP_SECONDS)
            adapter.stage_times.add(stage=stage).duration.FromMilliseconds(10)
            if ref.startswith("bad") and stage == "verify":
                self._move(ref, pb.ADAPTER_STATE_FAILED, "tensor q holds NaN")
                return
        adapter.rank, adapter.size_bytes = 8, 2**20
        self._move(ref, pb.ADAPTER_STATE_READY)

    def _move(self, ref: str, state, reason: str = "") -> None:
        adapter = self._adapters[ref]
        adapter.state, adapter.reason = state, reason
        del adapter.replicas[:]
        adapter.replicas.add(replica="r1", state=state, reason=reason)
        change = adapter.transitions.add(state=state, reason=reason)
        change.time.FromDatetime(datetime.now(UTC))
        self._tell(adapter)

    def _tell(self, adapter: pb.Adapter, *, removed: bool = False) -> None:
        said = pb.Adapter()
        said.CopyFrom(adapter)
        for queue in self._watchers:
            queue.put_nowait(pb.WatchAdaptersResponse(adapter=said, removed=removed))

    async def GetAdapter(self, request, context):
        versions = self._versions.get(request.ref)
        return pb.GetAdapterResponse(
            adapter=self._known(versions[0].ref if versions else request.ref)
        )

    def _known(self, ref: str) -> pb.Adapter:
        if ref not in self._adapters:
            raise errors.NotFound(f"adapter {ref} is not declared")
        adapter = self._adapters[ref]
        adapter.aliases[:] = self._aliases_of(ref)
        return adapter

    def _aliases_of(self, ref: str) -> list[str]:
        aliases = self._versions.items()
        return [name for name, versions in aliases if versions and versions[0].ref == ref]

    async def ListAdapters(self, request, context):
        adapters = [self._known(ref) for ref in sorted(self._adapters)]
        some, token = page(adapters, 1, request.page_token, lambda adapter: adapter.ref)
        return pb.ListAdaptersResponse(adapters=some, next_page_token=token)

    async def WatchAdapters(self, request, context):
        queue: asyncio.Queue[pb.WatchAdaptersResponse] = asyncio.Queue()
        self._watchers[queue] = set(request.refs)
        try:
            for adapter in self._adapters.values():
                queue.put_nowait(pb.WatchAdaptersResponse(adapter=adapter))
            while True:
                change = await queue.get()
                if not request.refs or change.adapter.ref in request.refs:
                    yield change
        finally:
            del self._watchers[queue]

    async def RemoveAdapter(self, request, context):
        if names := self._aliases_of(request.ref):
            raise errors.WrongState(f"alias {names[0]} points to {request.ref}; move it first")
        self._remove(request.ref)
        return pb.RemoveAdapterResponse()

    def _remove(self, ref: str) -> None:
        if self._adapters.pop(ref, None) is not None:
            self._tell(pb.Adapter(ref=ref), removed=True)

    async def SetAlias(self, request, context):
        versions = self._versions.setdefault(request.alias, [])
        current = versions[0].ref if versions else ""
        versioned = request.HasField("expected_version")
        if current != request.expected_ref or (
            versioned and request.expected_version != len(versions)
        ):
            raise errors.WrongState(
                f"alias {request.alias} points to {current or 'nothing'} at version"
                f" {len(versions)}, not {request.expected_ref or 'nothing'} as expected",
                reason="ALIAS_MOVED",
                **({"current_ref": current} if current else {}),
            )
        for ref in filter(None, (request.ref, request.canary_ref)):
            adapter = self._adapters.get(ref)
            ready = adapter is not None and adapter.state == pb.ADAPTER_STATE_READY
            if not ready and not request.force:
                raise errors.WrongState(f"adapter {ref} is not READY on r1")
        alias = pb.Alias(
            name=request.alias,
            ref=request.ref,
            version=len(versions) + 1,
            reason=request.reason,
            set_by="ci",
            canary_ref=request.canary_ref,
            canary_percent=request.canary_percent,
        )
        alias.set_time.FromDatetime(datetime.now(UTC))
        versions.insert(0, alias)
        if request.alias.startswith("lossy") and request.reason.startswith("rollback"):
            raise errors.Unavailable("the replica stops")
        return pb.SetAliasResponse(alias=alias)

    async def ListAliases(self, request, context):
        aliases = [versions[0] for _, versions in sorted(self._versions.items()) if versions]
        return pb.ListAliasesResponse(aliases=aliases)

    async def ListAliasVersions(self, request, context):
        if not self._versions.get(request.alias):
            raise errors.NotFound(f"there is no alias {request.alias}")
        some, token = page(
            self._versions[request.alias],
            1,
            request.page_token,
            lambda alias: f"{1000 - alias.version}",
        )
        if request.alias.startswith("busy") and not token:
            self._change_canary(self._versions[request.alias])
        return pb.ListAliasVersionsResponse(versions=some, next_page_token=token)

    def _change_canary(self, versions: list[pb.Alias]) -> None:
        alias = pb.Alias()
        alias.CopyFrom(versions[0])
        alias.version, alias.canary_percent = alias.version + 1, alias.canary_percent + 1
        versions.insert(0, alias)


async def serve(count: int) -> None:
    """Serves without end."""
    configure_logging("pool", level="warning", as_json=False)
    servers = [_server(Pool()) for _ in range(count)]
    addresses = [f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}" for server in servers]
    for server in servers:
        await server.start()
    print(*addresses, flush=True)
    await asyncio.Event().wait()


def _server(pool: Pool):
    async def ready() -> None: ...

    def register(server) -> None:
        stubs.add_GeneratorServiceServicer_to_server(pool, server)
        stubs.add_AdapterServiceServicer_to_server(pool, server)

    service = Service(register, list(pb.DESCRIPTOR.services_by_name.values()), ready)
    return make_server(service, CallInterceptor(service.descriptors, None), 2**20)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
