"""For tests: a service in this process, with all that surrounds the calls of a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tuneproof.servicekit.auth import Tokens
from tuneproof.servicekit.calls import CallInterceptor, Limits
from tuneproof.servicekit.server import ConnectionAge, Service, make_server

_MAX_MESSAGE_BYTES = 16 * 2**20


@asynccontextmanager
async def serving(
    service: Service,
    *,
    tokens: Tokens | None = None,
    limits: Limits | None = None,
    age: ConnectionAge | None = None,
) -> AsyncIterator[str]:
    """Serves on a free loopback port; gives the target `host:port`."""
    around = CallInterceptor(service.descriptors, tokens, limits or Limits())
    server = make_server(service, around, _MAX_MESSAGE_BYTES, age or ConnectionAge())
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        around.end_watchers()
        await server.stop(0.5)
