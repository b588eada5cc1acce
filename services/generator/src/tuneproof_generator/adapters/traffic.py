"""Requests under way: which adapters admit requests now, and how an adapter drains.

Both doors enter here, in one step without a wait: each request that is admitted is counted, and an
adapter that drains admits none. So an adapter is unloaded only when no request uses it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from tuneproof.servicekit.errors import Unavailable
from tuneproof_generator.clock import now

Abort = Callable[[], Awaitable[None]]

DRAIN_SECONDS = 30.0
"""How long running requests may take by default."""
_ABORT_SECONDS = 10.0


@dataclass(frozen=True)
class Usage:
    """How an adapter is used on this replica."""

    running: int = 0
    """Requests under way."""
    last_used: datetime | None = None
    """End of the last request, in UTC; None before the first."""


class Traffic:
    """Counts the running requests of each adapter, by engine id."""

    def __init__(self, clock: Callable[[], datetime] = now) -> None:
        self._open: dict[int, set[Abort]] = {}
        self._draining: dict[int, tuple[set[Abort], asyncio.Event]] = {}
        self._last_used: dict[int, datetime] = {}
        self._clock = clock

    def open(self, engine_id: int) -> None:
        """Admits requests for the adapter from now on."""
        self._open[engine_id] = set()

    def usage(self, engine_id: int) -> Usage:
        """Requests under way, and the end of the last one."""
        requests, _ = self._draining.get(engine_id, (self._open.get(engine_id, set()), None))
        return Usage(len(requests), self._last_used.get(engine_id))

    @contextmanager
    def enter(self, engine_id: int, abort: Abort) -> Iterator[None]:
        """Keeps the adapter loaded for one request.

        Args:
            abort: ends the request early.

        Raises:
            Unavailable: when the adapter is not READY, or drains.
        """
        requests = self._open.get(engine_id)
        if requests is None:
            raise Unavailable("the adapter was removed meanwhile")
        requests.add(abort)
        try:
            yield
        finally:
            requests.discard(abort)
            self._last_used[engine_id] = self._clock()
            draining = self._draining.get(engine_id)
            if draining and not requests:
                draining[1].set()

    async def drain(self, engine_id: int, drain_seconds: float) -> int:
        """Admits no more requests, waits for the running ones, then aborts them.

        Returns:
            how many were aborted.

        Raises:
            Unavailable: when aborted requests do not end; the adapter is then still in use.
        """
        if engine_id not in self._draining:
            self._draining[engine_id] = (self._open.pop(engine_id, set()), asyncio.Event())
        requests, idle = self._draining[engine_id]
        aborted = 0
        if requests and not await _within(idle, drain_seconds):
            late = list(requests)
            aborted = len(late)
            for abort in late:
                await abort()
            if requests and not await _within(idle, _ABORT_SECONDS):
                raise Unavailable(
                    f"{len(requests)} requests do not end {_ABORT_SECONDS:.0f} s after they were"
                    " aborted; the adapter stays loaded, call RemoveAdapter again"
                )
        del self._draining[engine_id]
        self._last_used.pop(engine_id, None)
        return aborted


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
