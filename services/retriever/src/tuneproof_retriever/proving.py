"""The proof that a corpus's passages are found: each by its own vector, and by its own words.

A store may hold a passage that its indexes lack. Weaviate 1.39 does so after it was killed in an
import, LanceDB's full-text index has been seen to do so; counts show neither.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection

import structlog

from tuneproof.servicekit.errors import Corrupted, Overloaded, TuneproofError
from tuneproof.servicekit.retries import Retries
from tuneproof_retriever.corpus import Corpus, Passage, Proof, Vector
from tuneproof_retriever.freezing import Content
from tuneproof_retriever.own_words import WordCounts
from tuneproof_retriever.stores.protocol import VectorStore

_LOOKUPS = 8
_VAIN = 3
"""Mendings that leave no fewer to be mended until it is given up. Those that leave fewer go on: a
passage that leaves an HNSW graph to be indexed anew may have been the only way to others."""
_SAME = 1e-4
"""Cosines that differ by less are of the same vector: quantised and float16 indexes round."""
_DEEP = 1024
_DEPTHS = (4, 64, _DEEP, 8192)
"""How many hits are asked for, until the passage is among them. Many may have the same vector or
the same words; one that thousands share proves nothing, and passes."""
_AGAIN = Retries(
    first=0.1, longest=5.0, attempts=10, passing=lambda error: isinstance(error, Overloaded)
)
"""A store that takes no more queries now is not one that lacks passages."""
_log = structlog.get_logger(__name__)


async def prove(
    store: VectorStore, corpus: Corpus, words: WordCounts, content: Content, *, sample: int | None
) -> Proof:
    """Looks passages up, and mends those that are not found.

    Args:
        words: counted over the corpus.
        content: what the corpus holds.
        sample: how many passages are looked up, drawn at random; None: all.

    Raises:
        Corrupted: when passages cannot be found though they were indexed anew.
    """
    name, passages = corpus.name, content.passages
    chosen = None
    if sample is not None and sample < passages:
        chosen = frozenset(random.sample(range(passages), sample))
    mended: set[str] = set()
    before, vain = passages + 1, 0
    while True:
        lost = await lost_passages(store, name, words, passages, chosen)
        lost = lost or await _uncounted(store, name, content)
        if not lost:
            return Proof(passages if chosen is None else len(chosen), len(mended))
        vain += len(lost) >= before
        if vain == _VAIN:
            raise Corrupted(
                f"{len(lost)} passages of corpus {name!r} cannot be found by their own vector or"
                f" words, first {lost[0]}, though they were indexed anew; delete the corpus and"
                " ingest again",
                corpus=name,
            )
        _log.warning("passages are not in the indexes", corpus=name, passages=len(lost))
        await store.mend(name, lost)
        mended.update(lost)
        before = len(lost)
        # Where one is missing others may be: from now on all are looked up.
        chosen = None


async def lost_passages(
    store: VectorStore,
    name: str,
    words: WordCounts,
    passages: int,
    chosen: Collection[int] | None,
) -> list[str]:
    """Ids of the passages that are not found by their vector or not by their words.

    Args:
        passages: how many the corpus holds.
        chosen: places of the passages to look up, by ascending id; None: all.

    Raises:
        Corrupted: when the corpus holds another number of passages.
    """
    exact = await store.searches_exactly(name)
    limit = asyncio.Semaphore(_LOOKUPS)
    lost: list[str] = []
    place = 0

    async def is_found(passage: Passage, vector: Vector) -> bool:
        by_vector = exact or await _by_vector(store, name, passage, vector)
        return by_vector and await _by_words(store, name, passage, words)

    async def look(passage: Passage, vector: Vector | None) -> None:
        async with limit:
            if vector is None or not await _AGAIN.call(lambda: is_found(passage, vector)):
                lost.append(passage.id)

    async for batch in store.scan(name):
        some = [
            stored.passage
            for number, stored in enumerate(batch, start=place)
            if chosen is None or number in chosen
        ]
        place += len(batch)
        vectors = await store.vectors(name, [passage.id for passage in some])
        try:
            # Ends with its lookups: those that a failure left would go on asking a busy store.
            async with asyncio.TaskGroup() as looking:
                for passage in some:
                    looking.create_task(look(passage, vectors.get(passage.id)))
        except* TuneproofError as failures:
            raise failures.exceptions[0] from None
    if place != passages:
        raise Corrupted(
            f"corpus {name!r} holds {place} passages now, not {passages}; ingest its documents"
            " again",
            corpus=name,
        )
    return sorted(lost)


async def _uncounted(store: VectorStore, name: str, content: Content) -> list[str]:
    """The first passages of all documents, by which a store counts, if it counts others."""
    counts = await store.counts(name)
    if (counts.documents, counts.passages) == (content.documents, content.passages):
        return []
    return [
        stored.passage.id
        async for batch in store.scan(name)
        for stored in batch
        if stored.ordinal == 0
    ]


async def _by_vector(store: VectorStore, name: str, passage: Passage, vector: Vector) -> bool:
    for depth in _DEPTHS:
        hits = await store.dense(name, vector, depth, {})
        if any(hit.id == passage.id for hit in hits):
            return True
        # An approximate index may miss at a small depth what it finds at a greater one.
        if len(hits) < depth or (depth >= _DEEP and hits[-1].score < 1 - _SAME):
            return False
    return True


async def _by_words(store: VectorStore, name: str, passage: Passage, words: WordCounts) -> bool:
    wanted = words.rarest(passage.text)
    if not wanted:
        return True
    for depth in _DEPTHS:
        # The filter makes sure that the passage's metadata are in their index too.
        hits = await store.keyword(name, wanted, depth, passage.metadata)
        if any(hit.id == passage.id for hit in hits):
            return True
        if len(hits) < depth:
            return False
    return True
