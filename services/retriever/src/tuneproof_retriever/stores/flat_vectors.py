"""Vectors of small corpora in memory, searched exactly.

LanceDB reads the vectors from disk for each flat search: with 20,000 of them most of a search is
that. In memory the same search is one product of a matrix and a vector.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tuneproof_retriever.corpus import Candidate, Vector, Vectors


@dataclass(frozen=True)
class FlatVectors:
    """The vectors of a table, as of one version of it."""

    version: int
    ids: list[str]
    """Of the passages."""
    places: npt.NDArray[np.uint64]
    """LanceDB's row ids."""
    rows: Vectors
    """Of length 1, one per passage."""

    def nearest(self, vector: Vector, limit: int) -> list[Candidate]:
        """Passages with the greatest cosine, best first."""
        cosines = self.rows @ (vector / np.linalg.norm(vector))
        best: Any = slice(None)
        if limit < len(cosines):
            best = np.argpartition(cosines, -limit)[-limit:]
        chosen = np.arange(len(cosines))[best]
        return [
            Candidate(self.ids[row], float(cosines[row]), place=int(self.places[row]))
            for row in chosen[np.argsort(-cosines[chosen])]
        ]


class FlatCache:
    """The vectors of the corpora that were searched last.

    Args:
        most_bytes: of all vectors together; a corpus with more is not kept.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, FlatVectors] = OrderedDict()
        self._reading = asyncio.Lock()

    async def vectors(self, name: str, table: Any) -> FlatVectors | None:
        """The vectors of a corpus's table as it is now; None where they are too many."""
        version = await table.version()
        kept = self._kept.get(name)
        if kept is None or kept.version != version:
            async with self._reading:
                kept = self._kept.get(name)
                if kept is None or kept.version != version:
                    kept = await self._read(name, table, version)
        if kept is not None:
            self._kept.move_to_end(name)
        return kept

    def drop(self, name: str) -> None:
        """Gives up what is kept of a corpus."""
        self._kept.pop(name, None)

    async def _read(self, name: str, table: Any, version: int) -> FlatVectors | None:
        self.drop(name)
        dimension = (await table.schema()).field("vector").type.list_size
        if await table.count_rows() * dimension * np.float32().nbytes > self._most_bytes:
            return None
        found = await table.query().select(["id", "vector"]).with_row_id().to_arrow()
        kept = await asyncio.to_thread(_flat, version, found, dimension)
        self._kept[name] = kept
        while sum(each.rows.nbytes for each in self._kept.values()) > self._most_bytes:
            self._kept.popitem(last=False)
        return kept


def _flat(version: int, found: Any, dimension: int) -> FlatVectors:
    numbers = found["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    rows = numbers.reshape(-1, dimension)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    places = found["_rowid"].to_numpy().astype(np.uint64)
    return FlatVectors(
        version, found["id"].to_pylist(), places, rows / np.where(lengths > 0, lengths, 1)
    )
