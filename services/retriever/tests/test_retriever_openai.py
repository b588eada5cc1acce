"""The embedder on an OpenAI-compatible server, faked at the level of its HTTP as vLLM answers.

Its vectors derive from the text's digest, as those of `tei_fake`.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from tuneproof.servicekit.errors import (
    InvalidInput,
    Overloaded,
    TuneproofError,
    Unavailable,
    WrongState,
)
from tuneproof_retriever.embedders.model_folder import PACKAGED_MODEL
from tuneproof_retriever.embedders.openai_embedder import (
    OpenAIEmbedder,
    ServedModel,
    open_openai_embedder,
)
from tuneproof_retriever.embedders.sentence_embedder import SentenceEmbedder
from tuneproof_retriever.endpoint import Endpoint

from .tei_fake import DIMENSION, vector_of

pytestmark = pytest.mark.timeout(60)


@dataclass
class EmbeddingsFake:
    """POST /v1/embeddings and GET /v1/models."""

    models: dict[str, int | None] = field(default_factory=lambda: {"served": 256})
    """`max_model_len` by name; None is left out, as most servers do."""
    statuses: list[int] = field(default_factory=list)
    """Answers of the next requests for embeddings, before those that succeed."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    lists: bool = True
    garbled: bool = False
    url: str = ""

    async def serve_models(self, _request: web.Request) -> web.Response:
        if not self.lists:
            return web.json_response({"detail": "Not Found"}, status=404)
        rows = [
            {"id": name, "object": "model", "created": 1, "owned_by": "vllm"}
            | ({"max_model_len": length} if length else {})
            for name, length in self.models.items()
        ]
        return web.json_response({"object": "list", "data": rows})

    async def serve_embeddings(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append(body)
        self.keys.append(request.headers["authorization"])
        if self.statuses:
            words = {"message": "no", "type": "x", "param": None, "code": None}
            headers = {"retry-after": "0"}
            return web.json_response({"error": words}, status=self.statuses.pop(0), headers=headers)
        if body["model"] not in self.models:
            words = {"message": f"The model `{body['model']}` does not exist.", "code": 404}
            return web.json_response({"error": words}, status=404)
        # Servers need not keep the order: each row tells its place.
        rows = [
            {
                "object": "embedding",
                "index": index,
                "embedding": _encoded(text, body),
            }
            for index, text in reversed(list(enumerate(body["input"])))
        ]
        if self.garbled:
            rows[0]["index"] = 7
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return web.json_response(
            {"object": "list", "data": rows, "model": body["model"], "usage": usage}
        )


def _encoded(text: str, body: dict[str, Any]) -> str | list[float]:
    vector = 3 * vector_of(text)
    if body.get("encoding_format") == "base64":
        return base64.b64encode(vector.astype(np.float32).tobytes()).decode()
    return vector.tolist()


@pytest.fixture
async def fake() -> AsyncIterator[EmbeddingsFake]:
    served = EmbeddingsFake()
    app = web.Application()
    app.router.add_get("/v1/models", served.serve_models)
    app.router.add_post("/v1/embeddings", served.serve_embeddings)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield served
    await runner.cleanup()


async def at_once(_seconds: float) -> None:
    await asyncio.sleep(0)


@asynccontextmanager
async def embedder_on(
    fake: EmbeddingsFake, *, tokenizer: str = PACKAGED_MODEL, key: str = "", **served: Any
) -> AsyncIterator[OpenAIEmbedder]:
    endpoint = Endpoint("the embeddings endpoint", fake.url, key, "KEY")
    opening = open_openai_embedder(
        endpoint, ServedModel(**served), tokenizer, batch_size=32, patience=0.3, sleep=at_once
    )
    embedder = await opening
    fake.asked.clear()
    try:
        yield embedder
    finally:
        await embedder.close()


async def refusal(call: object) -> TuneproofError:
    with pytest.raises(TuneproofError) as caught:
        await call
    return caught.value


async def test_a_thousand_texts_come_back_in_order_with_length_one_and_are_asked_once(
    fake: EmbeddingsFake,
) -> None:
    texts = [f"text {number} " + "word " * (number * 7 % 30) for number in range(1000)]
    async with embedder_on(fake) as embedder:
        fake.statuses = [429, 503, 500] * 10
        vectors = await embedder.embed_passages(texts)
        assert [*vectors] == [pytest.approx(vector_of(text), abs=1e-6) for text in texts]
        assert all(len(body["input"]) <= 32 for body in fake.asked)
        assert sum(len(body["input"]) for body in fake.asked[30:]) <= 1000
        assert (await embedder.embed_passages([])).shape == (0, DIMENSION)


async def test_model_limit_and_room_come_from_the_server_and_the_tokenizer(
    fake: EmbeddingsFake, embedder: SentenceEmbedder
) -> None:
    async with embedder_on(fake, query_prompt="query: ") as remote:
        assert remote.identity.id == "served"
        assert remote.identity.dimension == DIMENSION
        assert remote.identity.max_tokens == 256 - 2 - 2
        texts = ["Größe 3.5 — 測試", "", "word " * 3000]
        assert await remote.offsets(texts) == await embedder.offsets(texts)
        await remote.embed_query("a")
        await remote.embed_passages(["a"])
        assert [body["input"] for body in fake.asked] == [["query: a"], ["a"]]
        error = await refusal(remote.embed_query("word " * 300))
        assert isinstance(error, InvalidInput)
        assert error.field == "query"
        await remote.check_ready()


async def test_the_identity_is_of_model_revision_tokenizer_and_prompts(
    fake: EmbeddingsFake, tmp_path: Path
) -> None:
    fake.models["other"] = 256
    digests = set()
    for served in (
        {"name": "served"},
        {"name": "served", "max_tokens": 128},
        {"name": "other"},
        {"name": "served", "revision": "2"},
        {"name": "served", "query_prompt": "query: "},
        {"name": "served", "passage_prompt": "query: "},
    ):
        async with embedder_on(fake, **served) as embedder:
            digests.add(embedder.identity.digest)
    assert len(digests) == 5, "how much is read at once does not change a vector"


async def test_what_the_server_does_not_tell_must_be_set(fake: EmbeddingsFake) -> None:
    fake.models = {"a": None, "b": None}
    with pytest.raises(InvalidInput, match="lists a, b; name one by --embedder-model"):
        async with embedder_on(fake):
            pass
    with pytest.raises(InvalidInput, match="set --embedder-max-tokens"):
        async with embedder_on(fake, name="a"):
            pass
    fake.lists = False
    async with embedder_on(fake, name="a", max_tokens=100) as embedder:
        assert embedder.identity.max_tokens == 98
        await embedder.check_ready()


@pytest.mark.parametrize(
    ("code", "kind"), [(400, InvalidInput), (413, InvalidInput), (401, WrongState)]
)
async def test_a_refusal_is_told_at_once(
    fake: EmbeddingsFake, code: int, kind: type[TuneproofError]
) -> None:
    async with embedder_on(fake, key="secret") as embedder:
        fake.statuses = [code]
        assert isinstance(await refusal(embedder.embed_passages(["a"])), kind)
        assert len(fake.asked) == 1
        assert fake.keys[-1] == "Bearer secret"


async def test_overload_is_told_at_the_deadline(fake: EmbeddingsFake) -> None:
    async with embedder_on(fake) as embedder:
        fake.statuses = [429] * 100_000
        end = asyncio.get_running_loop().time() + 0.3
        assert isinstance(await refusal(embedder.embed_query("a", deadline=end)), Overloaded)
        assert len(fake.asked) > 1


async def test_a_model_that_is_gone_and_rows_that_are_not_those_of_the_texts_are_told(
    fake: EmbeddingsFake,
) -> None:
    async with embedder_on(fake) as embedder:
        fake.garbled = True
        end = asyncio.get_running_loop().time() + 0.2
        error = await refusal(embedder.embed_query("a", deadline=end))
        assert isinstance(error, Unavailable)
        fake.models = {"another": 256}
        error = await refusal(embedder.embed_query("a"))
        assert isinstance(error, WrongState)
        assert "does not exist" in error.message


async def test_a_server_and_a_tokenizer_that_are_not_there_are_told(
    fake: EmbeddingsFake, tmp_path: Path
) -> None:
    fake.url = "http://127.0.0.1:1/v1"
    with pytest.raises(Unavailable, match="does not answer"):
        async with embedder_on(fake):
            pass
    with pytest.raises(InvalidInput, match=r"no tokenizer\.json in its folder"):
        async with embedder_on(fake, tokenizer=str(tmp_path)):
            pass
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InvalidInput, match="cannot be loaded"):
        async with embedder_on(fake, tokenizer=str(tmp_path)):
            pass
