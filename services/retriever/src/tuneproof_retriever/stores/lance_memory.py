"""Small corpora in memory, as of one version of their tables.

LanceDB reads what a search needs from disk: with 20,000 passages a flat search by vector is mostly
that. In memory the same search is the product of a matrix and a vector, exact as before.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tuneproof_retriever.corpus import Candidate, Passage, Vector, Vectors
from tuneproof_retriever.stores.lance_rows import PASSAGE_COLUMNS, passage_of_row

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LoadedCorpus:
    """The passages of a table, in the order of their places: LanceDB's row ids."""

    version: int
    ids: list[str]
    places: npt.NDArray[np.uint64]
    vectors: Vectors
    """Of length 1, one per passage."""
    passages: Any
    """An arrow table with `PASSAGE_COLUMNS`."""

    @property
    def bytes(self) -> int:
        """What it takes in memory, about."""
        return int(self.vectors.nbytes + self.places.nbytes + 2 * self.passages.nbytes)

    def nearest(self, vector: Vector, limit: int) -> list[Candidate]:
        """Passages with the greatest cosine, best first."""
        # Not by BLAS: its threads and torch's wait for each other, which takes a tenth of a second.
        cosines = np.einsum("ij,j->i", self.vectors, vector / np.linalg.norm(vector))
        rows = np.arange(len(cosines))
        if limit < len(rows):
            rows = np.argpartition(cosines, -limit)[-limit:]
        rows = rows[np.argsort(-cosines[rows])]
        return self._candidates(rows, cosines[rows])

    def scored(self, places: npt.NDArray[np.uint64], scores: Vector) -> list[Candidate]:
        """Candidates that LanceDB found, by their places."""
        return self._candidates(np.searchsorted(self.places, places), scores)

    def with_passages(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The same candidates, each with its passage."""
        places = np.array([each.place for each in candidates], np.uint64)
        rows = self.passages.take(np.searchsorted(self.places, places)).to_pylist()
        return [
            replace(each, passage=passage_of_row(row))
            for each, row in zip(candidates, rows, strict=True)
        ]

    def _candidates(self, rows: Rows, scores: Vector) -> list[Candidate]:
        return [
            Candidate(self.ids[row], score, place=place)
            for row, score, place in zip(
                rows.tolist(), scores.tolist(), self.places[rows].tolist(), strict=True
            )
        ]


class LoadedCorpora:
    """The corpora that were searched last.

    Args:
        most_bytes: of all together; a corpus with more is not kept.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, LoadedCorpus] = OrderedDict()
        self._loading = asyncio.Lock()

    async def get(self, name: str, table: Any) -> LoadedCorpus | None:
        """A corpus as its table is now; None where it is too large."""
        version = await table.version()
        if not self._has(name, version):
            async with self._loading:
                if not self._has(name, version):
                    await self._load(name, table, version)
        kept = self._kept.get(name)
        if kept is not None:
            self._kept.move_to_end(name)
        return kept

    def drop(self, name: str) -> None:
        """Gives up what is kept of a corpus."""
        self._kept.pop(name, None)

    def _has(self, name: str, version: int) -> bool:
        return name in self._kept and self._kept[name].version == version

    async def _load(self, name: str, table: Any, version: int) -> None:
        self.drop(name)
        dimension = (await table.schema()).field("vector").type.list_size
        if await table.count_rows() * dimension * np.float32().nbytes > self._most_bytes:
            return
        query = table.query().select([*PASSAGE_COLUMNS, "vector"]).with_row_id()
        self._kept[name] = await asyncio.to_thread(_loaded, version, await query.to_arrow())
        while self._kept and sum(each.bytes for each in self._kept.values()) > self._most_bytes:
            self._kept.popitem(last=False)


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
        passages=found.select(PASSAGE_COLUMNS),
    )


def passages_in(candidates: Sequence[Candidate]) -> list[Passage]:
    """The passages that candidates bring."""
    return [each.passage for each in candidates if each.passage is not None]
