"""A replica of a generator without an engine, as a process that a test can kill.

    python replica.py NAME HOST:PORT CONNECTION_AGE_SECONDS

Each answer's text tells which replica gives it, and the seed that it was given.
"""

from __future__ import annotations

import asyncio
import sys

from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc as stubs
from tuneproof.servicekit.calls import CallInterceptor
from tuneproof.servicekit.logs import configure_logging
from tuneproof.servicekit.server import ConnectionAge, Service, make_server

PIECES = 40
PIECE_SECONDS = 0.02


class Replica(stubs.GeneratorServiceServicer):
    """Streams pieces slowly."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def GetPool(self, request, context):
        await asyncio.sleep(PIECE_SECONDS)  # so that some are under way whenever it is killed
        return pb.GetPoolResponse(pool=pb.Pool(base_model="toy", replica=self._name))

    async def Generate(self, request, context):
        seed = request.sampling.seed if request.sampling.HasField("seed") else "none"
        yield pb.GenerateResponse(delta=pb.Delta(text=f"{self._name} {seed}:"))
        for number in range(PIECES):
            await asyncio.sleep(PIECE_SECONDS)
            yield pb.GenerateResponse(delta=pb.Delta(text=f" {number}"))
        final = pb.Final(finish_reason=pb.FINISH_REASON_STOP)
        final.served_by.replica = self._name
        yield pb.GenerateResponse(final=final)


async def serve(name: str, address: str, age: float) -> None:
    """Serves without end; says so on standard output."""

    # Nobody reads its output but the first line; a line for each call would fill the pipe.
    configure_logging("replica", level="warning", as_json=False)

    async def ready() -> None: ...

    service = Service(
        lambda server: stubs.add_GeneratorServiceServicer_to_server(Replica(name), server),
        [pb.DESCRIPTOR.services_by_name["GeneratorService"]],
        ready,
    )
    around = CallInterceptor(service.descriptors, None)
    server = make_server(service, around, 2**20, ConnectionAge(age))
    server.add_insecure_port(address)
    await server.start()
    print("serving", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], float(sys.argv[3])))
