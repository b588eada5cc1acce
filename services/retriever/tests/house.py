"""The domain's parts on one store, with an embedder that costs nothing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Sequence

import numpy as np

from tuneproof.servicekit.timing import Stages
from tuneproof_retriever.corpora import Corpora
from tuneproof_retriever.corpus import Chunking, Corpus, Document, EmbedderIdentity, Vector, Vectors
from tuneproof_retriever.embedders.protocol import Offsets
from tuneproof_retriever.ingestion import Ingestion, IngestReport
from tuneproof_retriever.searching import Query, Searcher, SearchMode
from tuneproof_retriever.stores.protocol import VectorStore

CHUNKING = Chunking(40)


class HashEmbedder:
    """A direction for each text, drawn by its digest: no two texts share one."""

    def __init__(self, max_tokens: int = 100) -> None:
        self.identity = EmbedderIdentity("hash", "sha256:" + "e" * 64, 64, max_tokens)

    async def offsets(
        self, texts: Sequence[str], *, deadline: float | None = None
    ) -> list[Offsets]:
        del deadline
        return [[match.span() for match in re.finditer(r"\S+", text)] for text in texts]

    async def embed_passages(
        self, texts: Sequence[str], *, deadline: float | None = None
    ) -> Vectors:
        del deadline
        return np.stack([self._vector(text) for text in texts])

    async def embed_query(self, text: str, *, deadline: float | None = None) -> Vector:
        del deadline
        return self._vector(text)

    async def check_ready(self) -> None:
        return

    async def close(self) -> None:
        return

    def _vector(self, text: str) -> Vector:
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
        vector = np.random.default_rng(seed).normal(size=self.identity.dimension)
        return (vector / np.linalg.norm(vector)).astype(np.float32)


class HashHouse:
    """A retriever's domain, as one replica has it."""

    def __init__(
        self,
        store: VectorStore,
        *,
        write_passages: int = 100,
        proof_passages: int = 10,
        embedder: HashEmbedder | None = None,
    ) -> None:
        self.store = store
        self.embedder = embedder or HashEmbedder()
        identity = self.embedder.identity
        self.corpora = Corpora(store, identity, proof_passages=proof_passages)
        self.ingestion = Ingestion(
            self.corpora, store, self.embedder, write_passages=write_passages
        )
        self.searcher = Searcher(self.corpora, store, self.embedder)

    async def ingest(self, name: str, documents: Sequence[Document]) -> IngestReport:
        async def stream() -> AsyncIterator[Sequence[Document]]:
            for first in range(0, len(documents), 50):
                yield documents[first : first + 50]

        return await self.ingestion.run(name, stream(), Stages())

    async def make(self, name: str, documents: Sequence[Document]) -> Corpus:
        await self.corpora.create(name, CHUNKING, {})
        await self.ingest(name, documents)
        return await self.corpora.freeze(name)

    async def find(self, name: str, text: str, mode: SearchMode = SearchMode.HYBRID) -> list[str]:
        found = await self.searcher.search(Query(name, text, mode, 3, 0.5), Stages())
        return [hit.passage.document_id for hit in found.hits]


def documents(count: int) -> list[Document]:
    """Documents of one passage, each with a word of its own."""
    return [Document(f"doc-{n}", f"relay own{n:05d} holds {n % 17} contacts") for n in range(count)]
