"""Embeddings over the HTTP of Text Embeddings Inference, for pods of a cluster.

TEI itself is not to be had where these tests run. The model is the real one that a retriever with
torch has in its process, so that passages get the same vectors as on one machine.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web
from tokenizers import Tokenizer

from tuneproof_retriever.embedders.model_folder import PACKAGED_MODEL, find_model
from tuneproof_retriever.embedders.sentence_embedder import SentenceEmbedder, load_sentence_embedder


@contextmanager
def embeddings(host: str) -> Iterator[str]:
    """A server on a thread of its own; its URL."""
    loop = asyncio.new_event_loop()
    model = load_sentence_embedder(
        PACKAGED_MODEL, device="cpu", threads=1, batch_size=32, revision=""
    )
    runner = loop.run_until_complete(_start(_Server(model), host))
    thread = threading.Thread(target=loop.run_forever, name="embeddings")
    thread.start()
    try:
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _start(server: _Server, host: str) -> web.AppRunner:
    app = web.Application()
    app.router.add_get("/info", server.info)
    app.router.add_get("/health", server.health)
    app.router.add_post("/embed", server.embed)
    app.router.add_post("/tokenize", server.tokenize)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, 0).start()
    return runner


class _Server:
    def __init__(self, model: SentenceEmbedder) -> None:
        self._model = model
        self._tokenizer = Tokenizer.from_file(str(find_model(PACKAGED_MODEL) / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    async def info(self, request: web.Request) -> web.Response:
        identity = self._model.identity
        return web.json_response(
            {
                "model_id": PACKAGED_MODEL,
                "model_sha": identity.digest,
                "model_dtype": "float32",
                "model_type": {"embedding": {"pooling": "mean"}},
                "max_input_length": identity.max_tokens + 2,
                "max_batch_tokens": 16384,
                "max_client_batch_size": 32,
                "max_concurrent_requests": 512,
            }
        )

    async def health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def embed(self, request: web.Request) -> web.Response:
        vectors = await self._model.embed_passages((await request.json())["inputs"])
        return web.Response(text=json.dumps(vectors.tolist()), content_type="application/json")

    async def tokenize(self, request: web.Request) -> web.Response:
        asked = await request.json()
        special = asked["add_special_tokens"]
        return web.json_response([self._tokens(text, special) for text in asked["inputs"]])

    def _tokens(self, text: str, special: bool) -> list[dict[str, Any]]:
        found = self._tokenizer.encode(text, add_special_tokens=special)
        return [
            {
                "id": id_,
                "text": token,
                "special": bool(mark),
                "start": None if mark else len(text[:start].encode()),
                "stop": None if mark else len(text[:end].encode()),
            }
            for id_, token, mark, (start, end) in zip(
                found.ids, found.tokens, found.special_tokens_mask, found.offsets, strict=True
            )
        ]
