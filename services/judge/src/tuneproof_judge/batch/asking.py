"""A judge model that answers by batches."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from tuneproof_judge.batch.queue import Queue
from tuneproof_judge.cache import Cache, KeyedEndpoint, completion_of
from tuneproof_judge.endpoint import ChatEndpoint
from tuneproof_judge.grade import Failure, FailureKind, Pending
from tuneproof_judge.replies import CallFailed, Completion


class BatchedEndpoint(KeyedEndpoint):
    """Answers from the cache and from batches that are done.

    Every other request is queued, and fails as pending. What came by a batch took no tokens here:
    the log of its batch tells them.
    """

    def __init__(self, endpoint: ChatEndpoint, cache: Cache, queue: Queue) -> None:
        super().__init__(endpoint, cache)
        self._queue = queue

    async def _complete(
        self,
        key: str,
        asked: Mapping[str, Any],
        deadline: float | None,  # noqa: ARG002 - nothing is waited for
    ) -> Completion:
        found = await asyncio.to_thread(self._look, key, asked)
        if isinstance(found, Failure):
            raise CallFailed(found.kind, found.detail, failure=found)
        return found

    def _look(self, key: str, asked: Mapping[str, Any]) -> Completion | Failure:
        kept = self._cache.get(key)
        if kept is not None:
            return completion_of(kept)
        result = self._queue.result(key)
        if result is not None:
            return result
        self._queue.add(key, asked)
        trouble = self._queue.trouble
        return Pending(
            FailureKind.ENDPOINT, f"the last attempt failed: {trouble}" if trouble else ""
        )
