"""A pool of two replicas in this process: the generator's own, on engines in memory."""

from __future__ import annotations

import importlib
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tuneproof.adapters import AdapterRef
from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc as stubs
from tuneproof.servicekit.calls import CallInterceptor
from tuneproof.servicekit.server import Service, add_port, make_server
from tuneproof_generator.doors.adapter_servicer import AdapterServicer

from ..rendering import ROOT

sys.path.append(str(ROOT))  # The parts of other tests are named from there.
_fleet = importlib.import_module("services.generator.tests.fleet")


class TwoReplicas:
    """`first` has a door; `second` follows when the test says so.

    Args:
        bind: where the door listens.
    """

    def __init__(self, first: Any, second: Any, clock: Any, bind: str) -> None:
        self.first, self.second, self._clock, self._bind = first, second, clock, bind
        self._server: Any = None

    async def open(self) -> None:
        """Lets callers in."""
        pool, first = self.first.pool, self.first

        class Generator(stubs.GeneratorServiceServicer):
            async def GetPool(self, request, context):
                return pb.GetPoolResponse(pool=pb.Pool(live_replicas=first.replicas.live()))

        def register(server: Any) -> None:
            stubs.add_AdapterServiceServicer_to_server(AdapterServicer(pool), server)
            stubs.add_GeneratorServiceServicer_to_server(Generator(), server)

        async def ready() -> None: ...

        service = Service(register, list(pb.DESCRIPTOR.services_by_name.values()), ready)
        self._server = make_server(service, CallInterceptor(service.descriptors, None), 2**20)
        add_port(self._server, self._bind, None)
        await self._server.start()

    async def close(self) -> None:
        """Lets nobody in any more, and breaks off who is in."""
        await self._server.stop(None)

    async def follow(self) -> None:
        """The second replica reads what is declared, serves it, and the first hears of it."""
        await self.second.pool.reconciler.reconcile()
        for ref in list(self.second.pool.views.statuses()):
            await self.second.settled(AdapterRef.parse(ref))
        await self.tell()

    async def tell(self) -> None:
        """Both write their statuses and read the other's."""
        for each in (self.second, self.first, self.second):
            await each.tell()
            await each.pool.reconciler.reconcile()

    async def end_second(self) -> None:
        """The second replica falls silent; its lease ends."""
        await self.first.pool.reconciler.reconcile()
        self._clock.seconds += 60
        await self.first.pool.reconciler.reconcile()
        await self.first.tell()


@asynccontextmanager
async def two_replicas(root: Path, bind: str) -> AsyncIterator[TwoReplicas]:
    """Both with a door that is open."""
    clock = _fleet.MovedClock()
    async with AsyncExitStack() as stack:
        members = [
            await stack.enter_async_context(_fleet.member(root, name, clock))
            for name in ("r1", "r2")
        ]
        pool = TwoReplicas(*members, clock, bind)
        await pool.tell()
        await pool.open()
        try:
            yield pool
        finally:
            await pool.close()
