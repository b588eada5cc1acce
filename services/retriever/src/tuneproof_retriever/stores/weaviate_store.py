"""A vector store on a Weaviate server, which several retrievers may share.

A corpus is a collection (see `weaviate_schema`), a passage an object with the passage's own id, so
that writing it again replaces it. Weaviate writes objects one by one: `documents` tells which
documents are whole, and `add` replaces what an interrupted call left of others.
"""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from weaviate.classes.aggregate import Metrics
from weaviate.classes.config import ConsistencyLevel
from weaviate.classes.data import DataObject
from weaviate.classes.query import Filter, MetadataQuery
from weaviate.exceptions import UnexpectedStatusCodeError, WeaviateInsertManyAllFailedError

from tuneproof.servicekit.errors import Corrupted, NotFound, Overloaded, TuneproofError, Unavailable
from tuneproof.servicekit.retries import Retries
from tuneproof_retriever.corpus import Corpus, Hit, PreparedDocument, Vector
from tuneproof_retriever.stores.protocol import Counts, StoredPassage
from tuneproof_retriever.stores.tags import tags_of
from tuneproof_retriever.stores.weaviate_connection import Connection, Server, connected
from tuneproof_retriever.stores.weaviate_objects import (
    PASSAGE_PROPERTIES,
    PLACE_PROPERTIES,
    held_of,
    objects_of,
    passage_of_object,
    stored_passage_of_object,
)
from tuneproof_retriever.stores.weaviate_schema import (
    Filler,
    Layout,
    Record,
    collection,
    collection_name,
    corpus_name,
    dump,
    parse,
)
from tuneproof_retriever.stores.word_stems import word_stems

_PAGE = 1000
_BATCH = 500
_DELETIONS = 8
MOST_HITS = 10_000
"""Weaviate's own limit (QUERY_MAXIMUM_RESULTS), unless its operator raises it."""
_CLAIM = timedelta(seconds=60)
_RENEWAL = timedelta(seconds=20)
_SETTLE_SECONDS = 0.25
_NOT_STORED = "PASSAGES_NOT_STORED"
_AGAIN = Retries(
    first=0.2,
    longest=2.0,
    attempts=4,
    # A batch that got no answer is not sent again here: see `mend`.
    passing=lambda error: (
        isinstance(error, Overloaded) or getattr(error, "reason", "") == _NOT_STORED
    ),
)


@dataclass(frozen=True)
class WeaviateOptions:
    """How a retriever uses a server."""

    server: Server
    prefix: str = "Tuneproof"
    """Begins the names of its collections."""
    layout: Layout = field(default_factory=Layout)
    consistency: str = "QUORUM"
    """How many replicas must answer a read and a write: ONE, QUORUM or ALL."""


class WeaviateStore:
    """See `VectorStore`. Use `open_weaviate_store` to get one."""

    def __init__(self, connection: Connection, options: WeaviateOptions) -> None:
        self._connection = connection
        self._options = options
        self._level = ConsistencyLevel[options.consistency]
        self._id = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._parts: dict[str, dict[str, list[str]]] = {}
        """What interrupted calls left, by corpus and document."""

    @property
    def outages(self) -> int:
        """See `VectorStore`."""
        return self._connection.outages

    async def create(self, corpus: Corpus) -> bool:
        """See `VectorStore`."""
        prefix = self._options.prefix
        async with self._connection.calling(corpus.name, self._write_seconds) as client:
            try:
                await client.collections.create(**collection(prefix, corpus, self._options.layout))
            except UnexpectedStatusCodeError as error:
                if "already exists" not in str(error):
                    raise
            else:
                self._parts[corpus.name] = {}
                return True
            name = collection_name(prefix, corpus.name)
            if await self._record(corpus.name) is not None:
                return False
            # Weaviate makes a collection for objects whose own was deleted a moment before.
            await client.collections.delete(name)
        return await self.create(corpus)

    async def load(self, name: str) -> Corpus:
        """See `VectorStore`."""
        return (await self._present(name)).corpus

    async def save(self, corpus: Corpus) -> None:
        """See `VectorStore`."""
        record = await self._present(corpus.name)
        await self._write(replace(record, corpus=corpus))

    async def delete(self, name: str) -> None:
        """See `VectorStore`."""
        await self._present(name)
        self._parts.pop(name, None)
        async with self._connection.calling(name, self._write_seconds) as client:
            await client.collections.delete(collection_name(self._options.prefix, name))

    async def names(self) -> list[str]:
        """See `VectorStore`."""
        async with self._connection.calling("") as client:
            found = await client.collections.list_all(simple=True)
        names = (
            corpus_name(self._options.prefix, each)
            for each, config in found.items()
            if parse(config.description)
        )
        return sorted(name for name in names if name)

    async def documents(self, name: str) -> dict[str, str]:
        """See `VectorStore`. Reads the place of every passage."""
        await self._present(name)
        objects = [each async for page in self._pages(name, PLACE_PROPERTIES) for each in page]
        held = held_of(objects)
        self._parts[name] = held.parts
        return held.whole

    async def add(self, name: str, documents: Sequence[PreparedDocument]) -> None:
        """See `VectorStore`."""
        # Weaviate would make a collection that is not there.
        await self._present(name)
        if name not in self._parts:
            await self.documents(name)
        parts = self._parts[name]
        left = [id_ for document in documents for id_ in parts.get(document.id, ())]
        # Until it has ended well, what this call leaves is unknown.
        del self._parts[name]
        await self._remove(name, left)
        objects = objects_of(documents)
        for first in range(0, len(objects), _BATCH):
            await self._insert(name, objects[first : first + _BATCH])
        for document in documents:
            parts.pop(document.id, None)
        self._parts[name] = parts

    async def counts(self, name: str) -> Counts:
        """See `VectorStore`."""
        await self._present(name)
        async with self._connection.calling(name) as client:
            found = await self._collection(client, name).aggregate.over_all(
                total_count=True,
                filters=Filter.by_property("ordinal").equal(0),
                return_metrics=Metrics("siblings").integer(sum_=True),
            )
        passages = found.properties["siblings"].sum_ if found.total_count else 0
        return Counts(found.total_count, int(passages or 0))

    async def scan(self, name: str) -> AsyncIterator[list[StoredPassage]]:
        """See `VectorStore`. Memory is that of one list."""
        await self._present(name)
        wanted = [*PASSAGE_PROPERTIES, "ordinal", "siblings"]
        async for page in self._pages(name, wanted):
            yield [stored_passage_of_object(each) for each in page]

    async def build_indexes(self, name: str) -> None:
        """See `VectorStore`. Weaviate indexes while it stores."""
        await self._present(name)

    async def vectors(self, name: str, ids: Sequence[str]) -> dict[str, Vector]:
        """See `VectorStore`."""
        if not ids:
            return {}
        async with self._connection.calling(name, self._write_seconds) as client:
            found = await self._collection(client, name).query.fetch_objects_by_ids(
                ids, limit=len(ids), include_vector=True, return_properties=[]
            )
        return {
            str(each.uuid): np.asarray(each.vector["default"], np.float32)
            for each in found.objects
            if each.vector.get("default")
        }

    async def mend(self, name: str, ids: Sequence[str]) -> None:
        """See `VectorStore`.

        Weaviate 1.39 leaves an object that is written again unchanged out of its indexes, and so
        does an update: only what was deleted by its id and then inserted is indexed anew.
        """
        for first in range(0, len(ids), _BATCH):
            some = ids[first : first + _BATCH]
            async with self._connection.calling(name, self._write_seconds) as client:
                found = await self._collection(client, name).query.fetch_objects_by_ids(
                    some, limit=len(some), include_vector=True
                )
            bare = [str(each.uuid) for each in found.objects if not each.vector.get("default")]
            if bare:
                raise Corrupted(
                    f"corpus {name!r} lost the vectors of {len(bare)} passages, first {bare[0]};"
                    " delete the corpus and ingest again",
                    corpus=name,
                )
            await self._remove(name, some)
            await self._insert(name, [_as_new(each) for each in found.objects])

    async def dense(
        self, name: str, vector: Vector, limit: int, where: Mapping[str, str]
    ) -> list[Hit]:
        """See `VectorStore`."""
        async with self._connection.calling(name) as client:
            found = await self._collection(client, name).query.near_vector(
                near_vector=vector,
                limit=min(limit, MOST_HITS),
                filters=_filter(where),
                return_metadata=MetadataQuery(distance=True),
                return_properties=PASSAGE_PROPERTIES,
            )
        return [
            Hit(passage_of_object(each), 1.0 - each.metadata.distance) for each in found.objects
        ]

    async def keyword(
        self, name: str, words: str, limit: int, where: Mapping[str, str]
    ) -> list[Hit]:
        """See `VectorStore`."""
        stems = word_stems(words)
        if not stems:
            await self._present(name)
            return []
        async with self._connection.calling(name) as client:
            found = await self._collection(client, name).query.bm25(
                query=stems,
                query_properties=["words"],
                limit=min(limit, MOST_HITS),
                filters=_filter(where),
                return_metadata=MetadataQuery(score=True),
                return_properties=PASSAGE_PROPERTIES,
            )
        return [Hit(passage_of_object(each), each.metadata.score) for each in found.objects]

    async def claim(self, name: str) -> str:
        """See `VectorStore`.

        Weaviate replaces a description without a condition. So a claim is written, and holds if
        it is still there after a moment in which another retriever that read the record before
        would have written its own.
        """
        now = datetime.now(UTC)
        record = await self._present(name)
        held = record.filler
        if held is not None and held.id == self._id:
            if held.until - now < _CLAIM - _RENEWAL:
                await self._write(replace(record, filler=replace(held, until=now + _CLAIM)))
            return held.turn
        if held is not None and held.until > now:
            raise _filled(name, held)
        claim = Filler(self._id, now + _CLAIM, uuid.uuid4().hex)
        await self._write(replace(record, filler=claim))
        await asyncio.sleep(_SETTLE_SECONDS)
        holder = (await self._present(name)).filler
        if holder is None or holder.turn != claim.turn:
            raise _filled(name, holder)
        self._parts.pop(name, None)
        return claim.turn

    async def release(self, name: str) -> None:
        """See `VectorStore`."""
        record = await self._record(name)
        if record is not None and record.filler is not None and record.filler.id == self._id:
            await self._write(replace(record, filler=None))

    async def check_ready(self) -> None:
        """See `VectorStore`."""
        await self._connection.check()

    @property
    def _write_seconds(self) -> float:
        return self._connection.server.write_seconds

    def _collection(self, client: Any, name: str) -> Any:
        found = client.collections.use(collection_name(self._options.prefix, name))
        return found.with_consistency_level(self._level)

    async def _record(self, name: str) -> Record | None:
        async with self._connection.calling(name) as client:
            wanted = client.collections.use(collection_name(self._options.prefix, name))
            return parse((await wanted.config.get(simple=True)).description)

    async def _present(self, name: str) -> Record:
        record = await self._record(name)
        if record is None:
            raise NotFound(f"there is no corpus {name!r}", corpus=name)
        return record

    async def _write(self, record: Record) -> None:
        name = record.corpus.name
        async with self._connection.calling(name, self._write_seconds) as client:
            wanted = client.collections.use(collection_name(self._options.prefix, name))
            await wanted.config.update(description=dump(record))

    async def _pages(self, name: str, properties: Sequence[str]) -> AsyncIterator[list[Any]]:
        after = None
        while True:
            async with self._connection.calling(name, self._write_seconds) as client:
                found = await self._collection(client, name).query.fetch_objects(
                    limit=_PAGE, after=after, return_properties=list(properties)
                )
            if not found.objects:
                return
            yield found.objects
            after = found.objects[-1].uuid

    async def _insert(self, name: str, objects: Sequence[Any]) -> None:
        """Writes a batch. Objects that fail are removed and written again, a few times."""
        todo, again = list(objects), False

        async def attempt() -> None:
            nonlocal todo, again
            if again:
                await self._remove(name, [str(each.uuid) for each in todo])
            again = True
            failed, reason = await self._insert_once(name, todo)
            todo = [todo[index] for index in failed]
            if todo:
                first = todo[0].properties["document_id"]
                raise Unavailable(
                    f"Weaviate did not store {len(todo)} of {len(objects)} passages, first of"
                    f" document {first!r}: {reason}",
                    reason=_NOT_STORED,
                    corpus=name,
                )

        await _AGAIN.call(attempt)

    async def _insert_once(self, name: str, objects: Sequence[Any]) -> tuple[list[int], str]:
        """Writes objects; the places of those that failed, and why the first did."""
        async with self._connection.calling(name, self._write_seconds) as client:
            try:
                done = await self._collection(client, name).data.insert_many(objects)
            except WeaviateInsertManyAllFailedError as error:
                return list(range(len(objects))), error.message
            reasons = {index: failure.message for index, failure in done.errors.items()}
        return sorted(reasons), next(iter(reasons.values()), "")

    async def _remove(self, name: str, ids: Sequence[str]) -> None:
        """Deletes objects one by one: `delete_many` by id can miss some."""
        limit = asyncio.Semaphore(_DELETIONS)

        async def remove(id_: str) -> None:
            async with limit, self._connection.calling(name, self._write_seconds) as client:
                await self._collection(client, name).data.delete_by_id(id_)

        try:
            async with asyncio.TaskGroup() as removing:
                for id_ in ids:
                    removing.create_task(remove(id_))
        except* TuneproofError as failures:
            raise failures.exceptions[0] from None


@asynccontextmanager
async def open_weaviate_store(options: WeaviateOptions) -> AsyncIterator[WeaviateStore]:
    """The store on a server, which need not be there yet."""
    async with connected(options.server) as connection:
        yield WeaviateStore(connection, options)


def _as_new(found: Any) -> Any:
    return DataObject(uuid=found.uuid, properties=found.properties, vector=found.vector)


def _filter(where: Mapping[str, str]) -> Any:
    return Filter.by_property("tags").contains_all(tags_of(where)) if where else None


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
