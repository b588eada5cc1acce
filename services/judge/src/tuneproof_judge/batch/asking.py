"""A judge model that answers by batches."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from tuneproof_judge.batch.queue import Queue
from tuneproof_judge.cache import Cache, completion_of, key_of
from tuneproof_judge.endpoint import ChatEndpoint
from tuneproof_judge.grade import Failure, FailureKind, Pending
from tuneproof_judge.replies import CallFailed, Completion


class BatchedEndpoint:
    """A `ChatEndpoint` that answers from the cache and from batches that are done.

    Every other request is queued, and fails as pending.
    """

    def __init__(self, endpoint: ChatEndpoint, cache: Cache, queue: Queue) -> None:
        self._endpoint = endpoint
        self._cache = cache
        self._queue = queue

    @property
    def url(self) -> str:
        """As the endpoint's."""
        return self._endpoint.url

    @property
    def model(self) -> str:
        """As the endpoint's."""
        return self._endpoint.model

    @property
    def structured(self) -> bool:
        """As the endpoint's."""
        return self._endpoint.structured

    async def complete(
        self,
        prompt: str,
        *,
        seed: int,
        temperature: float,
        max_tokens: int,
        deadline: float | None,  # noqa: ARG002 - nothing is waited for
        probabilities: bool = False,
        begun: str = "",
        form: Mapping[str, Any] | None = None,
    ) -> Completion:
        """As the endpoint's, if it has come; what it took is told by the log of its batch."""
        asked = {
            "prompt": prompt,
            "seed": seed,
            "temperature": temperature,
            "max_tokens": max_tokens,
            "probabilities": probabilities,
            "begun": begun,
            "form": form,
        }
        found = await asyncio.to_thread(self._look, key_of(self, asked), asked)
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
