"""Writing objects in batches, and deleting them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from weaviate.exceptions import WeaviateInsertManyAllFailedError

from tuneproof.servicekit.errors import Overloaded, TuneproofError, Unavailable
from tuneproof.servicekit.retries import Retries

BATCH = 500
"""Most objects that are written in one call."""
Using = Callable[[], AbstractAsyncContextManager[Any]]
"""Opens the collection that is written to, for one call."""

_DELETIONS = 8
_NOT_STORED = "PASSAGES_NOT_STORED"


def _passes(error: BaseException) -> bool:
    # A batch that got no answer is not sent again here: see `WeaviateStore.mend`.
    return isinstance(error, Overloaded) or getattr(error, "reason", "") == _NOT_STORED


_AGAIN = Retries(first=0.2, longest=2.0, attempts=4, passing=_passes)


async def insert(using: Using, objects: Sequence[Any]) -> None:
    """Writes objects. Those that fail are removed and written again, a few times.

    Raises:
        Unavailable: when some still fail, or no answer came and nobody knows what is stored.
    """
    for first in range(0, len(objects), BATCH):
        await _insert(using, objects[first : first + BATCH])


async def remove(using: Using, ids: Sequence[str]) -> None:
    """Deletes objects one by one: Weaviate's deletion of many by their ids can miss some."""
    limit = asyncio.Semaphore(_DELETIONS)

    async def delete(id_: str) -> None:
        async with limit, using() as collection:
            await collection.data.delete_by_id(id_)

    try:
        async with asyncio.TaskGroup() as deleting:
            for id_ in ids:
                deleting.create_task(delete(id_))
    except* TuneproofError as failures:
        raise failures.exceptions[0] from None


async def _insert(using: Using, objects: Sequence[Any]) -> None:
    todo, again = list(objects), False

    async def attempt() -> None:
        nonlocal todo, again
        if again:
            await remove(using, [str(each.uuid) for each in todo])
        again = True
        reasons = await _failures(using, todo)
        todo = [todo[index] for index in sorted(reasons)]
        if todo:
            raise Unavailable(
                f"Weaviate did not store {len(todo)} of {len(objects)} passages, first of document"
                f" {todo[0].properties['document_id']!r}: {reasons[min(reasons)]}",
                reason=_NOT_STORED,
            )

    await _AGAIN.call(attempt)


async def _failures(using: Using, objects: Sequence[Any]) -> dict[int, str]:
    """Writes objects; why some failed, by their place."""
    async with using() as collection:
        try:
            done = await collection.data.insert_many(objects)
        except WeaviateInsertManyAllFailedError as error:
            return dict.fromkeys(range(len(objects)), error.message)
        return {index: failure.message for index, failure in done.errors.items()}
