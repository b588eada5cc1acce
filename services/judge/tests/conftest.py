"""A fake of an OpenAI-compatible endpoint, at the level of its HTTP, and judges that ask it.

The real thing is paid, or takes a GPU; and none of them fails on demand.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tuneproof.servicekit.testing import serving, serving_http
from tuneproof_judge.endpoint import EndpointLimits, OpenAIEndpoint
from tuneproof_judge.main import build
from tuneproof_judge.settings import JudgeSettings

# Tests import `batch_api`, which lies beside them.
sys.path.append(str(Path(__file__).parent))


@dataclass(frozen=True)
class Reply:
    """What the fake sends back for one request."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    """Closes the connection after so many bytes of the body."""
    drip: float = 0.0
    """Seconds after each byte of the body; 0 sends it at once."""


@dataclass(frozen=True)
class Asked:
    """One request that the fake got."""

    path: str
    key: str
    body: Mapping[str, Any]
    traceparent: str = ""

    @property
    def prompt(self) -> str:
        return self.body["messages"][0]["content"]


Script = Callable[[Asked], Reply | Awaitable[Reply]]


def says(text: str, *, finish: str = "stop", choices: int = 1, **message: Any) -> Reply:
    """A chat completion; its choices are all alike."""
    content = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "fake",
        "choices": [
            {
                "index": index,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": text, **message},
            }
            for index in range(choices)
        ],
        "usage": {
            "prompt_tokens": 100,
            "completion_tokens": 7,
            "total_tokens": 107,
            "prompt_tokens_details": {"cached_tokens": 64},
        },
    }
    return Reply(body=json.dumps(content).encode())


def fails(status: int, message: str = "no", code: str | None = None, **headers: str) -> Reply:
    """An error as OpenAI words it; header names with _ for -."""
    body = json.dumps({"error": {"message": message, "type": "error", "code": code}}).encode()
    return Reply(status, body, {name.replace("_", "-"): text for name, text in headers.items()})


class FakeEndpoint:
    """Answers by a script; keeps what it was asked."""

    def __init__(self) -> None:
        self.script: Script = lambda _: says("Reasons: same.\nScore: 4")
        self.models: Reply = Reply(body=b'{"object":"list","data":[]}')
        self.asked: list[Asked] = []
        self.models_asked = 0
        self.under_way = 0
        self.most_under_way = 0
        self.left_early = 0
        """Requests whose connection the client closed before it had an answer."""
        self.url = ""
        self._connections: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeEndpoint]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.url = (
            f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        )
        try:
            yield self
        finally:
            server.close()
            for connection in list(self._connections):
                connection.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while (asked := await _read(reader)) is not None:
                reply = await self._answer(asked, reader)
                if reply is None or not await _write(writer, reply):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _answer(self, asked: Asked, reader: asyncio.StreamReader) -> Reply | None:
        if asked.path == "/v1/models":
            self.models_asked += 1
            return self.models
        if asked.path != "/v1/chat/completions":
            return fails(404, f"no such path {asked.path}")
        self.asked.append(asked)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            outcome = self.script(asked)
            if isinstance(outcome, Reply):
                return outcome
            answering = asyncio.ensure_future(outcome)
            # A client sends nothing before its answer: what can be read is the end.
            gone = asyncio.ensure_future(reader.read(1))
            await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                gone.cancel()
                await asyncio.wait({gone})
                return answering.result()
            answering.cancel()
            self.left_early += 1
            return None
        finally:
            self.under_way -= 1


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.splitlines()
    headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    key = headers.get("authorization", "").removeprefix("bearer ")
    traceparent = headers.get("traceparent", "")
    return Asked(first.split()[1], key, json.loads(body) if body else {}, traceparent)


async def _write(writer: asyncio.StreamWriter, reply: Reply) -> bool:
    headers = {
        "content-type": "application/json",
        "content-length": str(len(reply.body)),
        **reply.headers,
    }
    lines = "".join(f"{name}: {text}\r\n" for name, text in headers.items())
    writer.write(f"HTTP/1.1 {reply.status} X\r\n{lines}\r\n".encode())
    body = reply.body[: reply.cut_after]
    for byte in body if reply.drip else b"":
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(reply.drip)
    writer.write(b"" if reply.drip else body)
    await writer.drain()
    return reply.cut_after is None


@dataclass
class Pauses:
    """Stands in for asyncio.sleep between attempts: remembers, and waits for nothing."""

    seconds: list[float] = field(default_factory=list)

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
async def fake() -> AsyncIterator[FakeEndpoint]:
    async with FakeEndpoint().running() as endpoint:
        yield endpoint


@pytest.fixture
def reply() -> SimpleNamespace:
    """How a script makes replies; test modules cannot import a conftest."""
    return SimpleNamespace(Reply=Reply, says=says, fails=fails)


@pytest.fixture
async def closed_url() -> str:
    """A base URL on which nobody listens."""
    async with FakeEndpoint().running() as endpoint:
        return endpoint.url


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
async def endpoint_of(
    fake: FakeEndpoint, pauses: Pauses
) -> AsyncIterator[Callable[..., OpenAIEndpoint]]:
    """Makes clients of the fake."""
    made: list[OpenAIEndpoint] = []

    def make(
        url: str = "",
        *,
        concurrency: int = 16,
        timeout: float = 20.0,
        attempts: int = 3,
        structured: bool = False,
        key: str = "sk-very-secret",
        **more: Any,
    ) -> OpenAIEndpoint:
        limits = EndpointLimits(concurrency, timeout, attempts, structured=structured)
        endpoint = OpenAIEndpoint(url or fake.url, "fake", key, limits, sleep=pauses, **more)
        made.append(endpoint)
        return endpoint

    yield make
    for endpoint in made:
        await endpoint.close()


@pytest.fixture
def judge(fake: FakeEndpoint) -> Callable[..., AbstractAsyncContextManager[str]]:
    """Serves a whole judge, as `main` builds it, on the fake; gives its gRPC target."""

    @asynccontextmanager
    async def start(**settings: Any) -> AsyncIterator[str]:
        given = {"endpoint_url": fake.url, "endpoint_model": "fake", "max_attempts": 1, **settings}
        async with build(JudgeSettings(**given)) as service, serving(service) as target:
            yield target

    return start


@pytest.fixture
def http_judge(fake: FakeEndpoint) -> Callable[..., AbstractAsyncContextManager[str]]:
    """As `judge`, by HTTP; gives its URL. `around` are what `serving_http` takes."""

    @asynccontextmanager
    async def start(around: Mapping[str, Any] = {}, **settings: Any) -> AsyncIterator[str]:
        given = {"endpoint_url": fake.url, "endpoint_model": "fake", "max_attempts": 1, **settings}
        async with build(JudgeSettings(**given)) as service:
            assert service.http is not None
            async with serving_http(service.http, **around) as url:
                yield url

    return start
