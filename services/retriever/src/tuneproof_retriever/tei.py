"""A server of Text Embeddings Inference (TEI 1.9), by huggingface_hub's client.

TEI truncates silently where a request does not say `truncate` and the server runs with its default
`--auto-truncate true`. So every request here says `truncate: false`, and a text that is too long
is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

import httpx2
import numpy as np
from huggingface_hub import AsyncInferenceClient, set_async_client_factory
from huggingface_hub.errors import HfHubHTTPError
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tuneproof.servicekit.errors import InvalidInput, TuneproofError, Unavailable, WrongState
from tuneproof.servicekit.retries import Sleep
from tuneproof.servicekit.tracing import headers
from tuneproof_retriever.corpus import Vectors
from tuneproof_retriever.endpoint import Endpoint, Requests

T = TypeVar("T")

_opened: ContextVar[list[str] | None] = ContextVar("opened", default=None)
"""Takes a note of each connection that the request opens."""
_CONFIRMED_SECONDS = 5.0
_PROBE_SECONDS = 5.0


class TeiInfo(BaseModel):
    """What GET /info says: the model and the server's limits."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=(), frozen=True)

    model_id: str
    model_sha: str | None = None
    """The `--revision` that the server was started with, if it was."""
    model_dtype: str
    model_type: dict[str, Any]
    """`embedding`, `reranker` or `classifier`, with its settings."""
    max_input_length: int = Field(ge=1)
    """Tokens of one text, special tokens and prompt included."""
    max_batch_tokens: int = Field(ge=1)
    max_client_batch_size: int = Field(ge=1)
    max_concurrent_requests: int = Field(ge=1)
    """Texts, not HTTP requests: each text of a batch counts."""

    @property
    def model(self) -> tuple[str, str, str]:
        """What must not change while the retriever runs."""
        return self.model_id, self.model_sha or "", self.model_dtype

    @property
    def texts_per_request(self) -> int:
        """Most texts of one request that an idle server takes."""
        return min(self.max_client_batch_size, self.max_concurrent_requests)


class Token(BaseModel):
    """A token of POST /tokenize."""

    id: int
    special: bool
    start: int | None = None
    """Offset in bytes of UTF-8, a prompt included; None for special tokens."""
    stop: int | None = None


class _Rank(BaseModel):
    index: int
    score: float


_TOKENS = TypeAdapter(list[list[Token]])
_RANKS = TypeAdapter(list[_Rank])


class TeiServer:
    """A TEI server. Use `open_tei` to get one."""

    def __init__(self, endpoint: Endpoint, *, sleep: Sleep = asyncio.sleep) -> None:
        self._endpoint = endpoint
        self._url = endpoint.url.rstrip("/")
        # Without a token of its own the client sends this machine's Hugging Face token to any URL.
        token = endpoint.api_key or "none"
        # Its own HTTP client refuses every URL where HF_HUB_OFFLINE is set, as in our images.
        set_async_client_factory(_http_client)
        self._client = AsyncInferenceClient(model=self._url, provider="hf-inference", token=token)
        # The client has methods for embeddings, /info and /health, and none for the other paths.
        self._session = _http_client()
        self._session.headers["authorization"] = f"Bearer {token}"
        self._requests = Requests(endpoint, self._translated, sleep=sleep)
        self._info: TeiInfo | None = None
        self._confirmed = 0.0

    @property
    def info(self) -> TeiInfo:
        """What the server said first."""
        if self._info is None:
            raise AssertionError("learn() comes first")
        return self._info

    @property
    def shown(self) -> str:
        """Its name in messages."""
        return self._endpoint.shown

    async def learn(self, kind: str, *, deadline: float) -> None:
        """Asks for the server's model and limits, until it answers; see `open_tei`."""
        self._info = await self._requests.send(self._read_info, deadline=deadline)
        self._confirmed = asyncio.get_running_loop().time()
        if kind not in self._info.model_type:
            raise InvalidInput(
                f"{self.shown} serves {self._info.model_id}, a model for"
                f" {'/'.join(self._info.model_type)}, not for {kind}"
            )
        self._requests.limit(self._info.max_concurrent_requests // self._info.texts_per_request)

    async def embed(
        self, texts: Sequence[str], prompt: str, *, deadline: float | None = None
    ) -> Vectors:
        """Vectors of one request's texts, normalised.

        Args:
            prompt: name of a prompt of the model; empty: the server's default.

        Raises:
            InvalidInput: for a text that is too long; it is never truncated.
        """
        return await self._send(
            lambda: self._client.feature_extraction(
                list(texts),
                normalize=True,
                truncate=False,
                prompt_name=prompt or None,
                model=f"{self._url}/embed",
            ),
            deadline,
        )

    async def tokenize(
        self,
        texts: Sequence[str],
        prompt: str = "",
        *,
        special: bool = False,
        deadline: float | None = None,
    ) -> list[list[Token]]:
        """The tokens of one request's texts.

        Args:
            special: whether to add the special tokens.
        """
        body = {"inputs": list(texts), "add_special_tokens": special}
        if prompt:
            body["prompt_name"] = prompt
        found = await self._send(lambda: self._post("/tokenize", body, _TOKENS), deadline)
        self._check_count("tokens", len(found), len(texts))
        return found

    async def rerank(
        self, query: str, texts: Sequence[str], *, deadline: float | None = None
    ) -> list[float]:
        """How well each of one request's texts answers a query, as logits."""
        body = {"query": query, "texts": list(texts), "raw_scores": True, "truncate": False}
        ranks = await self._send(lambda: self._post("/rerank", body, _RANKS), deadline)
        scores = {rank.index: rank.score for rank in ranks}
        self._check_count("scores", len(scores.keys() & set(range(len(texts)))), len(texts))
        return [scores[number] for number in range(len(texts))]

    async def check_ready(self) -> None:
        """Returns when the server is healthy and serves the same model as before.

        Raises:
            Unavailable: with the reason, while it is not.
        """
        try:
            await self._requests.once(self._healthy, _PROBE_SECONDS)
        except TuneproofError as error:
            raise Unavailable(error.message) from None

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()  # type: ignore[no-untyped-call]
        await self._session.aclose()

    async def _send(self, action: Callable[[], Awaitable[T]], deadline: float | None) -> T:
        async def confirmed() -> T:
            if asyncio.get_running_loop().time() - self._confirmed > _CONFIRMED_SECONDS:
                await self._confirm()
            opened: list[str] = []
            noting = _opened.set(opened)
            try:
                answer = await action()
            except BaseException:
                self._confirmed = 0.0
                raise
            finally:
                _opened.reset(noting)
            # A server that restarted may serve another model under the same address. No connection
            # outlives a restart, so the answer over a new one is not used before it is confirmed.
            if opened:
                await self._confirm()
            return answer

        return await self._requests.send(confirmed, deadline=deadline)

    async def _confirm(self) -> None:
        now = await self._read_info()
        if now.model != self.info.model:
            raise WrongState(
                f"{self.shown} serves {' '.join(now.model)} now, and served"
                f" {' '.join(self.info.model)} when the retriever started; restart the retriever,"
                " or the server with the former",
                reason="ENDPOINT_MODEL_CHANGED",
            )
        self._confirmed = asyncio.get_running_loop().time()

    async def _healthy(self) -> None:
        if not await self._client.health_check():
            raise Unavailable(f"{self.shown} says that it is not healthy")
        await self._confirm()

    async def _read_info(self) -> TeiInfo:
        return TeiInfo.model_validate(await self._client.get_endpoint_info())

    async def _post(self, path: str, body: dict[str, Any], reply: TypeAdapter[T]) -> T:
        response = await self._session.post(f"{self._url}{path}", json=body)
        if response.is_error:
            raise self._endpoint.failure(
                response.status_code, _words_of(response), response.headers
            )
        # Megabytes of JSON would hold up all other calls.
        return await asyncio.to_thread(reply.validate_json, response.content)

    def _translated(self, error: Exception) -> Exception:
        match error:
            case HfHubHTTPError():
                response = error.response
                return self._endpoint.failure(
                    response.status_code, _words_of(response), response.headers
                )
            case httpx2.HTTPError() | OSError():
                return self._endpoint.silence(error)
            case ValidationError():
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"]))
                return Unavailable(
                    f"{self.shown} answers with something else than TEI's protocol:"
                    f" {where} {first['msg']}"
                )
            case ValueError():  # a body that was cut short is no JSON
                return Unavailable(f"{self.shown} answers with something else than JSON: {error}")
            case _:
                return error

    def _check_count(self, what: str, given: int, asked: int) -> None:
        if given != asked:
            raise Unavailable(f"{self.shown} gave {what} of {given} texts, not of {asked}")


async def open_tei(
    endpoint: Endpoint, kind: str, *, patience: float, sleep: Sleep = asyncio.sleep
) -> TeiServer:
    """A server that serves a model of a kind.

    Args:
        kind: `embedding` or `reranker`.
        patience: seconds to wait for a server that is not up yet.

    Raises:
        InvalidInput: when its model is of another kind.
        Unavailable: when it does not answer in time.
    """
    server = TeiServer(endpoint, sleep=sleep)
    try:
        await server.learn(kind, deadline=asyncio.get_running_loop().time() + patience)
    except BaseException:
        await server.close()
        raise
    return server


def _http_client() -> httpx2.AsyncClient:
    # `Requests` has the time limit.
    return httpx2.AsyncClient(event_hooks={"request": [_prepare]}, timeout=None)


async def _prepare(request: httpx2.Request) -> None:
    request.headers.update(headers())
    opened = _opened.get()
    if opened is not None:

        async def note(event: str, _details: Any) -> None:
            if event == "connection.connect_tcp.complete":
                opened.append(event)

        request.extensions["trace"] = note


def _words_of(response: Any) -> str:
    """The error that TEI tells, or the body's beginning."""
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return str(response.text)


def bytes_to_characters(text: str, offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Offsets in bytes of UTF-8 as offsets in code points; part of a character is all of it."""
    if text.isascii() or not offsets:
        return list(offsets)
    encoded = np.frombuffer(text.encode(), dtype=np.uint8)
    begins = (encoded & 0xC0) != 0x80  # continuation bytes are 10xxxxxx
    before = np.concatenate(([0], np.cumsum(begins)))
    inside = np.concatenate((~begins, [False]))
    pairs = np.asarray(offsets)
    starts = before[pairs[:, 0]] - inside[pairs[:, 0]]
    return list(zip(starts.tolist(), before[pairs[:, 1]].tolist(), strict=True))
