"""Who may call the OpenAI API: the same tokens as of gRPC."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tuneproof.servicekit.auth import Authenticator
from tuneproof.servicekit.errors import Forbidden, TuneproofError, Unauthenticated
from tuneproof.servicekit.server import Guard

_CODES = {Unauthenticated: 401, Forbidden: 403}


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
