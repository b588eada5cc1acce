"""Embeds concurrent queries in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tuneproof_retriever.corpus import Vector, Vectors


class QueryBatches:
    """Joins concurrent queries, without ever waiting for one.

    A query that finds the model idle is embedded at once; those that come while it works form the
    next batch.

    Args:
        embed: gives a row per text.
        size: most queries in a batch.
    """

    def __init__(self, embed: Callable[[list[str]], Awaitable[Vectors]], *, size: int) -> None:
        self._embed = embed
        self._size = size
        self._waiting: list[tuple[str, asyncio.Future[Vector]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def embed(self, text: str) -> Vector:
        """The vector of one query; raises what the model raised for its batch."""
        answer: asyncio.Future[Vector] = asyncio.get_running_loop().create_future()
        self._waiting.append((text, answer))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        while self._waiting:
            batch = [entry for entry in self._waiting[: self._size] if not entry[1].done()]
            del self._waiting[: self._size]
            if batch:
                await self._answer(batch)

    async def _answer(self, batch: list[tuple[str, asyncio.Future[Vector]]]) -> None:
        try:
            vectors = await self._embed([text for text, _ in batch])
        except Exception as error:  # noqa: BLE001 - each caller gets it
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), vector in zip(batch, vectors, strict=True):
            if not answer.done():
                answer.set_result(vector)
