"""Keeps the quantised index of a new collection whole."""

from __future__ import annotations

import uuid
from typing import Any

from weaviate.classes.config import ConsistencyLevel
from weaviate.classes.data import DataObject

_SEEDS_PER_SHARD = 16
"""Weaviate puts objects into shards by their ids; none of up to ten shards goes without."""


async def seed(collection: Any, dimension: int) -> None:
    """Puts objects into an empty quantised index, and takes them out again.

    Weaviate 1.39 ruins such an index when its collection is updated before the first object comes:
    of the ten nearest of 5,000 vectors, searches then find .38 instead of .9995, while each vector
    still finds itself. An index that once held an object is not affected. To call it twice does no
    harm.

    Args:
        dimension: length of the vectors that will come.
    """
    config = await collection.config.get()
    [vector] = config.vector_config.values()
    if vector.vector_index_config.quantizer is None:
        return
    count = _SEEDS_PER_SHARD * config.sharding_config.actual_count
    ids = [uuid.uuid5(uuid.NAMESPACE_OID, f"seed {number}") for number in range(count)]
    seeds = [
        DataObject(
            uuid=id_,
            properties={},
            vector=[float(place == number % dimension) for place in range(dimension)],
        )
        for number, id_ in enumerate(ids)
    ]
    everywhere = collection.with_consistency_level(ConsistencyLevel.ALL)
    await everywhere.data.insert_many(seeds)
    for id_ in ids:
        await everywhere.data.delete_by_id(id_)
