"""Answers queries from frozen corpora."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tuneproof.servicekit.errors import InvalidInput, WrongState
from tuneproof.servicekit.timing import Stages
from tuneproof_retriever.corpora import Corpora
from tuneproof_retriever.corpus import Corpus, CorpusState, Hit, Passage, Vector
from tuneproof_retriever.embedders.protocol import Embedder
from tuneproof_retriever.limits import check_vectors
from tuneproof_retriever.ranking import best, depth_for, fuse
from tuneproof_retriever.stores.protocol import VectorStore


class SearchMode(StrEnum):
    """By what passages are found."""

    HYBRID = "hybrid"
    DENSE = "dense"
    KEYWORD = "keyword"


@dataclass(frozen=True)
class Query:
    """One search, within the limits."""

    corpus: str
    text: str
    mode: SearchMode
    k: int
    alpha: float
    """Weight of the dense list in hybrid mode, 0 to 1."""
    where: Mapping[str, str] = field(default_factory=dict)
    """Entries that a passage's metadata must hold."""
    expected_digest: str = ""
    """Digest that the corpus must have; empty accepts any."""


@dataclass(frozen=True)
class Found:
    """The answer to a query."""

    hits: tuple[Hit, ...]
    """Best first, at most k."""
    corpus_digest: str


class Searcher:
    """Searches the corpora of a store."""

    def __init__(self, corpora: Corpora, store: VectorStore, embedder: Embedder) -> None:
        self._corpora = corpora
        self._store = store
        self._embedder = embedder

    async def search(self, query: Query, stages: Stages) -> Found:
        """The k passages nearest to a query.

        Raises:
            NotFound: when there is no such corpus.
            WrongState: when it is open, has another digest or was made with another embedder.
            InvalidInput: when the query is longer than the embedder reads.
        """
        corpus = await self._store.load(query.corpus)
        self._check(corpus, query)
        depth = depth_for(query.k)
        if query.mode is SearchMode.KEYWORD:
            with stages.measure("search"):
                hits = await self._keyword(query, depth)
        else:
            vector = await self._embed(query.text, stages)
            with stages.measure("search"):
                if query.mode is SearchMode.DENSE:
                    hits = await self._dense(query, vector, depth)
                else:
                    dense, keyword = await asyncio.gather(
                        self._dense(query, vector, depth), self._keyword(query, depth)
                    )
            if query.mode is SearchMode.HYBRID:
                with stages.measure("fuse"):
                    hits = fuse(dense, keyword, query.alpha)
        return Found(tuple(hits[: query.k]), corpus.digest)

    async def export(self, name: str) -> AsyncIterator[list[Passage]]:
        """All passages of a frozen corpus, by ascending id.

        Raises:
            NotFound: when there is no such corpus.
            WrongState: when it is open.
        """
        self._check_frozen(await self._store.load(name))
        async for batch in self._store.scan(name):
            yield [stored.passage for stored in batch]

    def _check_frozen(self, corpus: Corpus) -> None:
        if corpus.state is not CorpusState.FROZEN:
            raise WrongState(
                f"corpus {corpus.name!r} is open; freeze it before searching it", corpus=corpus.name
            )

    def _check(self, corpus: Corpus, query: Query) -> None:
        self._check_frozen(corpus)
        if query.expected_digest not in ("", corpus.digest):
            raise WrongState(
                f"corpus {corpus.name!r} has the digest {corpus.digest}, not the expected"
                f" {query.expected_digest}; it was made anew from other documents or settings",
                corpus=corpus.name,
            )
        if query.mode is not SearchMode.KEYWORD:
            self._corpora.check_embedder(corpus)

    async def _embed(self, text: str, stages: Stages) -> Vector:
        with stages.measure("embed"):
            tokens = len(self._embedder.offsets(text))
            limit = self._embedder.identity.max_tokens
            if tokens > limit:
                raise InvalidInput(
                    f"query has {tokens} tokens, more than the {limit} that the embedder reads;"
                    " shorten it, or search by keyword",
                    field="query",
                )
            vector = await self._embedder.embed_query(text)
            check_vectors(vector[None], 1, self._embedder.identity)
            return vector

    async def _dense(self, query: Query, vector: Vector, depth: int) -> list[Hit]:
        async def fetch(limit: int) -> list[Hit]:
            return await self._store.dense(query.corpus, vector, limit, query.where)

        return await best(fetch, depth)

    async def _keyword(self, query: Query, depth: int) -> list[Hit]:
        async def fetch(limit: int) -> list[Hit]:
            return await self._store.keyword(query.corpus, query.text, limit, query.where)

        return await best(fetch, depth)
