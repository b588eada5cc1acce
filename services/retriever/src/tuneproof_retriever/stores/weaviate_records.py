"""The collections of a Weaviate server: their records, and who may change them."""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import structlog
from weaviate.exceptions import UnexpectedStatusCodeError

from tuneproof.servicekit.errors import Corrupted, NotFound, TuneproofError, Unavailable
from tuneproof_retriever.corpus import Corpus, CorpusState
from tuneproof_retriever.stores.weaviate_connection import Connection
from tuneproof_retriever.stores.weaviate_options import WeaviateOptions
from tuneproof_retriever.stores.weaviate_schema import (
    Filler,
    Record,
    collection,
    collection_name,
    corpus_name,
    dump,
    is_record,
    parse,
)
from tuneproof_retriever.stores.weaviate_seeds import seed

_CLAIM = timedelta(seconds=60)
_RENEWAL = timedelta(seconds=20)
_SETTLE_SECONDS = 0.25
_KEPT_SECONDS = _SETTLE_SECONDS
"""How old the record of a frozen corpus may be. A corpus that another retriever deletes and makes
anew is empty for longer, so no passage of it is found under the old record."""

_log = structlog.get_logger(__name__)


class Records:
    """The records of one prefix's corpora."""

    def __init__(self, connection: Connection, options: WeaviateOptions) -> None:
        self._connection = connection
        self._options = options
        self._claimed: set[str] = set()
        self._changing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By name: a renewal between another call's reading and writing would undo that call."""
        self._frozen: dict[str, tuple[float, Record]] = {}
        """Records of frozen corpora, by name, and until when they may be used."""
        self._id = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"

    def collection_of(self, name: str) -> str:
        """Weaviate's name for a corpus's collection."""
        return collection_name(self._options.prefix, name)

    async def create(self, corpus: Corpus) -> bool:
        """Makes an empty collection with its record; False when the corpus exists."""
        made = collection(self._options.prefix, corpus, self._options.layout)
        async with self._connection.calling(corpus.name, writing=True) as client:
            try:
                await client.collections.create(**made)
            except UnexpectedStatusCodeError as error:
                if "already exists" not in str(error):
                    raise
            else:
                return True
        if await self.find(corpus.name) is not None:
            return False
        # Weaviate makes a collection for objects whose own was deleted a moment before.
        await self.remove(corpus.name)
        return await self.create(corpus)

    async def find(self, name: str) -> Record | None:
        """The record of a collection; None when it holds none.

        Raises:
            NotFound: when there is no such collection.
            Corrupted: when its record is of another version, or damaged.
        """
        async with self._connection.calling(name) as client:
            wanted = client.collections.use(self.collection_of(name))
            description = (await wanted.config.get(simple=True)).description
        record = parse(description)
        if record is None and is_record(description):
            raise Corrupted(
                f"the record of corpus {name!r} cannot be read: it is damaged, or a retriever of"
                " another version wrote it; use that version, or delete the corpus and ingest"
                " again",
                corpus=name,
            )
        return record

    async def get(self, name: str) -> Record:
        """The record of a corpus.

        Raises:
            NotFound: when there is none.
        """
        record = await self.find(name)
        if record is None:
            raise NotFound(f"there is no corpus {name!r}", corpus=name)
        return record

    async def recent(self, name: str) -> Record:
        """As `get`, but of a frozen corpus perhaps as it was a moment ago: each search asks."""
        now = asyncio.get_running_loop().time()
        until, record = self._frozen.get(name, (0.0, None))
        if record is None or now > until:
            self._frozen.pop(name, None)
            record = await self.get(name)
            if record.corpus.state is CorpusState.FROZEN:
                self._frozen[name] = (now + _KEPT_SECONDS, record)
        return record

    async def save(self, corpus: Corpus) -> None:
        """Replaces the record of a corpus."""
        async with self._changing[corpus.name]:
            await self._write(replace(await self.get(corpus.name), corpus=corpus))

    async def remove(self, name: str) -> None:
        """Removes a collection."""
        self._frozen.pop(name, None)
        self._claimed.discard(name)
        async with self._connection.calling(name, writing=True) as client:
            await client.collections.delete(self.collection_of(name))

    async def names(self) -> list[str]:
        """All corpora, sorted, with those whose record cannot be read."""
        async with self._connection.calling("") as client:
            found = await client.collections.list_all(simple=True)
        names = (
            corpus_name(self._options.prefix, each)
            for each, config in found.items()
            if is_record(config.description)
        )
        return sorted(name for name in names if name)

    async def claim(self, name: str) -> str:
        """See `VectorStore.claim`.

        Weaviate replaces a description without a condition. So a claim is written, and holds if
        it is still there after a moment in which another retriever that read the record before
        would have written its own.
        """
        async with self._changing[name]:
            turn = await self._claim(name)
            self._claimed.add(name)
        return turn

    async def _claim(self, name: str) -> str:
        now = datetime.now(UTC)
        record = await self.get(name)
        held = record.filler
        if held is not None and held.id == self._id:
            await self._prolong(record, held, now)
            return held.turn
        if held is not None and held.until > now:
            raise _filled(name, held)
        if held is None:  # no one has updated the collection yet
            async with self._connection.calling(name, writing=True) as client:
                new = client.collections.use(self.collection_of(name))
                await seed(new, record.corpus.embedder.dimension)
        claim = Filler(self._id, now + _CLAIM, uuid.uuid4().hex)
        await self._write(replace(record, filler=claim))
        await asyncio.sleep(_SETTLE_SECONDS)
        holder = (await self.get(name)).filler
        if holder is None or holder.turn != claim.turn:
            raise _filled(name, holder)
        return claim.turn

    async def release(self, name: str) -> None:
        """See `VectorStore.release`."""
        async with self._changing[name]:
            self._claimed.discard(name)
            record = await self.get(name)
            if record.filler is not None and record.filler.id == self._id:
                # Whoever claims it next knows by the holder whether it is still the last one.
                ended = replace(record.filler, until=datetime.now(UTC))
                await self._write(replace(record, filler=ended))

    async def renew(self) -> None:
        """Keeps this process's claims until they are released."""
        while True:
            await asyncio.sleep(_RENEWAL.total_seconds())
            for name in list(self._claimed):
                try:
                    await self._renew(name)
                except NotFound:
                    self._claimed.discard(name)
                except TuneproofError:
                    continue  # whoever writes next is told
                except Exception:  # noqa: BLE001 - logged, and the other claims go on
                    _log.exception("a claim was not renewed", corpus=name)

    async def _renew(self, name: str) -> None:
        """Keeps a claim if it is still there; one that was lost or released is not taken again."""
        async with self._changing[name]:
            if name not in self._claimed:
                return
            record = await self.get(name)
            if record.filler is None or record.filler.id != self._id:
                self._claimed.discard(name)
                return
            await self._prolong(record, record.filler, datetime.now(UTC))

    async def _prolong(self, record: Record, held: Filler, now: datetime) -> None:
        if held.until - now < _CLAIM - _RENEWAL:
            await self._write(replace(record, filler=replace(held, until=now + _CLAIM)))

    async def _write(self, record: Record) -> None:
        self._frozen.pop(record.corpus.name, None)
        async with self._connection.calling(record.corpus.name, writing=True) as client:
            wanted = client.collections.use(self.collection_of(record.corpus.name))
            await wanted.config.update(description=dump(record))


def _filled(name: str, holder: Filler | None) -> Unavailable:
    now = datetime.now(UTC)
    seconds = max(1.0, (holder.until - now).total_seconds()) if holder else 1.0
    return Unavailable(
        f"corpus {name!r} is being changed by another retriever"
        f" ({holder.id if holder else 'which has just ended'}); try again when it is done, or in"
        f" {seconds:.0f} s if it has died",
        retry_after=seconds,
        reason="CORPUS_CLAIMED",
        corpus=name,
    )
