"""A vector store on a Weaviate server, which several retrievers may share.

A corpus is a collection (see `weaviate_schema`), a passage an object with the passage's own id, so
that writing it again replaces it. Weaviate writes objects one by one: `documents` tells which
documents are whole, and `add` replaces what an interrupted call left of others.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
from weaviate.classes.aggregate import Metrics
from weaviate.classes.config import ConsistencyLevel
from weaviate.classes.data import DataObject
from weaviate.classes.query import Filter

from tuneproof.servicekit.errors import Corrupted
from tuneproof_retriever.corpus import Candidate, Corpus, Passage, PreparedDocument, Vector
from tuneproof_retriever.stores.protocol import Counts, StoredPassage
from tuneproof_retriever.stores.weaviate_batches import insert, remove
from tuneproof_retriever.stores.weaviate_connection import Connection, connected
from tuneproof_retriever.stores.weaviate_objects import (
    PASSAGE_PROPERTIES,
    PLACE_PROPERTIES,
    held_of,
    objects_of,
    stored_passage_of_object,
)
from tuneproof_retriever.stores.weaviate_options import WeaviateOptions
from tuneproof_retriever.stores.weaviate_records import Records
from tuneproof_retriever.stores.weaviate_searches import Searches, passage_of, with_passages
from tuneproof_retriever.stores.word_stems import word_stems

_PAGE = 1000
_MENDED = 50
"""Passages that are mended together: a crash in between leaves so many documents incomplete."""


class WeaviateStore:
    """See `VectorStore`. Use `open_weaviate_store` to get one."""

    def __init__(self, connection: Connection, records: Records, consistency: str) -> None:
        self._connection = connection
        self._records = records
        self._level = ConsistencyLevel[consistency]
        self._parts: dict[str, dict[str, list[str]]] = {}
        """Passages that interrupted calls left, by corpus and document."""
        self._turns: dict[str, str] = {}
        """The last claim, by corpus."""

    @property
    def outages(self) -> int:
        """See `VectorStore`."""
        return self._connection.outages

    async def create(self, corpus: Corpus) -> bool:
        """See `VectorStore`."""
        return await self._records.create(corpus)

    async def load(self, name: str) -> Corpus:
        """See `VectorStore`."""
        return (await self._records.recent(name)).corpus

    async def save(self, corpus: Corpus) -> None:
        """See `VectorStore`."""
        await self._records.save(corpus)

    async def delete(self, name: str) -> None:
        """See `VectorStore`."""
        with suppress(Corrupted):
            await self._records.get(name)
        self._parts.pop(name, None)
        await self._records.remove(name)

    async def names(self) -> list[str]:
        """See `VectorStore`."""
        return await self._records.names()

    async def documents(self, name: str) -> dict[str, str]:
        """See `VectorStore`. Reads the place of every passage."""
        await self._records.get(name)
        held = await held_of(self._pages(name, PLACE_PROPERTIES))
        self._parts[name] = held.parts
        return held.whole

    async def add(self, name: str, documents: Sequence[PreparedDocument]) -> None:
        """See `VectorStore`."""
        # Weaviate would make a collection that is not there.
        await self._records.get(name)
        if name not in self._parts:
            await self.documents(name)
        # Until this call has ended well, what it leaves is unknown.
        parts = self._parts.pop(name)
        left = [id_ for document in documents for id_ in parts.pop(document.id, ())]
        writing = partial(self._using, name, writing=True)
        await remove(writing, left)
        await insert(writing, objects_of(documents))
        self._parts[name] = parts

    async def counts(self, name: str) -> Counts:
        """See `VectorStore`."""
        await self._records.get(name)
        async with self._using(name) as collection:
            found = await collection.aggregate.over_all(
                total_count=True,
                filters=Filter.by_property("ordinal").equal(0),
                return_metrics=Metrics("siblings").integer(sum_=True),
            )
        passages = found.properties["siblings"].sum_ if found.total_count else 0
        return Counts(found.total_count, int(passages or 0))

    async def scan(self, name: str) -> AsyncIterator[list[StoredPassage]]:
        """See `VectorStore`. Memory is that of one list."""
        await self._records.get(name)
        wanted = [*PASSAGE_PROPERTIES, "ordinal", "siblings"]
        async for page in self._pages(name, wanted):
            yield [stored_passage_of_object(each) for each in page]

    async def build_indexes(self, name: str) -> None:
        """See `VectorStore`. Weaviate indexes while it stores."""
        await self._records.get(name)

    async def vectors(self, name: str, ids: Sequence[str]) -> dict[str, Vector]:
        """See `VectorStore`."""
        if not ids:
            return {}
        async with self._using(name, writing=True) as collection:
            found = await collection.query.fetch_objects_by_ids(
                ids, limit=len(ids), include_vector=True, return_properties=[]
            )
        return {
            str(each.uuid): np.asarray(each.vector["default"], np.float32)
            for each in found.objects
            if each.vector
        }

    async def searches_exactly(self, _name: str) -> bool:
        """See `VectorStore`. Weaviate's indexes keep what they search apart from the objects."""
        return False

    async def mend(self, name: str, ids: Sequence[str]) -> None:
        """See `VectorStore`.

        Weaviate 1.39 leaves an object that is written again unchanged out of its indexes, and so
        does an update: only what was deleted by its id and then inserted is indexed anew. It may
        lack in the index of ids too, so that no filter finds it: it is read by a cursor.
        """
        writing = partial(self._using, name, writing=True)
        for first in range(0, len(ids), _MENDED):
            some = [await self._object(name, id_) for id_ in ids[first : first + _MENDED]]
            await remove(writing, [str(each.uuid) for each in some])
            await insert(writing, some)

    async def dense(
        self,
        name: str,
        vector: Vector,
        limit: int,
        where: Mapping[str, str],
        *,
        whole: bool = False,
    ) -> list[Candidate]:
        """See `VectorStore`."""
        async with self._connection.calling(name) as client:
            found = await self._searches(name).dense(client, vector, limit, where)
        return with_passages(found) if whole else found

    async def keyword(
        self,
        name: str,
        words: str,
        limit: int,
        where: Mapping[str, str],
        *,
        whole: bool = False,
    ) -> list[Candidate]:
        """See `VectorStore`."""
        stems = word_stems(words)
        if not stems:
            await self._records.get(name)
            return []
        async with self._connection.calling(name) as client:
            found = await self._searches(name).keyword(client, stems, limit, where)
        return with_passages(found) if whole else found

    async def passages(self, _name: str, candidates: Sequence[Candidate]) -> list[Passage]:
        """See `VectorStore`. The lists brought them."""
        return [passage_of(each) for each in candidates]

    async def claim(self, name: str) -> str:
        """See `VectorStore`."""
        turn = await self._records.claim(name)
        if self._turns.get(name) != turn:
            self._parts.pop(name, None)
        self._turns[name] = turn
        return turn

    async def release(self, name: str) -> None:
        """See `VectorStore`."""
        await self._records.release(name)

    async def check_ready(self) -> None:
        """See `VectorStore`."""
        await self._connection.check()

    def _searches(self, name: str) -> Searches:
        return Searches(self._records.collection_of(name), self._level)

    @asynccontextmanager
    async def _using(self, name: str, *, writing: bool = False) -> AsyncIterator[Any]:
        """The collection of a corpus, for one call."""
        async with self._connection.calling(name, writing=writing) as client:
            collection = client.collections.use(self._records.collection_of(name))
            yield collection.with_consistency_level(self._level)

    async def _object(self, name: str, id_: str) -> DataObject[Any, Any]:
        """A passage's object as it was written."""
        before = uuid.UUID(int=uuid.UUID(id_).int - 1)
        async with self._using(name, writing=True) as collection:
            found = await collection.query.fetch_objects(limit=1, after=before, include_vector=True)
        objects = [each for each in found.objects if str(each.uuid) == id_ and each.vector]
        if not objects:
            raise Corrupted(
                f"corpus {name!r} lost passage {id_} or its vector; delete the corpus and ingest"
                " again",
                corpus=name,
            )
        return DataObject(uuid=id_, properties=objects[0].properties, vector=objects[0].vector)

    async def _pages(self, name: str, properties: Sequence[str]) -> AsyncIterator[list[Any]]:
        after = None
        while True:
            async with self._using(name, writing=True) as collection:
                found = await collection.query.fetch_objects(
                    limit=_PAGE, after=after, return_properties=list(properties)
                )
            if not found.objects:
                return
            yield found.objects
            after = found.objects[-1].uuid


@asynccontextmanager
async def open_weaviate_store(options: WeaviateOptions) -> AsyncIterator[WeaviateStore]:
    """The store on a server, which need not be there yet."""
    async with connected(options.server) as connection:
        records = Records(connection, options)
        renewing = asyncio.create_task(records.renew())
        try:
            yield WeaviateStore(connection, records, options.consistency)
        finally:
            renewing.cancel()
