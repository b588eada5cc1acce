"""A vector store in a folder, by LanceDB.

One `add` of LanceDB is one commit, and it holds whole documents: so a document is there with all
its passages or not at all, whenever the process dies.
"""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from math import isqrt
from pathlib import Path
from typing import Any

import lancedb
from lancedb.index import FTS, IvfFlat
from lancedb.query import MatchQuery

from tuneproof.servicekit.errors import Corrupted, NotFound, TuneproofError, Unavailable
from tuneproof_retriever.corpus import Candidate, Corpus, Passage, PreparedDocument, Vector
from tuneproof_retriever.stores.lance_folders import CorpusFolders, opened
from tuneproof_retriever.stores.lance_memory import LoadedCorpora
from tuneproof_retriever.stores.lance_rows import (
    PASSAGE_COLUMNS,
    passage_of_row,
    predicate,
    rows_of,
    schema,
    stored_passage_of_row,
)
from tuneproof_retriever.stores.protocol import Counts, StoredPassage, in_order

_TABLE = "passages"
_SCAN_ROWS = 1024
_LACKS = ("os error 12)", "os error 23)", "os error 24)")
"""Memory or open files of the process or the machine."""
# A twentieth of the partitions, and never fewer than these, are searched.
_LEAST_PROBES = 20


class LanceStore:
    """See `VectorStore`. Use `open_lance_store` to get one."""

    def __init__(self, folders: CorpusFolders, *, ann_min_passages: int, memory_bytes: int) -> None:
        self._folders = folders
        self._ann_min_passages = ann_min_passages
        self._loaded = LoadedCorpora(memory_bytes, below=ann_min_passages)
        self._tables: dict[str, Any] = {}

    async def create(self, corpus: Corpus) -> bool:
        """See `VectorStore`."""
        draft = await asyncio.to_thread(self._folders.draft, corpus)
        try:
            connection = await lancedb.connect_async(draft)
            await connection.create_table(_TABLE, schema=schema(corpus.embedder.dimension))
            return await asyncio.to_thread(self._folders.publish, draft, corpus.name)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise

    async def load(self, name: str) -> Corpus:
        """See `VectorStore`."""
        return await asyncio.to_thread(self._folders.load, name)

    async def save(self, corpus: Corpus) -> None:
        """See `VectorStore`."""
        with _writing(corpus.name):
            await asyncio.to_thread(self._folders.save, corpus)

    async def delete(self, name: str) -> None:
        """See `VectorStore`."""
        self._tables.pop(name, None)
        self._loaded.drop(name)
        with _writing(name):
            await asyncio.to_thread(self._folders.remove, name)

    async def names(self) -> list[str]:
        """See `VectorStore`."""
        return await asyncio.to_thread(self._folders.names)

    async def documents(self, name: str) -> dict[str, str]:
        """See `VectorStore`."""
        async with self._reading(name) as table:
            query = table.query().where("ordinal = 0").select(["document_id", "document_digest"])
            found = await query.to_arrow()
        return dict(
            zip(found["document_id"].to_pylist(), found["document_digest"].to_pylist(), strict=True)
        )

    async def add(self, name: str, documents: Sequence[PreparedDocument]) -> None:
        """See `VectorStore`."""
        table = await self._table(name)
        dimension = documents[0].vectors.shape[1]
        rows = await asyncio.to_thread(rows_of, documents, dimension)
        with _writing(name):
            await table.add(rows)

    async def counts(self, name: str) -> Counts:
        """See `VectorStore`."""
        async with self._reading(name) as table:
            return Counts(await table.count_rows("ordinal = 0"), await table.count_rows())

    async def scan(self, name: str) -> AsyncIterator[list[StoredPassage]]:
        """See `VectorStore`. Memory is that of the ids and of one list."""
        columns = [*PASSAGE_COLUMNS, "ordinal", "siblings"]
        async with self._reading(name) as table:
            ids = (await table.query().select(["id"]).with_row_id().to_arrow()).sort_by("id")
            for first in range(0, ids.num_rows, _SCAN_ROWS):
                numbers = ids["_rowid"].slice(first, _SCAN_ROWS).to_pylist()
                rows = await table.take_row_ids(numbers).select(columns).to_list()
                yield [
                    stored_passage_of_row(row) for row in sorted(rows, key=lambda row: row["id"])
                ]

    async def build_indexes(self, name: str) -> None:
        """See `VectorStore`. Vectors get an index only where a flat search would be slow."""
        table = await self._table(name)
        with _writing(name):
            # Nobody else has the folder, so files of interrupted writes may go at once. (LanceDB
            # 0.40 would warn of an age of 0.)
            age = timedelta(milliseconds=1)
            await table.optimize(cleanup_older_than=age, delete_unverified=True)
            words = FTS(with_position=False, stem=True, remove_stop_words=True, ascii_folding=True)
            await table.create_index("text", config=words, replace=True)
            rows = await table.count_rows()
            if rows >= self._ann_min_passages:
                vectors = IvfFlat(distance_type="cosine", num_partitions=max(1, isqrt(rows)))
                await table.create_index("vector", config=vectors, replace=True)

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
        async with self._reading(name) as table:
            if not where and (loaded := await self._loaded.get(name, table)):
                return await asyncio.to_thread(loaded.nearest, vector, limit, whole=whole)
            query = table.query().nearest_to(vector).distance_type("cosine")
            # Without an index this changes nothing.
            probes = max(_LEAST_PROBES, isqrt(await table.count_rows()) // 20)
            query = query.nprobes(probes)
            found = await _run(query, "_distance", limit, where, whole=whole)
        return [_candidate(row, 1.0 - row["_distance"]) for row in found]

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
        async with self._reading(name) as table:
            # A plain string would be parsed by some versions; a MatchQuery is words and no more.
            query = table.query().nearest_to_text(MatchQuery(words, "text"))
            if loaded := await self._loaded.get(name, table):
                query = query.where(predicate(where)) if where else query
                hits = await query.limit(limit).select(["_score"]).with_row_id().to_arrow()
                places, scores = hits["_rowid"].to_numpy(), hits["_score"].to_numpy()
                return loaded.scored(places, scores, whole=whole)
            found = await _run(query, "_score", limit, where, whole=whole)
        return [_candidate(row, row["_score"]) for row in found]

    async def passages(self, name: str, candidates: Sequence[Candidate]) -> list[Passage]:
        """See `VectorStore`."""
        if not candidates:
            return []
        places = [each.place for each in candidates]
        async with self._reading(name) as table:
            if loaded := await self._loaded.get(name, table):
                return in_order(name, candidates, loaded.passages_at(places))
            rows = await table.take_row_ids(places).select(PASSAGE_COLUMNS).to_list()
        return in_order(name, candidates, map(passage_of_row, rows))

    async def vectors(self, name: str, ids: Sequence[str]) -> dict[str, Vector]:
        """See `VectorStore`."""
        if not ids:
            return {}
        chosen = ", ".join(f"'{uuid.UUID(id_)}'" for id_ in ids)
        async with self._reading(name) as table:
            found = await (
                table.query().where(f"id IN ({chosen})").select(["id", "vector"]).to_arrow()
            )
        numbers = found["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        rows = numbers.reshape(found.num_rows, -1) if found.num_rows else []
        return dict(zip(found["id"].to_pylist(), rows, strict=True))

    async def searches_exactly(self, name: str) -> bool:
        """See `VectorStore`. A corpus keeps its index when the retriever is set otherwise."""
        async with self._reading(name) as table:
            indexes = await table.list_indices()
        return all("vector" not in index.columns for index in indexes)

    async def mend(self, name: str, _ids: Sequence[str]) -> None:
        """See `VectorStore`. Both indexes are built anew as a whole."""
        await self.build_indexes(name)

    async def claim(self, _name: str) -> str:
        """See `VectorStore`. The lock on the folder keeps other processes out."""
        return ""

    async def release(self, _name: str) -> None:
        """See `VectorStore`."""

    @property
    def outages(self) -> int:
        """See `VectorStore`. What LanceDB has committed stays."""
        return 0

    async def check_ready(self) -> None:
        """See `VectorStore`."""
        await asyncio.to_thread(self._folders.check)

    async def _table(self, name: str) -> Any:
        table = self._tables.get(name)
        if table is None:
            if not await asyncio.to_thread(self._folders.exists, name):
                raise NotFound(f"there is no corpus {name!r}", corpus=name)
            connection = await lancedb.connect_async(self._folders.of(name))
            table = self._tables[name] = await connection.open_table(_TABLE)
        return table

    @asynccontextmanager
    async def _reading(self, name: str) -> AsyncIterator[Any]:
        # LanceDB 0.40 raises RuntimeError, ValueError and OSError alike for damaged files.
        try:
            yield await self._table(name)
        except TuneproofError:
            raise
        except (RuntimeError, ValueError, OSError) as error:
            self._tables.pop(name, None)
            if any(lack in str(error) for lack in _LACKS):
                raise Unavailable(
                    f"corpus {name!r} cannot be read now: {_first_line(error)}", corpus=name
                ) from error
            if not self._folders.exists(name):
                raise NotFound(f"there is no corpus {name!r} any more", corpus=name) from None
            raise Corrupted(
                f"corpus {name!r} cannot be read: {_first_line(error)}; restore its folder, or"
                " delete the corpus and ingest again",
                corpus=name,
            ) from error


@asynccontextmanager
async def open_lance_store(
    root: Path, *, ann_min_passages: int, memory_bytes: int = 2**28
) -> AsyncIterator[LanceStore]:
    """The store in a folder, which is made where it is missing.

    Args:
        ann_min_passages: corpora of this size and more get an approximate vector index.
        memory_bytes: of smaller corpora, those searched last, that are kept in memory.

    Raises:
        InvalidInput: when the folder cannot be used, or another process uses it.
    """
    with opened(root) as folders:
        yield LanceStore(folders, ann_min_passages=ann_min_passages, memory_bytes=memory_bytes)


async def _run(query: Any, score: str, limit: int, where: Mapping[str, str], *, whole: bool) -> Any:
    if where:
        query = query.where(predicate(where))
    if whole:
        return await query.limit(limit).select([*PASSAGE_COLUMNS, score]).to_list()
    return await query.limit(limit).select(["id", score]).with_row_id().to_list()


def _candidate(row: Mapping[str, Any], score: float) -> Candidate:
    if "_rowid" in row:
        return Candidate(row["id"], score, place=row["_rowid"])
    return Candidate(row["id"], score, passage_of_row(row))


@contextmanager
def _writing(name: str) -> Iterator[None]:
    try:
        yield
    except TuneproofError:
        raise
    except (RuntimeError, ValueError, OSError) as error:
        raise Unavailable(
            f"corpus {name!r} could not be written: {_first_line(error)}; see to the store's disk,"
            " then repeat the call",
            corpus=name,
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
