"""A fake of Text Embeddings Inference 1.9 at the level of its HTTP.

TEI itself is a Rust program that PyPI does not carry, and none of its servers fails on demand. The
fake keeps to what the real router does: `tei_openapi.json` is taken from TEI's published OpenAPI,
and every request and every answer is held against it; limits, status codes and words of errors are
those of `router/src/http/server.rs` and `core/src/tokenization.rs` at 1.9.3. Its tokenizer is a
real one. Its vectors are not: they derive from the text's digest, so that one can tell by a vector
which text it is of.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import numpy.typing as npt
from aiohttp import web
from tokenizers import Tokenizer

from tuneproof_retriever.embedders.model_folder import PACKAGED_MODEL, find_model

DIMENSION = 16
_OPENAPI = json.loads((Path(__file__).parent / "tei_openapi.json").read_text())


def _as_json_schema(part: Any) -> Any:
    """OpenAPI 3.0 says `nullable` where JSON Schema lists null among the types."""
    if isinstance(part, list):
        return [_as_json_schema(each) for each in part]
    if not isinstance(part, dict):
        return part
    made = {key: _as_json_schema(value) for key, value in part.items()}
    if made.pop("nullable", False):
        made["type"] = [made["type"], "null"]
    return made


_SCHEMAS = _as_json_schema(copy.deepcopy(_OPENAPI))


def check(name: str, value: Any) -> None:
    """Raises when a value is not what TEI's OpenAPI says of it."""
    jsonschema.validate(value, {**_SCHEMAS, "$ref": f"#/components/schemas/{name}"})


@dataclass
class Asked:
    """One request that the fake got."""

    path: str
    body: dict[str, Any]
    key: str


Fault = Callable[[web.Request, Asked], Awaitable[web.StreamResponse | None]]
"""What happens before a request is served; None serves it."""


@dataclass
class TeiFake:
    """A server; its fields may be changed while it runs."""

    model_id: str = "org/embedder"
    model_sha: str | None = "a1b2c3"
    model_dtype: str = "float16"
    kind: str = "embedding"
    max_input_length: int = 64
    max_batch_tokens: int = 256
    max_client_batch_size: int = 8
    max_concurrent_requests: int = 64
    payload_limit: int = 2_000_000
    auto_truncate: bool = True
    """TEI's default: texts are cut silently unless a request says `truncate: false`."""
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str = ""
    api_key: str = ""
    healthy: bool = True
    busy_seconds: float = 0.0
    """How long each batch takes."""
    faults: list[Fault] = field(default_factory=list)
    """Each is for one request, in order."""
    asked: list[Asked] = field(default_factory=list)
    most_at_once: int = 0
    """Texts in work at the same time."""
    port: int = 0
    _running: int = 0
    _runner: web.AppRunner | None = None

    def __post_init__(self) -> None:
        folder = find_model(PACKAGED_MODEL)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def texts(self, path: str = "/embed") -> list[str]:
        """All texts that were asked for, those of refused requests too."""
        return [text for each in self.asked if each.path == path for text in each.body["inputs"]]

    async def start(self) -> None:
        """Serves, on the same port as before."""
        app = web.Application(client_max_size=self.payload_limit)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Closes all connections."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        try:
            raw = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return web.Response(status=413, text="Failed to buffer the request body: length limit")
        body = json.loads(raw) if raw else {}
        asked = Asked(request.path, body, request.headers.get("authorization", ""))
        self.asked.append(asked)
        if self.faults and request.path not in ("/info", "/health"):
            answer = await self.faults.pop(0)(request, asked)
            if answer is not None:
                return answer
        if self.api_key and asked.key != f"Bearer {self.api_key}":
            return web.Response(status=401)
        try:
            name, answer = await self._answer(request.path, body)
        except _Refusal as refusal:
            name, answer = "ErrorResponse", {"error": refusal.words, "error_type": refusal.kind}
            check(name, answer)
            return web.json_response(answer, status=refusal.status)
        if name:
            check(name, answer)
        return web.json_response(answer)

    async def _answer(self, path: str, body: dict[str, Any]) -> tuple[str, Any]:
        match path:
            case "/health":
                if not self.healthy:
                    raise _Refusal(503, "Unhealthy", "unhealthy")
                return "", None
            case "/info":
                return "Info", self._info()
            case "/embed":
                check("EmbedRequest", body)
                return "EmbedResponse", await self._embed(body)
            case "/tokenize":
                check("TokenizeRequest", body)
                return "TokenizeResponse", [self._tokens(text, body) for text in self._listed(body)]
            case "/rerank":
                check("RerankRequest", body)
                return "RerankResponse", await self._rerank(body)
        raise web.HTTPNotFound

    def _info(self) -> dict[str, Any]:
        labels = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
        settings = {"pooling": "mean"} if self.kind == "embedding" else labels
        return {
            "model_id": self.model_id,
            "model_sha": self.model_sha,
            "model_dtype": self.model_dtype,
            "served_model_name": self.model_id,
            "model_type": {self.kind: settings},
            "max_concurrent_requests": self.max_concurrent_requests,
            "max_input_length": self.max_input_length,
            "max_batch_tokens": self.max_batch_tokens,
            "max_batch_requests": None,
            "max_client_batch_size": self.max_client_batch_size,
            "auto_truncate": self.auto_truncate,
            "tokenization_workers": 1,
            "version": "1.9.3",
            "sha": None,
            "docker_label": None,
        }

    def _listed(self, body: dict[str, Any], name: str = "inputs") -> list[str]:
        texts = [body[name]] if isinstance(body[name], str) else body[name]
        if not texts or not all(texts):
            raise _Refusal(400, "Empty", f"`{name}` cannot be empty")
        if len(texts) > self.max_client_batch_size:
            raise _Refusal(
                422,
                "Validation",
                f"batch size {len(texts)} > maximum allowed batch size"
                f" {self.max_client_batch_size}",
            )
        return texts

    async def _embed(self, body: dict[str, Any]) -> list[list[float]]:
        texts = self._listed(body)
        truncate = body.get("truncate")
        truncate = self.auto_truncate if truncate is None else truncate
        read = [self._read(text, body.get("prompt_name"), truncate=truncate) for text in texts]
        await self._work(len(texts))
        scale = 1.0 if body.get("normalize", True) else 3.0
        return [(scale * vector_of(text)).tolist() for text in read]

    async def _rerank(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        texts = self._listed(body, "texts")
        if self.kind != "reranker":
            raise _Refusal(424, "Backend", "model is not a re-ranker model")
        truncate = body.get("truncate")
        truncate = self.auto_truncate if truncate is None else truncate
        for text in texts:
            self._read(f"{body['query']} {text}", None, truncate=truncate)
        await self._work(len(texts))
        scores = [overlap(body["query"], text) for text in texts]
        if not body.get("raw_scores", False):
            scores = [float(1 / (1 + np.exp(-score))) for score in scores]
        ranks = [{"index": index, "score": score} for index, score in enumerate(scores)]
        return sorted(ranks, key=lambda rank: -rank["score"])

    async def _work(self, texts: int) -> None:
        if self._running + texts > self.max_concurrent_requests:
            raise _Refusal(429, "Overloaded", "Model is overloaded")
        self._running += texts
        self.most_at_once = max(self.most_at_once, self._running)
        try:
            await asyncio.sleep(self.busy_seconds)
        finally:
            self._running -= texts

    def _prompted(self, text: str, name: str | None) -> str:
        if name is None:
            return self.default_prompt + text
        if name not in self.prompts:
            raise _Refusal(
                422,
                "Validation",
                f"`default-prompt-name` is set to `{name}` but it was not found in the Sentence"
                f" Transformers prompts. Available prompts: {list(self.prompts)}",
            )
        return self.prompts[name] + text

    def _encoded(self, text: str, name: str | None, *, special: bool) -> tuple[str, Any]:
        limit = self.max_input_length * 250
        if len(text) > limit:
            raise _Refusal(
                422,
                "Validation",
                f"`inputs` must have less than {limit} characters. Given: {len(text)}",
            )
        prompted = self._prompted(text, name)
        return prompted, self._tokenizer.encode(prompted, add_special_tokens=special)

    def _read(self, text: str, name: str | None, *, truncate: bool) -> str:
        """What the model sees of a text."""
        prompted, encoding = self._encoded(text, name, special=True)
        if len(encoding.ids) <= self.max_input_length:
            return prompted
        if not truncate:
            raise _Refusal(
                422,
                "Validation",
                f"`inputs` must have less than {self.max_input_length} tokens. Given:"
                f" {len(encoding.ids)}",
            )
        return prompted[: encoding.offsets[self.max_input_length - 2][1]]

    def _tokens(self, text: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        special = body.get("add_special_tokens", True)
        prompted, encoding = self._encoded(text, body.get("prompt_name"), special=special)
        sizes = np.cumsum([0] + [len(character.encode()) for character in prompted])
        rows = zip(
            encoding.ids,
            encoding.tokens,
            encoding.special_tokens_mask,
            encoding.offsets,
            strict=True,
        )
        return [
            {
                "id": id_,
                "text": token if special else prompted[start:end],
                "special": bool(special),
                "start": None if special else int(sizes[start]),
                "stop": None if special else int(sizes[end]),
            }
            for id_, token, special, (start, end) in rows
        ]


class _Refusal(Exception):
    def __init__(self, status: int, kind: str, words: str) -> None:
        super().__init__(words)
        self.status, self.kind, self.words = status, kind, words


def vector_of(text: str) -> npt.NDArray[np.float32]:
    """The vector of a text that is read whole, length 1."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    vector = np.random.default_rng(seed).standard_normal(DIMENSION)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def overlap(query: str, text: str) -> float:
    """A reranker's score: twice the share of the query's words in the text, minus 1."""
    words = set(query.lower().split())
    return 2 * len(words & set(text.lower().split())) / len(words) - 1


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[TeiFake]:
    """A fake that serves."""
    fake = TeiFake(**settings)
    await fake.start()
    try:
        yield fake
    finally:
        await fake.stop()


def overloaded(**headers: str) -> Fault:
    """Answers 429 as TEI does when all permits are taken."""

    async def fault(_request: web.Request, _asked: Asked) -> web.StreamResponse:
        answer = {"error": "Model is overloaded", "error_type": "Overloaded"}
        check("ErrorResponse", answer)
        return web.json_response(answer, status=429, headers=headers)

    return fault


def status(code: int, words: str = "") -> Fault:
    """Answers with a status."""

    async def fault(_request: web.Request, _asked: Asked) -> web.StreamResponse:
        return web.Response(status=code, text=words)

    return fault


async def cut_off(request: web.Request, _asked: Asked) -> web.StreamResponse:
    """Closes the connection without an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def half(request: web.Request, _asked: Asked) -> web.StreamResponse:
    """Promises a body, sends its beginning and closes."""
    answer = web.StreamResponse(headers={"content-length": "1000"})
    answer.content_type = "application/json"
    await answer.prepare(request)
    await answer.write(b"[[0.25, ")
    assert request.transport is not None
    request.transport.close()
    return answer


async def hang(_request: web.Request, _asked: Asked) -> web.StreamResponse | None:
    """Keeps the connection open and says nothing, as a host that fell silent."""
    await asyncio.sleep(3600)
    return None


async def drip(request: web.Request, _asked: Asked) -> web.StreamResponse:
    """Sends a byte now and then, for ever."""
    answer = web.StreamResponse()
    await answer.prepare(request)
    while True:
        await answer.write(b" ")
        await asyncio.sleep(0.02)
