"""A contract by HTTP and JSON beside gRPC: the same calls, roles, limits, errors and metrics.

    HttpDoor    which calls it takes, and by which paths
    HttpApp     those as an ASGI application
    serve_http  that on a port

One request's object is the message of the call, its reply the reply's; see `json_messages`. A
stream is taken as NDJSON, an object a line, or as a JSON list, and answered as NDJSON. `openapi`
describes all of it.

A caller that goes away cancels its call. The header Request-Timeout gives a call so many seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tuneproof.servicekit import errors
from tuneproof.servicekit.calls import CallFailed, CallInterceptor
from tuneproof.servicekit.errors import InvalidInput, TuneproofError
from tuneproof.servicekit.http_exchange import JSON, NDJSON, Exchange, parsed
from tuneproof.servicekit.http_server import listen, serving, url_of
from tuneproof.servicekit.json_messages import (
    error_json,
    json_of,
    message_from_json,
    values_of_texts,
)
from tuneproof.servicekit.openapi import document
from tuneproof.servicekit.status import status_of
from tuneproof.servicekit.tls import ServerTls

_OPENAPI = "/openapi.json"


@dataclass(frozen=True)
class Route:
    """A call's place in the door."""

    verb: str
    """GET takes the request's fields from path and query, POST from the body."""
    path: str
    """As `/v1/rubrics/{id}`."""
    method: str
    """The call's name in the contract."""
    summary: str
    """A sentence for the document."""


@dataclass(frozen=True)
class HttpDoor:
    """What of a service is served by HTTP too."""

    bind: str
    """`host:port`."""
    service: ServiceDescriptor
    servicer: Any
    """Answers; of a call's context it may use `time_remaining` only."""
    routes: Sequence[Route]
    title: str
    """Of the OpenAPI document."""

    def method(self, route: Route) -> MethodDescriptor:
        """The contract's, of a route."""
        return self.service.methods_by_name[route.method]


@dataclass(frozen=True)
class _Context:
    """A call's context as servicers see it."""

    ends: float | None
    """The event loop's time."""

    def time_remaining(self) -> float | None:
        return None if self.ends is None else self.ends - asyncio.get_running_loop().time()


class HttpApp:
    """The ASGI application of a door.

    Args:
        around: what surrounds the calls by gRPC as well.
        max_bytes: of a body; of NDJSON, of a line.
    """

    def __init__(self, door: HttpDoor, around: CallInterceptor, max_bytes: int) -> None:
        self._door = door
        self._around = around
        self._max_bytes = max_bytes
        self._document = document(door, secured=around.authenticates)
        self._paths = [(_pattern(route.path), route) for route in door.routes]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        exchange = Exchange(scope, receive, send, self._max_bytes)
        try:
            await self._answer(exchange)
        except CallFailed as failed:
            await exchange.refuse(failed.status)
        except TuneproofError as error:
            await exchange.refuse(status_of(error))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not exchange.left or task is None:
                raise
            task.uncancel()

    async def _answer(self, exchange: Exchange) -> None:
        found = [(route, match) for path, route in self._paths if (match := path(exchange.path))]
        verbs = [route.verb for route, _ in found]
        if exchange.path == _OPENAPI:
            verbs = ["GET"]
        if not verbs:
            raise errors.NotFound(f"there is no {exchange.path[:100]}; {_OPENAPI} lists what is")
        if exchange.verb not in verbs:
            await exchange.refuse_verb(verbs)
        elif exchange.path == _OPENAPI:
            await exchange.reply(self._document)
        else:
            route, match = found[verbs.index(exchange.verb)]
            method = self._door.method(route)
            async with self._around.around(method, exchange.headers.items()):
                seconds = exchange.seconds
                ends = None if seconds is None else asyncio.get_running_loop().time() + seconds
                async with asyncio.timeout_at(ends), exchange.following():
                    await self._call(exchange, method, match.groupdict(), _Context(ends))

    async def _call(
        self, exchange: Exchange, method: MethodDescriptor, path: dict[str, str], context: _Context
    ) -> None:
        kind = GetMessageClass(method.input_type)
        behaviour = getattr(self._door.servicer, method.name)
        if method.client_streaming:
            await self._stream(exchange, kind, behaviour, context)
            return
        given: object = _of_query(exchange.query, kind) | path
        if exchange.verb == "POST":
            exchange.need(JSON)
            given = parsed(await exchange.body())
        request = message_from_json(kind, given)
        await exchange.reply(json_of(await behaviour(request, context)))

    async def _stream(
        self, exchange: Exchange, kind: type[Message], behaviour: Any, context: _Context
    ) -> None:
        refused: list[dict[str, Any]] = []
        if exchange.need(NDJSON, JSON) == JSON:
            requests = _each(_list(kind, parsed(await exchange.body())))
        else:
            requests = _lines(kind, exchange, refused)
        async with aclosing(behaviour(requests, context)) as responses:
            await exchange.start(200, NDJSON)
            async for response in responses:
                await exchange.line(json_of(response))
                while refused:
                    await exchange.line(refused.pop(0))
        for one in refused:
            await exchange.line(one)
        await exchange.end()


def _pattern(path: str) -> Any:
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)).fullmatch


def _of_query(query: str, kind: type[Message]) -> dict[str, Any]:
    pairs = parse_qsl(query, keep_blank_values=True)
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InvalidInput("a parameter of the query stands there twice")
    return values_of_texts(kind.DESCRIPTOR, found)


def _list(kind: type[Message], value: object) -> list[Message]:
    if not isinstance(value, list):
        raise InvalidInput(f"the request is not a list; send one, or objects as {NDJSON}")
    return [message_from_json(kind, one, at=f"[{number}]") for number, one in enumerate(value)]


async def _each(messages: list[Message]) -> AsyncIterator[Message]:
    for one in messages:
        yield one


async def _lines(
    kind: type[Message], exchange: Exchange, refused: list[dict[str, Any]]
) -> AsyncIterator[Message]:
    """The messages of lines; one that cannot be read gets its answer in `refused`."""
    number = 0
    async for line in exchange.lines():
        number += 1
        value: object = None
        try:
            value = parsed(line)
            message = message_from_json(kind, value)
        except InvalidInput as error:
            error.message = f"line {number}: {error.message}"
            name = value.get("id") if isinstance(value, dict) else None
            known = {"id": name} if isinstance(name, str) else {}
            refused.append({**known, "error": error_json(status_of(error))})
        else:
            yield message


@asynccontextmanager
async def serve_http(
    door: HttpDoor,
    around: CallInterceptor,
    tls: ServerTls | None,
    *,
    max_bytes: int,
    drain_seconds: float,
) -> AsyncIterator[str]:
    """Serves until the context ends, then lets running calls end; gives the URL.

    Raises:
        InvalidInput: when the address cannot be bound.
    """
    with contextlib.closing(listen(door.bind, "http_bind")) as socket:
        app = HttpApp(door, around, max_bytes)
        async with serving(app, socket, tls, drain_seconds=drain_seconds):
            yield url_of(socket, secure=tls is not None)
