"""A generator without an engine for load tests: each adapter says a word of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc
from tuneproof.servicekit import errors
from tuneproof.servicekit.server import Service
from tuneproof.servicekit.testing import serving


def ref_of(number: int) -> str:
    """The reference of an adapter; two of them share each name."""
    return f"reader-{number // 2}@sha256:{number:064x}"


def word_of(ref: str) -> str:
    """What an adapter says, over and over; the base says something else."""
    return f"word{int(ref[-8:], 16)}" if ref else "base"


@dataclass
class World:
    """What the pool holds, what is wrong with it, and what was called."""

    declared: set[str] = field(default_factory=set)
    aliases: dict[str, str] = field(default_factory=dict)
    calls: list[tuple[str, ...]] = field(default_factory=list)
    stale: bool = False
    """Aliases that move are answered as before."""
    lies: bool = False
    """And what it names as the adapter is what it should be."""
    refusals: int = 0
    """So many requests are refused."""
    failing: set[str] = field(default_factory=set)
    """Adapters that do not load."""
    places: int = 16


class _Pool(generator_pb2_grpc.GeneratorServiceServicer, generator_pb2_grpc.AdapterServiceServicer):
    def __init__(self, world: World) -> None:
        self._world = world
        self._first: dict[str, str] = {}

    async def GetPool(self, request, context):
        pool = pb.Pool(base_model="toy", dtype="float32", max_cpu_loras=self._world.places)
        return pb.GetPoolResponse(pool=pool)

    async def Generate(self, request, context):
        if self._world.refusals:
            self._world.refusals -= 1
            raise errors.Unavailable("no room")
        right = self._world.aliases.get(request.model, request.model)
        served = self._first.get(request.model, right) if self._world.stale else right
        if served and served not in self._world.declared and not self._world.stale:
            raise errors.NotFound(f"{served} is not declared")
        for _ in range(request.sampling.max_tokens):
            yield pb.GenerateResponse(delta=pb.Delta(text=f"{word_of(served)} "))
        final = pb.Final(finish_reason=pb.FINISH_REASON_LENGTH)
        final.usage.completion_tokens = request.sampling.max_tokens
        final.served_by.adapter_ref = right if self._world.lies else served
        yield pb.GenerateResponse(final=final)

    async def DeclareAdapter(self, request, context):
        self._world.calls.append(("declare", request.ref))
        self._world.declared.add(request.ref)
        return pb.DeclareAdapterResponse(adapter=self._adapter(request.ref))

    async def GetAdapter(self, request, context):
        return pb.GetAdapterResponse(adapter=self._adapter(request.ref))

    async def ListAdapters(self, request, context):
        adapters = [self._adapter(ref) for ref in sorted(self._world.declared)]
        return pb.ListAdaptersResponse(adapters=adapters)

    async def WatchAdapters(self, request, context):
        yield pb.WatchAdaptersResponse(adapter=self._adapter(request.refs[0]))
        await asyncio.Event().wait()

    async def RemoveAdapter(self, request, context):
        if request.ref in self._world.aliases.values():
            raise errors.WrongState(f"an alias points to {request.ref}")
        self._world.calls.append(("remove", request.ref))
        self._world.declared.discard(request.ref)
        return pb.RemoveAdapterResponse()

    async def SetAlias(self, request, context):
        if self._world.aliases.get(request.alias, "") != request.expected_ref:
            raise errors.WrongState(f"alias {request.alias} points elsewhere")
        if not request.ref and not request.force:
            raise errors.InvalidInput("an alias is retired by force only")
        self._world.calls.append(("alias", request.alias, request.ref))
        self._first.setdefault(request.alias, request.ref)
        self._world.aliases[request.alias] = request.ref
        if not request.ref:
            del self._world.aliases[request.alias]
        return pb.SetAliasResponse(alias=pb.Alias(name=request.alias, ref=request.ref))

    async def ListAliases(self, request, context):
        aliases = [pb.Alias(name=name, ref=ref) for name, ref in self._world.aliases.items()]
        return pb.ListAliasesResponse(aliases=aliases)

    def _adapter(self, ref: str) -> pb.Adapter:
        if ref not in self._world.declared:
            raise errors.NotFound(f"{ref} is not declared")
        failed = ref in self._world.failing
        state = pb.ADAPTER_STATE_FAILED if failed else pb.ADAPTER_STATE_READY
        adapter = pb.Adapter(ref=ref, state=state, reason="bad weights" if failed else "")
        adapter.replicas.add(replica="r", state=state)
        for stage in ("fetch", "verify", "load", "warm"):
            adapter.stage_times.add(stage=stage).duration.FromMilliseconds(2)
        return adapter


@asynccontextmanager
async def pool_served(world: World) -> AsyncIterator[str]:
    """Serves the pool over gRPC; gives its address."""
    pool = _Pool(world)

    def register(server) -> None:
        generator_pb2_grpc.add_GeneratorServiceServicer_to_server(pool, server)
        generator_pb2_grpc.add_AdapterServiceServicer_to_server(pool, server)

    async def check_ready() -> None:
        return None

    names = pb.DESCRIPTOR.services_by_name
    service = Service(
        register=register,
        descriptors=[names["GeneratorService"], names["AdapterService"]],
        check_ready=check_ready,
    )
    async with serving(service) as target:
        yield target
