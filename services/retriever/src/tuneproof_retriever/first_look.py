"""Whether a frozen corpus is still what was frozen, asked at its first search after a start."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import structlog

from tuneproof.servicekit.errors import Corrupted
from tuneproof_retriever.corpus import Corpus
from tuneproof_retriever.freezing import read_content
from tuneproof_retriever.own_words import WordCounts
from tuneproof_retriever.proving import lost_passages
from tuneproof_retriever.stores.protocol import VectorStore

_READ_BEFORE_ANSWER = 20_000
_SAMPLE = 32
_log = structlog.get_logger(__name__)


class FirstLooks:
    """Compares frozen corpora with their records: their count, their digest, a sample's lookups.

    Up to 20,000 passages are read before the first answer. A larger corpus is counted before it
    and read behind it: searches are refused from the moment at which a difference is found.
    """

    def __init__(self, store: VectorStore) -> None:
        self._store = store
        self._beginning: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By name: a store that is slow with one corpus does not hold up the others."""
        self._reads: dict[str, tuple[str, asyncio.Task[None] | None]] = {}
        """Digest that was looked at, and the reading; None when it need not be read. By name."""

    def trust(self, corpus: Corpus) -> None:
        """Takes a corpus as it is: this process has just frozen it."""
        self._reads[corpus.name] = (corpus.digest, None)

    async def check(self, corpus: Corpus) -> None:
        """Returns when nothing speaks against a frozen corpus.

        Raises:
            Corrupted: when it is not what its record says.
        """
        async with self._beginning[corpus.name]:
            digest, reading = self._reads.get(corpus.name, ("", None))
            if digest != corpus.digest:
                await self._count(corpus)
                reading = asyncio.create_task(self._read(corpus))
                self._reads[corpus.name] = (corpus.digest, reading)
        if reading is None:
            return
        if reading.done() or corpus.passage_count <= _READ_BEFORE_ANSWER:
            try:
                await asyncio.shield(reading)
            except Exception:
                # The next search looks again: what was restored is served again.
                if self._reads.get(corpus.name) == (corpus.digest, reading):
                    del self._reads[corpus.name]
                raise

    async def close(self) -> None:
        """Ends readings under way."""
        readings = [reading for _, reading in self._reads.values() if reading is not None]
        for reading in readings:
            reading.cancel()
        await asyncio.gather(*readings, return_exceptions=True)

    async def _count(self, corpus: Corpus) -> None:
        counts = await self._store.counts(corpus.name)
        expected = (corpus.document_count, corpus.passage_count)
        if (counts.documents, counts.passages) != expected:
            raise _changed(
                corpus,
                f"it holds {counts.documents} documents and {counts.passages} passages, not"
                f" {corpus.document_count} and {corpus.passage_count}",
            )

    async def _read(self, corpus: Corpus) -> None:
        words = WordCounts()
        content = await read_content(corpus, words.counting(self._store.scan(corpus.name)))
        if content.digest != corpus.digest:
            raise _changed(corpus, f"its passages now have the digest {content.digest}")
        places = range(content.passages)
        sample = places[:: max(1, len(places) // _SAMPLE)]
        if lost := await lost_passages(self._store, corpus.name, words, content.passages, sample):
            raise _changed(
                corpus,
                f"{len(lost)} of {len(sample)} passages are not found by their own vector or"
                f" words, first {lost[0]}",
            )
        _log.info("corpus is as it was frozen", corpus=corpus.name, passages=content.passages)


def _changed(corpus: Corpus, what: str) -> Corrupted:
    return Corrupted(
        f"corpus {corpus.name!r} changed after it was frozen as {corpus.digest}: {what};"
        " restore it, or delete it and ingest again",
        corpus=corpus.name,
    )
