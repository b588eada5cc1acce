"""The real embedder, loaded once, and the real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tuneproof_retriever.corpus import Chunking, Corpus, EmbedderIdentity
from tuneproof_retriever.embedders.model_folder import PACKAGED_MODEL
from tuneproof_retriever.embedders.sentence_embedder import SentenceEmbedder, load_sentence_embedder
from tuneproof_retriever.stores.lance_store import LanceStore, open_lance_store


@pytest.fixture(scope="session")
def embedder() -> Iterator[SentenceEmbedder]:
    loaded = load_sentence_embedder(PACKAGED_MODEL, device="cpu", threads=1, batch_size=16)
    yield loaded
    asyncio.run(loaded.close())


@pytest.fixture
async def lance_store(tmp_path: Path) -> AsyncIterator[LanceStore]:
    async with open_lance_store(tmp_path / "corpora", ann_min_passages=1000) as store:
        yield store


@pytest.fixture(params=["lancedb"])
def store(request: pytest.FixtureRequest) -> LanceStore:
    """Every store there is, one after the other."""
    stores = {"lancedb": "lance_store"}
    return request.getfixturevalue(stores[request.param])


@pytest.fixture
def tiny_corpus() -> Corpus:
    """A corpus of four-dimensional vectors, which tests write by hand."""
    identity = EmbedderIdentity("hand", "sha256:" + "0" * 64, dimension=4, max_tokens=100)
    return Corpus("tiny", Chunking(100), identity, datetime(2026, 1, 2, tzinfo=UTC), {"a": "b"})
