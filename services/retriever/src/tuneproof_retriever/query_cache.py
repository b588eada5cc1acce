"""Keeps the vectors of the latest queries."""

from __future__ import annotations

from collections import OrderedDict

from prometheus_client import Counter

from tuneproof_retriever.corpus import Vector

_QUERIES = Counter(
    "tuneproof_retriever_query_vectors",
    "Queries by where their vector came from: `cache` or `embedder`.",
    ["source"],
)


class QueryCache:
    """Vectors by query text; the one that was not asked for the longest goes first."""

    def __init__(self, size: int) -> None:
        """
        Args:
            size: most vectors; 0 keeps none.
        """
        self._size = size
        self._vectors: OrderedDict[str, Vector] = OrderedDict()

    def get(self, text: str) -> Vector | None:
        """The vector of a query, None where it must be computed."""
        vector = self._vectors.get(text)
        if vector is not None:
            self._vectors.move_to_end(text)
        _QUERIES.labels("embedder" if vector is None else "cache").inc()
        return vector

    def put(self, text: str, vector: Vector) -> None:
        """Keeps a vector."""
        self._vectors[text] = vector
        self._vectors.move_to_end(text)
        if len(self._vectors) > self._size:
            self._vectors.popitem(last=False)
