"""The real embedder, loaded once, and the real stores."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tuneproof_retriever.corpus import Chunking, Corpus, EmbedderIdentity
from tuneproof_retriever.embedders.model_folder import PACKAGED_MODEL
from tuneproof_retriever.embedders.sentence_embedder import SentenceEmbedder, load_sentence_embedder
from tuneproof_retriever.stores.lance_store import LanceStore, open_lance_store
from tuneproof_retriever.stores.protocol import VectorStore
from tuneproof_retriever.stores.weaviate_options import Server, WeaviateOptions
from tuneproof_retriever.stores.weaviate_store import (
    WeaviateStore,
    open_weaviate_store,
)

from .weaviate_server import WeaviateServer, new_server


@pytest.fixture(scope="session")
def embedder() -> Iterator[SentenceEmbedder]:
    loaded = load_sentence_embedder(PACKAGED_MODEL, device="cpu", threads=1, batch_size=16)
    yield loaded
    asyncio.run(loaded.close())


@pytest.fixture
async def lance_store(tmp_path: Path) -> AsyncIterator[LanceStore]:
    async with open_lance_store(tmp_path / "corpora", ann_min_passages=1000) as store:
        yield store


@pytest.fixture(scope="session")
def weaviate_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WeaviateServer]:
    server = new_server(tmp_path_factory.mktemp("weaviate"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def weaviate_store(weaviate_server: WeaviateServer) -> AsyncIterator[WeaviateStore]:
    """A store with collections of its own on the one server."""
    server = Server(weaviate_server.url, weaviate_server.grpc)
    options = WeaviateOptions(server, prefix=f"Test{uuid.uuid4().hex}")
    async with open_weaviate_store(options) as store:
        yield store
        for name in await store.names():
            await store.delete(name)


@pytest.fixture(params=["lancedb", pytest.param("weaviate", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest) -> VectorStore:
    """Every store there is, one after the other."""
    stores = {"lancedb": "lance_store", "weaviate": "weaviate_store"}
    return request.getfixturevalue(stores[request.param])


@pytest.fixture
def tiny_corpus() -> Corpus:
    """A corpus of four-dimensional vectors, which tests write by hand."""
    identity = EmbedderIdentity("hand", "sha256:" + "0" * 64, dimension=4, max_tokens=100)
    return Corpus("tiny", Chunking(100), identity, datetime(2026, 1, 2, tzinfo=UTC), {"a": "b"})
