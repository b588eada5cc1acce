"""The HTTP server of the OpenAI API: its socket, its certificates, and who may call it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tuneproof.servicekit.auth import Authenticator
from tuneproof.servicekit.errors import Forbidden, InvalidInput, TuneproofError, Unauthenticated
from tuneproof.servicekit.server import Guard
from tuneproof.servicekit.settings import join_address

_CODES = {Unauthenticated: 401, Forbidden: 403}


def listen(bind: tuple[str, int]) -> socket.socket:
    """A bound socket that does not accept yet: a port in use is noticed before the engine starts.

    Raises:
        InvalidInput: when the address cannot be bound.
    """
    host, port = bind
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    door = socket.socket(family, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((host, port))
    except OSError as error:
        door.close()
        raise InvalidInput(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another openai_bind"
        ) from None
    return door


def url_of(door: socket.socket, *, secure: bool) -> str:
    """The base URL for OpenAI clients."""
    host, port = door.getsockname()[:2]
    return f"{'https' if secure else 'http'}://{join_address(host, port)}/v1"


def guarded(app: Starlette, guard: Guard) -> None:
    """Makes an app refuse callers who may not use this service."""
    if guard.authenticator is not None:
        app.add_middleware(_Authenticates, authenticator=guard.authenticator)


class _Authenticates:
    def __init__(self, app: ASGIApp, authenticator: Authenticator) -> None:
        self._app = app
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            header = Headers(scope=scope).get("authorization", "")
            await self._authenticator.check(header, needs="use")
        except TuneproofError as error:
            code = _CODES.get(type(error), 503)
            content = {"error": {"message": error.message, "type": "authentication", "code": code}}
            await JSONResponse(content, code)(scope, receive, send)
            return
        await self._app(scope, receive, send)


class _Server(uvicorn.Server):
    """Without handlers of signals: they are the service's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(
    app: Starlette,
    door: socket.socket,
    guard: Guard,
    *,
    keep_alive_seconds: int,
    drain_seconds: float,
) -> AsyncIterator[None]:
    """Serves an app until the context ends, then lets running requests end."""
    context = guard.tls.context() if guard.tls else None
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=keep_alive_seconds,
        timeout_graceful_shutdown=max(1, round(drain_seconds)),
        ssl_context_factory=(lambda *_: context) if context else None,
    )
    server = _Server(config)
    running = asyncio.create_task(server.serve(sockets=[door]))
    try:
        yield
    finally:
        server.should_exit = True
        await running
