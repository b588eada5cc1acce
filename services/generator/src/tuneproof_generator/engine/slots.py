"""Which adapters share the engine's slots when more are asked for than it has.

vLLM 0.32 lets a request in as long as its adapter is in the batch, past those that wait for a slot
(`v1/core/sched/scheduler.py`, "Scheduling would exceed max_loras, skip"). So while the adapters of
a batch keep getting requests, another one waits without end. Here adapters take turns: while others
wait, one that had its slot for the length of a turn lets nobody in; its running requests end, and
the adapter that waits longest gets the slot, with all its requests at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice

from tuneproof.servicekit.errors import Unavailable
from tuneproof.servicekit.timing import SECONDS
from tuneproof_generator import metrics


@dataclass
class _Turn:
    running: int
    """Requests in the engine."""
    since: float
    """By the clock of `Turns`."""


class Turns:
    """Hands the slots round among the adapters.

    Args:
        slots: different adapters that the engine has in one batch.
        seconds: how long an adapter keeps its slot, if it is busy, while others wait.
    """

    def __init__(
        self, slots: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._slots = slots
        metrics.PLACES.labels("slots").set(slots)
        self._seconds = seconds
        self._clock = clock
        # In the order in which the turns began.
        self._turns: dict[int, _Turn] = {}
        # In the order in which the adapters began to wait: their requests, whose ids may be equal,
        # since OpenAI clients choose them.
        self._waiting: dict[int, dict[asyncio.Future[None], str]] = {}

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return sum(len(places) for places in self._waiting.values())

    @asynccontextmanager
    async def hold(self, engine_id: int, request_id: str) -> AsyncIterator[None]:
        """Waits for the adapter's turn and keeps it for one request; cancelling ends the wait.

        Raises:
            Unavailable: when the request is dismissed meanwhile.
        """
        if self._may_enter(engine_id):
            self._enter(engine_id, 1)
        else:
            start = self._clock()
            with metrics.WAITING.track_inprogress():
                await self._wait(engine_id, request_id)
            SECONDS.labels("generator", "turn").observe(self._clock() - start)
        try:
            yield
        finally:
            self._end(engine_id)

    def dismiss(self, request_id: str) -> bool:
        """Ends the wait of a request; whether there was one."""
        found = [
            place
            for places in self._waiting.values()
            for place, waiting in places.items()
            if waiting == request_id and not place.done()
        ]
        for place in found:
            place.set_exception(
                Unavailable("the adapter was removed while the request waited for its turn")
            )
        return bool(found)

    def _may_enter(self, engine_id: int) -> bool:
        if engine_id in self._waiting:
            return False
        turn = self._turns.get(engine_id)
        if turn is None:
            return len(self._turns) < self._slots
        if not self._waiting or self._clock() - turn.since < self._seconds:
            return True
        # No more adapters give way than others need a slot.
        needed = sum(other not in self._turns for other in self._waiting)
        return engine_id not in islice(self._turns, needed)

    async def _wait(self, engine_id: int, request_id: str) -> None:
        place = asyncio.get_running_loop().create_future()
        places = self._waiting.setdefault(engine_id, {})
        places[place] = request_id
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self._end(engine_id)
            raise
        finally:
            del places[place]
            if not places and self._waiting.get(engine_id) is places:
                del self._waiting[engine_id]
                self._call_next()

    def _enter(self, engine_id: int, requests: int) -> None:
        turn = self._turns.setdefault(engine_id, _Turn(0, self._clock()))
        turn.running += requests
        metrics.PLACES_USED.labels("slots").set(len(self._turns))

    def _end(self, engine_id: int) -> None:
        turn = self._turns[engine_id]
        turn.running -= 1
        if not turn.running:
            del self._turns[engine_id]
            metrics.PLACES_USED.labels("slots").set(len(self._turns))
            self._call_next()

    def _call_next(self) -> None:
        while self._waiting:
            engine_id = next(iter(self._waiting))
            if engine_id not in self._turns and len(self._turns) >= self._slots:
                return
            places = [place for place in self._waiting.pop(engine_id) if not place.done()]
            if places:
                # A new turn, also for an adapter whose requests of the last one still run.
                last = self._turns.pop(engine_id, None)
                self._turns[engine_id] = _Turn(last.running if last else 0, self._clock())
                self._enter(engine_id, len(places))
            for place in places:
                place.set_result(None)
