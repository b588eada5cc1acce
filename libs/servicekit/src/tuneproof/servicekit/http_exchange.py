"""One HTTP request and its response, over ASGI."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn

from google.rpc import status_pb2

from tuneproof.servicekit import errors
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.json_messages import error_json
from tuneproof.servicekit.status import error_of

JSON, NDJSON = "application/json", "application/x-ndjson"
TIMEOUT = "Request-Timeout"
"""The header with a call's seconds."""

HTTP_CODES: dict[type[errors.TuneproofError], int] = {
    errors.InvalidInput: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.AlreadyExists: 409,
    errors.WrongState: 409,
    errors.Overloaded: 429,
    errors.Cancelled: 499,
    errors.Corrupted: 500,
    errors.Internal: 500,
    errors.Unavailable: 503,
    errors.DeadlineExceeded: 504,
}
_TOO_LARGE, _MEDIA_TYPE = "TOO_LARGE", "MEDIA_TYPE"
_BY_REASON = {_TOO_LARGE: 413, _MEDIA_TYPE: 415}
_CHUNKS = 8


class Exchange:
    """Reads the body, writes the response, and notices a caller that goes away.

    Args:
        max_bytes: of a body that is read as a whole, or of a line.
    """

    def __init__(self, scope: Any, receive: Any, send: Any, max_bytes: int) -> None:
        self.verb: str = scope["method"]
        self.path: str = scope["path"]
        self.query: str = scope["query_string"].decode("latin-1")
        self.headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        self.left = False
        """The caller has gone away."""
        self._receive, self._send = receive, send
        self._max_bytes = max_bytes
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(_CHUNKS)
        self._started = False

    @property
    def seconds(self) -> float | None:
        """The call's time, where its header says one.

        Raises:
            InvalidInput: it is no number above 0.
        """
        given = self.headers.get(TIMEOUT.lower())
        if given is None:
            return None
        try:
            seconds = float(given)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < math.inf:
            raise InvalidInput(f"the header {TIMEOUT} is no number of seconds", field=TIMEOUT)
        return seconds

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Reads what the caller sends, and cancels this task when the caller goes away."""
        reading = asyncio.create_task(self._read(asyncio.current_task()))
        try:
            yield
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, task: asyncio.Task[Any] | None) -> None:
        while (message := await self._receive())["type"] == "http.request":
            await self._chunks.put(message.get("body", b""))
            if not message.get("more_body"):
                await self._chunks.put(None)
        self.left = True
        if task is not None:
            task.cancel()

    def need(self, *kinds: str) -> str:
        """The body's media type, which must be one of these.

        A page of another origin cannot send them, so no page can spend a local judge's money.

        Raises:
            InvalidInput: it is another one.
        """
        given: str = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if given not in kinds:
            raise InvalidInput(
                f"the Content-Type is {given[:100]!r}; send {' or '.join(kinds)}",
                field="content-type",
                reason=_MEDIA_TYPE,
            )
        return given

    async def body(self) -> bytes:
        """All of it."""
        found = bytearray()
        async for chunk in self._incoming():
            found += chunk
            if len(found) > self._max_bytes:
                self._too_large("the request")
        return bytes(found)

    async def lines(self) -> AsyncIterator[bytes]:
        """Those that hold something, as they come."""
        rest = bytearray()
        async for chunk in self._incoming():
            first, *others = chunk.split(b"\n")
            rest += first
            for other in others:
                if rest.strip():
                    yield bytes(rest)
                rest = bytearray(other)
            if len(rest) > self._max_bytes:
                self._too_large("a line of the request")
        if rest.strip():
            yield bytes(rest)

    async def _incoming(self) -> AsyncIterator[bytes]:
        while (chunk := await self._chunks.get()) is not None:
            yield chunk

    def _too_large(self, what: str) -> NoReturn:
        raise InvalidInput(f"{what} has more than {self._max_bytes:,} bytes", reason=_TOO_LARGE)

    async def reply(self, value: object) -> None:
        """A whole response."""
        content = _dumped(value)
        await self.start(200, JSON)
        await self._write(content, more=False)

    async def refuse(self, status: status_pb2.Status) -> None:
        """A failure; of a response that has begun it is the last line."""
        content = {"error": error_json(status)}
        if self._started:
            await self.line(content)
            await self.end()
            return
        error = error_of(status)
        code = _BY_REASON.get(error.reason) or HTTP_CODES[type(error)]
        headers = {}
        if (seconds := getattr(error, "retry_after", None)) is not None:
            headers["retry-after"] = str(max(1, math.ceil(seconds)))
        if isinstance(error, errors.Unauthenticated):
            headers["www-authenticate"] = "Bearer"
        await self.start(code, JSON, **headers)
        await self._write(_dumped(content), more=False)

    async def refuse_verb(self, allowed: Sequence[str]) -> None:
        """As RFC 9110, 15.5.6 has it."""
        verbs = ", ".join(allowed)
        said = f"{self.path[:100]} takes {verbs}, not {self.verb[:20]}"
        error = {"status": "UNIMPLEMENTED", "reason": "METHOD", "message": said}
        await self.start(405, JSON, allow=verbs)
        await self._write(_dumped({"error": error}), more=False)

    async def start(self, code: int, kind: str, **headers: str) -> None:
        """The response's head."""
        self._started = True
        pairs = {"content-type": kind, **{n.replace("_", "-"): v for n, v in headers.items()}}
        await self._send(
            {
                "type": "http.response.start",
                "status": code,
                "headers": [(name.encode(), value.encode()) for name, value in pairs.items()],
            }
        )

    async def line(self, value: object) -> None:
        """A line of a response that goes on."""
        await self._write(_dumped(value) + b"\n", more=True)

    async def end(self) -> None:
        """No more lines."""
        await self._write(b"", more=False)

    async def _write(self, content: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": content, "more_body": more})


def parsed(content: bytes) -> object:
    """The value of JSON.

    Raises:
        InvalidInput: it is none.
    """
    try:
        return json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InvalidInput(f"this is not JSON: {why[:200]}") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is none of its numbers")


def _dumped(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
