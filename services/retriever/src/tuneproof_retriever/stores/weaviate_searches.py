"""Searches as Weaviate's own messages, and passages from its replies.

weaviate-client makes some ten Python objects for each object that Weaviate finds. A hybrid search
reads two lists of fifty for the ten that win, and that cost more than Weaviate's whole search. So a
request is made here as the client makes it, the client sends it (with its key, retries and limits),
and of the reply only what is wanted becomes Python objects.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from weaviate.classes.config import ConsistencyLevel
from weaviate.proto.v1 import base_pb2, base_search_pb2, search_get_pb2

from tuneproof_retriever.corpus import Candidate, Passage, Vector
from tuneproof_retriever.stores.tags import tags_of
from tuneproof_retriever.stores.weaviate_objects import PASSAGE_PROPERTIES, passage_of_properties

_MOST_HITS = 10_000
"""Weaviate's own limit (QUERY_MAXIMUM_RESULTS), unless its operator changes it."""
_PASSAGES = search_get_pb2.PropertiesRequest(non_ref_properties=PASSAGE_PROPERTIES)


class Searches:
    """Searches of one collection.

    Args:
        level: see `ConsistencyLevel`.
    """

    def __init__(self, collection: str, level: ConsistencyLevel) -> None:
        self._common = search_get_pb2.SearchRequest(
            collection=collection,
            consistency_level=f"CONSISTENCY_LEVEL_{level.name}",
            properties=_PASSAGES,
            uses_123_api=True,
            uses_125_api=True,
            uses_127_api=True,
        )

    async def dense(
        self, client: Any, vector: Vector, limit: int, where: Mapping[str, str]
    ) -> list[Candidate]:
        """See `VectorStore.dense`."""
        values = base_pb2.Vectors(
            vector_bytes=vector.astype("<f4").tobytes(),
            type=base_pb2.Vectors.VECTOR_TYPE_SINGLE_FP32,
        )
        request = self._request(limit, where)
        request.near_vector.CopyFrom(base_search_pb2.NearVector(vectors=[values]))
        request.metadata.distance = True
        return await _candidates(client, request, lambda found: 1.0 - found.distance)

    async def keyword(
        self, client: Any, stems: str, limit: int, where: Mapping[str, str]
    ) -> list[Candidate]:
        """See `VectorStore.keyword`."""
        request = self._request(limit, where)
        request.bm25_search.CopyFrom(base_search_pb2.BM25(query=stems, properties=["words"]))
        request.metadata.score = True
        return await _candidates(client, request, lambda found: found.score)

    def _request(self, limit: int, where: Mapping[str, str]) -> Any:
        request = search_get_pb2.SearchRequest(
            limit=min(limit, _MOST_HITS), metadata=search_get_pb2.MetadataRequest(uuid=True)
        )
        request.MergeFrom(self._common)
        if where:
            request.filters.CopyFrom(
                base_pb2.Filters(
                    operator=base_pb2.Filters.OPERATOR_CONTAINS_ALL,
                    value_text_array=base_pb2.TextArray(values=tags_of(where)),
                    target=base_pb2.FilterTarget(property="tags"),
                )
            )
        return request


async def _candidates(client: Any, request: Any, score: Callable[[Any], float]) -> list[Candidate]:
    connection = client._connection  # noqa: SLF001 - see the head of the module
    reply = await connection.grpc_search(request)
    return [
        Candidate(_id(found.metadata), score(found.metadata), place=found)
        for found in reply.results
    ]


def _id(metadata: Any) -> str:
    return str(uuid.UUID(bytes=metadata.id_as_bytes))


def passage_of(candidate: Candidate) -> Passage:
    """The passage of a candidate that a search gave."""
    fields = candidate.place.properties.non_ref_props.fields
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in fields.items()}
    return passage_of_properties(candidate.id, values)


def with_passages(candidates: list[Candidate]) -> list[Candidate]:
    """Candidates that a search gave, with their passages."""
    return [replace(each, passage=passage_of(each), place=None) for each in candidates]
