"""Answers queries from frozen corpora."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

from tuneproof.servicekit.errors import Unavailable, WrongState
from tuneproof.servicekit.timing import Stages
from tuneproof_retriever.corpora import Corpora
from tuneproof_retriever.corpus import Candidate, Corpus, CorpusState, Hit, Passage, Vector
from tuneproof_retriever.embedders.protocol import Embedder, check_vectors
from tuneproof_retriever.query_cache import QueryCache
from tuneproof_retriever.ranking import best, depth_for, fuse
from tuneproof_retriever.reranking.protocol import Reranker, RerankerIdentity, rerank
from tuneproof_retriever.stores.protocol import VectorStore


class SearchMode(StrEnum):
    """By what passages are found."""

    HYBRID = "hybrid"
    DENSE = "dense"
    KEYWORD = "keyword"


@dataclass(frozen=True)
class Rerank:
    """What is read again."""

    depth: int
    """Passages that the search gives to the reranker, at least as many as are asked for."""
    expected: str = ""
    """Id or digest that the reranker must have; empty accepts any."""


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
    rerank: Rerank | None = None
    """None keeps the search's own order."""

    @property
    def wanted(self) -> int:
        """Passages that the search must find."""
        return self.k if self.rerank is None else max(self.k, self.rerank.depth)


@dataclass(frozen=True)
class Found:
    """The answer to a query."""

    hits: tuple[Hit, ...]
    """Best first, at most k."""
    corpus_digest: str
    reranker: RerankerIdentity | None = None
    """What ordered the hits; None for the search itself."""


class Searcher:
    """Searches the corpora of a store."""

    def __init__(
        self,
        corpora: Corpora,
        store: VectorStore,
        embedder: Embedder,
        *,
        reranker: Reranker | None = None,
        cached_queries: int = 0,
    ) -> None:
        """
        Args:
            reranker: None refuses queries that ask for one.
            cached_queries: latest queries whose vectors are kept.
        """
        self._corpora = corpora
        self._store = store
        self._embedder = embedder
        self._reranker = reranker
        self._cache = QueryCache(cached_queries)

    async def search(self, query: Query, stages: Stages, *, deadline: float | None = None) -> Found:
        """The k passages nearest to a query.

        Args:
            deadline: the event loop's time when the caller stops waiting; see also `Embedder`.

        Raises:
            NotFound: when there is no such corpus.
            WrongState: when it is open, has another digest or was made with another embedder.
                Or when it asks for a reranker that is not there.
            InvalidInput: when the query is longer than the embedder or the reranker reads.
            Corrupted: when the corpus changed after it was frozen.
            Unavailable: when the store or a model does not answer before the deadline.
        """
        async with _answered_by(deadline):
            corpus = await self._store.load(query.corpus)
            self._check(corpus, query)
            reranker = self._reranker_for(query)
            await self._corpora.looks.check(corpus)
        hits = await self._find(query, stages, deadline)
        if reranker is None:
            return Found(tuple(hits), corpus.digest)
        with stages.measure("rerank"):
            hits = await rerank(reranker, query.text, hits, deadline=deadline)
        return Found(tuple(hits[: query.k]), corpus.digest, reranker.identity)

    def _reranker_for(self, query: Query) -> Reranker | None:
        if query.rerank is None:
            return None
        if self._reranker is None:
            raise WrongState(
                "this retriever has no reranker; start it with --reranker, or search without"
            )
        identity, expected = self._reranker.identity, query.rerank.expected
        if expected not in ("", identity.id, identity.digest):
            raise WrongState(
                f"this retriever's reranker is {identity.id} ({identity.digest}), not the expected"
                f" {expected}; start it with the latter"
            )
        return self._reranker

    async def export(self, name: str) -> AsyncIterator[list[Passage]]:
        """All passages of a frozen corpus, by ascending id.

        Raises:
            NotFound: when there is no such corpus.
            WrongState: when it is open.
            Corrupted: when it changed after it was frozen.
        """
        corpus = await self._store.load(name)
        self._check_frozen(corpus)
        await self._corpora.looks.check(corpus)
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

    async def _embed(self, text: str, stages: Stages, deadline: float | None) -> Vector:
        with stages.measure("embed"):
            vector = self._cache.get(text)
            if vector is None:
                vector = await self._embedder.embed_query(text, deadline=deadline)
                check_vectors(vector[None], self._embedder.identity, 1)
                self._cache.put(text, vector)
            return vector

    async def _find(self, query: Query, stages: Stages, deadline: float | None) -> list[Hit]:
        """The search's own best passages."""
        fused = query.mode is SearchMode.HYBRID
        # A list that is not fused is read no deeper than asked.
        depth = depth_for(query.wanted) if fused else query.wanted
        lists = []
        if query.mode is not SearchMode.KEYWORD:
            vector = await self._embed(query.text, stages, deadline)
            dense = partial(self._store.dense, query.corpus, vector)
            lists.append(_best(dense, depth, query))
        if query.mode is not SearchMode.DENSE:
            keyword = partial(self._store.keyword, query.corpus, query.text)
            lists.append(_best(keyword, depth, query))
        with stages.measure("search"):
            async with _answered_by(deadline):
                found = await asyncio.gather(*lists)
        if fused:
            with stages.measure("fuse"):
                chosen = fuse(found[0], found[1], query.alpha)[: query.wanted]
            with stages.measure("search"):
                async with _answered_by(deadline):
                    passages = await self._store.passages(query.corpus, chosen)
        else:
            chosen = found[0][: query.wanted]
            passages = [each.passage for each in chosen if each.passage is not None]
        return [Hit(one, each.score) for one, each in zip(passages, chosen, strict=True)]


async def _best(
    search: Callable[..., Awaitable[list[Candidate]]], depth: int, query: Query
) -> list[Candidate]:
    """The best candidates of one list, with their passages where nothing is fused."""
    fused = query.mode is SearchMode.HYBRID
    return await best(
        lambda limit: search(limit, query.where, whole=not fused),
        depth,
        least=depth // 2 if fused else None,
    )


@asynccontextmanager
async def _answered_by(deadline: float | None) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        raise Unavailable("the store did not answer in the caller's time") from None
