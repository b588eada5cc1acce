"""The stores through their own clients, as an application without a retriever would use them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import lancedb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import weaviate
from lancedb.index import FTS
from lancedb.rerankers import RRFReranker
from weaviate.classes.config import Configure, DataType, Property, VectorDistances
from weaviate.classes.data import DataObject

Vector = npt.NDArray[np.float32]

_WEAVIATE_BATCH = 500
_NAME = "Raw"


class RawStore(Protocol):
    """Passages of a text and a vector each, under numbers."""

    async def add(self, first: int, texts: Sequence[str], vectors: Vector) -> None:
        """Stores passages under the numbers from `first` on."""

    async def index(self) -> None:
        """Makes what was added ready for searches."""

    async def hybrid(self, text: str, vector: Vector, k: int) -> int:
        """The store's own hybrid search; how many passages it found."""

    async def dense(self, vector: Vector, k: int) -> int:
        """Search by vector alone."""

    async def keyword(self, text: str, k: int) -> int:
        """Search by words alone."""


class RawLance:
    """A table of LanceDB, through its asynchronous client."""

    def __init__(self, table: Any) -> None:
        self._table = table

    @staticmethod
    async def create(folder: Path, dimension: int) -> RawLance:
        connection = await lancedb.connect_async(folder)
        columns = [
            pa.field("id", pa.string()),
            pa.field("text", pa.string()),
            pa.field("vector", pa.list_(pa.float32(), dimension)),
        ]
        return RawLance(await connection.create_table("passages", schema=pa.schema(columns)))

    async def add(self, first: int, texts: Sequence[str], vectors: Vector) -> None:
        rows = [
            {"id": str(uuid.UUID(int=first + place)), "text": text, "vector": vector}
            for place, (text, vector) in enumerate(zip(texts, vectors, strict=True))
        ]
        await self._table.add(rows)

    async def index(self) -> None:
        words = FTS(with_position=False, stem=True, remove_stop_words=True, ascii_folding=True)
        await self._table.create_index("text", config=words, replace=True)
        await self._table.optimize()

    async def hybrid(self, text: str, vector: Vector, k: int) -> int:
        query = self._table.query().nearest_to(vector).distance_type("cosine")
        found = query.nearest_to_text(text).rerank(RRFReranker()).limit(k).select(["id", "text"])
        return len(await found.to_list())

    async def dense(self, vector: Vector, k: int) -> int:
        query = self._table.query().nearest_to(vector).distance_type("cosine")
        return len(await query.limit(k).select(["id", "text", "_distance"]).to_list())

    async def keyword(self, text: str, k: int) -> int:
        query = self._table.query().nearest_to_text(text)
        return len(await query.limit(k).select(["id", "text", "_score"]).to_list())


class RawWeaviate:
    """A collection of Weaviate, through its asynchronous client."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._passages = client.collections.use(_NAME)

    @staticmethod
    async def create(http_port: int, grpc_port: int) -> RawWeaviate:
        client = weaviate.use_async_with_local(
            host="127.0.0.1", port=http_port, grpc_port=grpc_port, skip_init_checks=True
        )
        await client.connect()
        await client.collections.create(
            _NAME,
            properties=[Property(name="text", data_type=DataType.TEXT)],
            vector_config=Configure.Vectors.self_provided(
                quantizer=Configure.VectorIndex.Quantizer.none(),
                vector_index_config=Configure.VectorIndex.hnsw(
                    distance_metric=VectorDistances.COSINE
                ),
            ),
        )
        return RawWeaviate(client)

    async def close(self) -> None:
        """Ends the connection."""
        await self._client.close()

    async def add(self, first: int, texts: Sequence[str], vectors: Vector) -> None:
        objects = [
            DataObject(properties={"text": text}, uuid=uuid.UUID(int=first + place), vector=vector)
            for place, (text, vector) in enumerate(zip(texts, vectors, strict=True))
        ]
        for start in range(0, len(objects), _WEAVIATE_BATCH):
            done = await self._passages.data.insert_many(objects[start : start + _WEAVIATE_BATCH])
            if done.errors:
                raise RuntimeError(f"Weaviate refused {len(done.errors)} passages")

    async def index(self) -> None:
        """Weaviate indexes while it stores."""

    async def hybrid(self, text: str, vector: Vector, k: int) -> int:
        found = await self._passages.query.hybrid(query=text, vector=vector, alpha=0.5, limit=k)
        return len(found.objects)

    async def dense(self, vector: Vector, k: int) -> int:
        return len((await self._passages.query.near_vector(vector, limit=k)).objects)

    async def keyword(self, text: str, k: int) -> int:
        return len((await self._passages.query.bm25(text, limit=k)).objects)
