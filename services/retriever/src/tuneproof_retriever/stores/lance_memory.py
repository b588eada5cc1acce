"""Small corpora in memory, as of one version of their tables.

LanceDB reads what a search needs from disk: with 20,000 passages a flat search by vector is mostly
that. In memory the same search is the product of a matrix and a vector, exact as before.

Two corpora that do not fit together would displace each other at each search, and reading one takes
as long as many searches on disk. So a corpus stays while it is searched.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt

from tuneproof_retriever.corpus import Candidate, Passage, Vector, Vectors
from tuneproof_retriever.stores.lance_rows import PASSAGE_COLUMNS, passage_of_row

Rows = npt.NDArray[np.int64]

_STAYS_SECONDS = 30.0
"""How long after its last search no other corpus takes a corpus's place."""


@dataclass(frozen=True)
class LoadedCorpus:
    """The passages of a table, in the order of their places: LanceDB's row ids."""

    version: int
    ids: list[str]
    places: npt.NDArray[np.uint64]
    vectors: Vectors
    """Of length 1, one per passage."""
    rows: Any
    """An arrow table with `PASSAGE_COLUMNS`."""

    @property
    def bytes(self) -> int:
        """What it takes in memory, about."""
        return int(self.vectors.nbytes + self.places.nbytes + 2 * self.rows.nbytes)

    def nearest(self, vector: Vector, limit: int, *, whole: bool) -> list[Candidate]:
        """Passages with the greatest cosine, best first; see `VectorStore.dense` for `whole`."""
        # Not by BLAS: its threads and torch's wait for each other, which takes a tenth of a second.
        cosines = np.einsum("ij,j->i", self.vectors, vector / np.linalg.norm(vector))
        rows = np.arange(len(cosines))
        if limit < len(rows):
            rows = np.argpartition(cosines, -limit)[-limit:]
        rows = rows[np.argsort(-cosines[rows])]
        return self._candidates(rows, cosines[rows], whole=whole)

    def scored(
        self, places: npt.NDArray[np.uint64], scores: Vector, *, whole: bool
    ) -> list[Candidate]:
        """Candidates that LanceDB found, by their places."""
        return self._candidates(np.searchsorted(self.places, places), scores, whole=whole)

    def passages_at(self, places: Sequence[int]) -> list[Passage]:
        """The passages at places that this corpus has."""
        return self._passages(np.searchsorted(self.places, np.array(places, np.uint64)))

    def _candidates(self, rows: Rows, scores: Vector, *, whole: bool) -> list[Candidate]:
        passages = self._passages(rows) if whole else [None] * len(rows)
        places = self.places[rows].tolist()
        return [
            Candidate(self.ids[row], score, passage, place)
            for row, score, passage, place in zip(
                rows.tolist(), scores.tolist(), passages, places, strict=True
            )
        ]

    def _passages(self, rows: Rows) -> list[Passage]:
        return [passage_of_row(row) for row in self.rows.take(rows).to_pylist()]


class LoadedCorpora:
    """The corpora that were searched last.

    Args:
        most_bytes: of all together; a corpus with more is not kept.
        below: of passages; a corpus with as many or more is not kept.
    """

    def __init__(self, most_bytes: int, *, below: int) -> None:
        self._most_bytes = most_bytes
        self._below = below
        self._kept: OrderedDict[str, LoadedCorpus] = OrderedDict()
        """Those searched last at the end."""
        self._searched: dict[str, float] = {}
        """When each of these was searched last."""
        self._sizes: dict[str, tuple[int, float]] = {}
        """Version and bytes, at least, of corpora that are not kept, so that no search reads them
        to find out that they do not fit."""
        self._loading = asyncio.Lock()

    async def get(self, name: str, table: Any) -> LoadedCorpus | None:
        """A corpus as its table is now; None where it is to be searched on disk."""
        version = await table.version()
        if self._wants(name, version):
            async with self._loading:
                if self._wants(name, version):
                    await self._load(name, table, version)
        kept = self._kept.get(name)
        if kept is not None:
            self._kept.move_to_end(name)
            self._searched[name] = monotonic()
        return kept

    def drop(self, name: str) -> None:
        """Gives up what is kept of a corpus."""
        self._kept.pop(name, None)
        self._searched.pop(name, None)
        self._sizes.pop(name, None)

    def _wants(self, name: str, version: int) -> bool:
        """Whether a corpus is to be read."""
        if name in self._kept:
            return self._kept[name].version != version
        known, size = self._sizes.get(name, (version, 0.0))
        return known != version or size <= self._room()

    def _room(self) -> int:
        """Bytes that are free or taken by corpora which were not searched lately."""
        now = monotonic()
        staying = (
            each.bytes
            for name, each in self._kept.items()
            if now - self._searched[name] < _STAYS_SECONDS
        )
        return self._most_bytes - sum(staying)

    async def _load(self, name: str, table: Any, version: int) -> None:
        self.drop(name)
        dimension = (await table.schema()).field("vector").type.list_size
        count = await table.count_rows()
        least = inf if count >= self._below else count * dimension * np.float32().nbytes
        if least > self._room():
            self._sizes[name] = (version, least)
            return
        query = table.query().select([*PASSAGE_COLUMNS, "vector"]).with_row_id()
        loaded = await asyncio.to_thread(_loaded, version, await query.to_arrow())
        if loaded.bytes > self._room():
            self._sizes[name] = (version, loaded.bytes)
            return
        self._kept[name] = loaded
        self._searched[name] = monotonic()
        while sum(each.bytes for each in self._kept.values()) > self._most_bytes:
            oldest, gone = self._kept.popitem(last=False)
            del self._searched[oldest]
            self._sizes[oldest] = (gone.version, gone.bytes)


def _loaded(version: int, found: Any) -> LoadedCorpus:
    found = found.sort_by("_rowid").combine_chunks()
    numbers = found["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors = numbers.reshape(found.num_rows, -1) if found.num_rows else numbers.reshape(0, 1)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return LoadedCorpus(
        version,
        ids=found["id"].to_pylist(),
        places=found["_rowid"].to_numpy(),
        vectors=vectors / np.where(lengths > 0, lengths, 1),
        rows=found.select(PASSAGE_COLUMNS),
    )
