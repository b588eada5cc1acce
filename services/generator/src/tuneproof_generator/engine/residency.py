"""Where the adapters' weights are, asked from the engine's workers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import StrEnum

import structlog

from tuneproof.servicekit.errors import TuneproofError
from tuneproof_generator.engine.protocol import Engine, WorkerAdapters

_SECONDS = 1.0
_log = structlog.get_logger(__name__)


class Residency(StrEnum):
    """Where an adapter is."""

    UNKNOWN = "UNKNOWN"
    """The workers do not answer in time, or do not agree."""
    NONE = "NONE"
    HOST = "HOST"
    SLOT = "SLOT"


class ResidencyProbe:
    """Asks the workers. Callers that ask while a question is under way share its answer.

    Args:
        seconds: how long an answer may take. The engine answers between two steps; a
            long step is not waited for, because residency is information only.
    """

    def __init__(self, engine: Engine, seconds: float = _SECONDS) -> None:
        self._engine = engine
        self._seconds = seconds
        self._asking: asyncio.Task[Sequence[WorkerAdapters]] | None = None

    async def ask(self) -> Sequence[WorkerAdapters]:
        """What each worker holds; empty when the workers do not answer now."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> Sequence[WorkerAdapters]:
        try:
            async with asyncio.timeout(self._seconds):
                return await self._engine.workers()
        except (TuneproofError, TimeoutError) as error:
            _log.warning("residency unknown", error=str(error) or "no answer in time")
            return ()


def residency(workers: Sequence[WorkerAdapters], engine_id: int) -> Residency:
    """Where an adapter is on every worker."""
    found = {_on(worker, engine_id) for worker in workers}
    return found.pop() if len(found) == 1 else Residency.UNKNOWN


def _on(worker: WorkerAdapters, engine_id: int) -> Residency:
    if engine_id in worker.slots:
        return Residency.SLOT
    return Residency.HOST if engine_id in worker.host else Residency.NONE
