"""Where requests go: the generator's gRPC, or any endpoint with the OpenAI API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Protocol

import aiohttp

from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc
from tuneproof.loadtest.records import Answer, Ask
from tuneproof.sdk.connection import Connection, seconds_of
from tuneproof.servicekit.client import Token, authorization
from tuneproof.servicekit.errors import DeadlineExceeded, InvalidInput, TuneproofError, Unavailable
from tuneproof.servicekit.tls import ClientTls

SERVED_BY = "x-tuneproof-adapter"
"""Header of the generator's OpenAI door that names the adapter; absent for the base model."""
_SHOWN = 300
_DATA = b"data:"


class Door(Protocol):
    """Something that answers requests."""

    async def ask(self, ask: Ask, *, timeout: float, first: Callable[[], None]) -> Answer:
        """Answers one request, and calls `first` at its first token.

        Raises:
            TuneproofError: it got no answer.
        """

    async def aclose(self) -> None:
        """Closes the connections."""


class GrpcDoor:
    """GeneratorService.Generate without the retries of the SDK's client, so that every refusal
    shows."""

    def __init__(self, target: str, *, token: Token | None, tls: ClientTls | None = None) -> None:
        self._connection = Connection("generator", target, token=token, services=(), tls=tls)
        self._stub = generator_pb2_grpc.GeneratorServiceStub(self._connection.channel)

    async def ask(self, ask: Ask, *, timeout: float, first: Callable[[], None]) -> Answer:
        message = pb.Message(role=pb.ROLE_USER, content=ask.prompt)
        request = pb.GenerateRequest(
            model=ask.model,
            chat=pb.Chat(messages=[message]),
            sampling=pb.Sampling(max_tokens=ask.max_tokens),
        )
        text: list[str] = []
        final: pb.Final | None = None
        with self._connection.errors("Generate"):
            async for reply in self._stub.Generate(request, timeout=timeout):
                if reply.HasField("delta"):
                    if not text:
                        first()
                    text.append(reply.delta.text)
                if reply.HasField("final"):
                    final = reply.final
        if final is None:
            raise Unavailable("the stream ended without its usage")
        return Answer(
            "".join(text),
            final.usage.completion_tokens,
            final.served_by.adapter_ref,
            seconds_of(final.stage_times),
        )

    async def aclose(self) -> None:
        await self._connection.close()


class OpenAIDoor:
    """`/chat/completions` of an OpenAI-compatible endpoint, streamed.

    Args:
        url: the base URL, as `http://127.0.0.1:8000/v1`.
        base_model: the name of the base model there.
        tls: for https:// with certificates that this machine does not know.
        of_generator: the endpoint is our generator's: an answer without the header comes from the
            base model. From other servers it may come from any model.

    Raises:
        InvalidInput: `url` is not an http URL.
    """

    def __init__(
        self,
        url: str,
        *,
        base_model: str,
        token: Token | None,
        of_generator: bool = False,
        tls: ClientTls | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise InvalidInput(f"{url!r} is not a URL: write it as http://127.0.0.1:8000/v1")
        self._url = url.rstrip("/") + "/chat/completions"
        self._base_model = base_model
        self._unnamed = "" if of_generator else None
        self._header = authorization(token)
        self._server_name = tls.server_name or None if tls else None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=tls.context() if tls else True)
        )

    async def ask(self, ask: Ask, *, timeout: float, first: Callable[[], None]) -> Answer:
        body = {
            "model": ask.model or self._base_model,
            "messages": [{"role": "user", "content": ask.prompt}],
            "max_tokens": ask.max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        try:
            async with (
                asyncio.timeout(timeout),
                self._session.post(
                    self._url,
                    json=body,
                    headers=self._header(),
                    server_hostname=self._server_name,
                    timeout=None,
                ) as response,
            ):
                if response.status != 200:
                    text = (await response.text())[:_SHOWN]
                    raise Unavailable(f"{self._url} answers {response.status}: {text}")
                return await _read(response, first, self._unnamed)
        except TimeoutError:
            raise DeadlineExceeded(f"{self._url} did not finish an answer in time") from None
        except aiohttp.ClientError as error:
            raise Unavailable(f"cannot reach {self._url}: {error}") from None

    async def aclose(self) -> None:
        await self._session.close()


async def _read(
    response: aiohttp.ClientResponse, first: Callable[[], None], unnamed: str | None
) -> Answer:
    text: list[str] = []
    pieces = tokens = 0
    ended = False
    async for line in response.content:
        if not line.startswith(_DATA):
            continue
        data = line[len(_DATA) :].strip()
        if data == b"[DONE]":
            ended = True
            break
        event = _event(data)
        for choice in event.get("choices") or ():
            piece = (choice.get("delta") or {}).get("content")
            if piece:
                if not text:
                    first()
                pieces += 1
                text.append(piece)
        tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
    if not ended:
        raise Unavailable("the stream ended without [DONE]")
    # Without a count from the server, each piece counts as a token.
    return Answer("".join(text), tokens or pieces, response.headers.get(SERVED_BY, unnamed))


def _event(data: bytes) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except ValueError:
        raise Unavailable(f"the stream does not hold JSON: {data[:_SHOWN]!r}") from None
    if not isinstance(event, dict):
        raise Unavailable(f"the stream does not hold a JSON object: {data[:_SHOWN]!r}")
    if event.get("error"):
        raise TuneproofError(f"the server broke off: {str(event['error'])[:_SHOWN]}")
    return event
