"""An HTTP server: its socket, its certificates, its end. Needs the extra `http`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.settings import join_address, split_address
from tuneproof.servicekit.tls import ServerTls

KEEP_ALIVE_SECONDS = 75
"""How long an idle connection stays open; longer than load balancers keep one."""


def listen(bind: str, setting: str) -> socket.socket:
    """A bound socket that does not accept yet.

    Args:
        bind: `host:port`.
        setting: its name, for the message.

    Raises:
        InvalidInput: when the address cannot be bound.
    """
    host, port = split_address(bind)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    door = socket.socket(family, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((host, port))
    except OSError as error:
        door.close()
        raise InvalidInput(
            f"cannot listen on {bind}: {error.strerror}; choose another {setting}"
        ) from None
    return door


def url_of(door: socket.socket, *, secure: bool) -> str:
    """The server's URL, without a path."""
    host, port = door.getsockname()[:2]
    return f"{'https' if secure else 'http'}://{join_address(host, port)}"


@asynccontextmanager
async def serving(
    app: Any,
    door: socket.socket,
    tls: ServerTls | None,
    *,
    keep_alive_seconds: int = KEEP_ALIVE_SECONDS,
    drain_seconds: float,
) -> AsyncIterator[None]:
    """Serves an ASGI application until the context ends, then lets running requests end."""
    import uvicorn  # noqa: PLC0415 - of an extra

    context = tls.context() if tls else None
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        timeout_keep_alive=keep_alive_seconds,
        timeout_graceful_shutdown=max(1, round(drain_seconds)),
        ssl_context_factory=(lambda *_: context) if context else None,
    )
    server = uvicorn.Server(config)
    # Signals are the service's.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    # uvicorn does so too, but after the address is announced.
    door.listen(config.backlog)
    running = asyncio.create_task(server.serve(sockets=[door]))
    try:
        yield
    finally:
        server.should_exit = True
        await running
