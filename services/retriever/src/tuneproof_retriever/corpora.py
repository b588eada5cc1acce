"""The life of corpora: created, filled, frozen, deleted."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog

from tuneproof.servicekit.errors import (
    AlreadyExists,
    Corrupted,
    TuneproofError,
    WrongState,
)
from tuneproof_retriever.corpus import Chunking, Corpus, CorpusState, EmbedderIdentity
from tuneproof_retriever.first_look import FirstLooks
from tuneproof_retriever.freezing import read_content
from tuneproof_retriever.own_words import WordCounts
from tuneproof_retriever.proving import prove
from tuneproof_retriever.stores.protocol import VectorStore

T = TypeVar("T")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Ledger:
    """What an open corpus holds, kept in memory while it is filled."""

    corpus: Corpus
    documents: dict[str, str]
    """Content digests of the complete documents, by id."""
    turn: str
    """The store's claim under which they were read."""
    outages: int | None
    """Of the store when the corpus was empty; None when it held documents already, and nobody knows
    how they came in."""


class Corpora:
    """Corpora in a store, each changed by one call at a time.

    Changes run to their end even if their caller gives up: a cancelled call to a store may have
    happened or not, and nobody could tell which.
    """

    def __init__(
        self, store: VectorStore, embedder: EmbedderIdentity, *, proof_passages: int = 500
    ) -> None:
        """
        Args:
            proof_passages: passages of an undisturbed import that freezing looks up.
        """
        self._store = store
        self._embedder = embedder
        self._proof_passages = proof_passages
        self.looks = FirstLooks(store)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._ledgers: dict[str, Ledger] = {}
        self._streams: Counter[str] = Counter()
        """How many streams fill a corpus now, by name."""
        self._changes: set[asyncio.Task[Any]] = set()

    async def create(self, name: str, chunking: Chunking, labels: Mapping[str, str]) -> Corpus:
        """An empty corpus, or the one of that name if it was made with the same settings.

        Raises:
            AlreadyExists: when it was made with others.
        """
        corpus = Corpus(name, chunking, self._embedder, datetime.now(UTC), dict(labels))
        if await self.to_the_end(self._store.create(corpus)):
            return corpus
        present = await self.get(name)
        same = {
            "chunking": present.chunking == chunking,
            "labels": present.labels == corpus.labels,
            "embedder": present.embedder.digest == self._embedder.digest,
        }
        other = [setting for setting, equal in same.items() if not equal]
        if other:
            raise AlreadyExists(
                f"corpus {name!r} exists with other {' and '.join(other)}; delete it or choose"
                " another name",
                corpus=name,
            )
        return present

    async def get(self, name: str) -> Corpus:
        """A corpus with what it holds now.

        Raises:
            NotFound: when there is none.
        """
        corpus = await self._store.load(name)
        if corpus.state is CorpusState.FROZEN:
            return corpus
        counts = await self._store.counts(name)
        return replace(corpus, document_count=counts.documents, passage_count=counts.passages)

    async def names(self) -> list[str]:
        """Names of all corpora, sorted."""
        return await self._store.names()

    async def freeze(self, name: str) -> Corpus:
        """Verifies a corpus, makes it searchable and gives it its digest.

        Raises:
            NotFound: when there is none.
            WrongState: when it is empty, or another process changed it meanwhile.
            Corrupted: when it is not whole.
            Unavailable: while another process fills it.
        """
        await self._store.load(name)
        return await self.to_the_end(self._freeze(name))

    async def delete(self, name: str) -> None:
        """Removes a corpus, also one that cannot be read.

        Raises:
            NotFound: when there is none.
            Unavailable: while another process fills it.
        """
        with suppress(Corrupted):
            await self._store.load(name)
        await self.to_the_end(self._delete(name))

    @asynccontextmanager
    async def taking(self, name: str) -> AsyncIterator[Ledger]:
        """What an open corpus holds, and the right to fill it while this lasts.

        Raises:
            NotFound: when there is no such corpus.
            WrongState: when it is frozen, or was made with another embedder.
            Unavailable: while another process fills it.
        """
        await self._load_open(name)
        self._streams[name] += 1
        try:
            async with self._locks[name]:
                ledger = await self._ledger(name)
            yield ledger
        finally:
            self._streams[name] -= 1
            releasing = self._begin(self._release(name))
        await asyncio.shield(releasing)

    @asynccontextmanager
    async def filling(self, ledger: Ledger) -> AsyncIterator[None]:
        """Keeps an open corpus as the ledger says while documents are added.

        Raises:
            NotFound: when it was deleted since the ledger was given.
            WrongState: when it was frozen, or deleted and made anew.
            Unavailable: when another process fills it now.
        """
        name = ledger.corpus.name
        async with self._locks[name]:
            if (
                self._ledgers.get(name) is not ledger
                or await self._store.claim(name) != ledger.turn
            ):
                await self._load_open(name)
                raise WrongState(
                    f"corpus {name!r} was changed by another call meanwhile; repeat the ingestion",
                    corpus=name,
                )
            try:
                yield
            except BaseException:
                # Whether the store took the documents is unknown now; it is asked next time.
                del self._ledgers[name]
                raise

    def check_embedder(self, corpus: Corpus) -> None:
        """Raises `WrongState` when a corpus was made with another embedder."""
        if corpus.embedder.digest != self._embedder.digest:
            raise WrongState(
                f"corpus {corpus.name!r} was made with the embedder {corpus.embedder.id}"
                f" ({corpus.embedder.digest[:19]}), and this retriever has {self._embedder.id}"
                f" ({self._embedder.digest[:19]}); start it with the former",
                corpus=corpus.name,
            )

    async def to_the_end(self, change: Coroutine[Any, Any, T]) -> T:
        """Awaits a change that goes on when its caller is cancelled."""
        task = self._begin(change)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # Nobody else would hear of a failure.
            task.add_done_callback(_log_failure)
            raise

    async def close(self) -> None:
        """Waits for changes whose callers have gone."""
        await asyncio.gather(*self._changes, return_exceptions=True)
        await self.looks.close()

    async def _ledger(self, name: str) -> Ledger:
        turn = await self._store.claim(name)
        ledger = self._ledgers.get(name)
        if ledger is None or ledger.turn != turn:
            corpus = await self._load_open(name)
            self.check_embedder(corpus)
            outages = self._store.outages
            documents = await self._store.documents(name)
            ledger = Ledger(corpus, documents, turn, None if documents else outages)
            self._ledgers[name] = ledger
        return ledger

    async def _load_open(self, name: str) -> Corpus:
        corpus = await self._store.load(name)
        if corpus.state is not CorpusState.OPEN:
            raise WrongState(
                f"corpus {name!r} is frozen and takes no more documents; create another",
                corpus=name,
            )
        return corpus

    async def _release(self, name: str) -> None:
        async with self._locks[name]:
            await self._release_unused(name)

    async def _release_unused(self, name: str) -> None:
        if not self._streams[name]:
            # Deleted meanwhile; or the claim ends by time.
            with suppress(TuneproofError):
                await self._store.release(name)

    def _begin(self, change: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return task

    async def _freeze(self, name: str) -> Corpus:
        async with self._locks[name]:
            corpus = await self._store.load(name)
            if corpus.state is CorpusState.FROZEN:
                return corpus
            turn = await self._store.claim(name)
            try:
                corpus = await self._store.load(name)
                if corpus.state is CorpusState.FROZEN:  # by another process, just before
                    return corpus
                frozen = await self._frozen(corpus, turn)
                # The proof may take longer than a claim that cannot be renewed.
                if await self._store.claim(name) != turn:
                    raise WrongState(
                        f"corpus {name!r} was changed by another process while it was frozen;"
                        " repeat the call",
                        corpus=name,
                    )
                # The record is written last: a crash before it leaves an open corpus.
                await self._store.save(frozen)
            finally:
                # What a failed attempt to mend left is asked next time.
                self._ledgers.pop(name, None)
                await self._release_unused(name)
            self.looks.trust(frozen)
            return frozen

    async def _frozen(self, corpus: Corpus, turn: str) -> Corpus:
        name = corpus.name
        words = WordCounts()
        content = await read_content(corpus, words.counting(self._store.scan(name)))
        if not content.documents:
            raise WrongState(
                f"corpus {name!r} is empty; ingest documents before freezing it", corpus=name
            )
        await self._store.build_indexes(name)
        ledger = self._ledgers.get(name)
        undisturbed = (
            ledger is not None and ledger.turn == turn and ledger.outages == self._store.outages
        )
        proof = await prove(
            self._store,
            corpus,
            words,
            content,
            sample=self._proof_passages if undisturbed else None,
        )
        return replace(
            corpus,
            state=CorpusState.FROZEN,
            digest=content.digest,
            document_count=content.documents,
            passage_count=content.passages,
            freeze_time=datetime.now(UTC),
            proof=proof,
        )

    async def _delete(self, name: str) -> None:
        async with self._locks[name]:
            # A record that cannot be read names nobody who fills the corpus.
            with suppress(Corrupted):
                await self._store.claim(name)
            self._ledgers.pop(name, None)
            try:
                await self._store.delete(name)
            finally:
                await self._release_unused(name)


def _log_failure(change: asyncio.Task[Any]) -> None:
    if not change.cancelled() and (error := change.exception()) is not None:
        _log.error("a change failed after its caller had gone", error=str(error))
