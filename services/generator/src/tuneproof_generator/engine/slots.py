"""Which adapters share the engine's slots when more are asked for than it has.

vLLM 0.32 admits a request while its adapter is in the batch, ahead of requests that wait for a slot
(`v1/core/sched/scheduler.py`, "Scheduling would exceed max_loras, skip"). So while the adapters of
a batch keep getting requests, another adapter waits without end. Here each adapter has its slot for
a limited time while others wait: after that it admits no more requests, its running requests end,
and the adapter that has waited longest gets the slot, with all its requests at once.
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
class _Slot:
    running: int
    """Requests in the engine."""
    since: float
    """When the adapter got the slot, by the clock of `SlotScheduler`."""


class SlotScheduler:
    """Admits requests to the engine's slots, adapter by adapter.

    Args:
        slots: different adapters that the engine has in one batch.
        seconds: how long a busy adapter keeps its slot while others wait.
    """

    def __init__(
        self, slots: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._capacity = slots
        metrics.CAPACITY.labels("slots").set(slots)
        self._seconds = seconds
        self._clock = clock
        # By engine id, in the order in which the adapters got their slots.
        self._slots: dict[int, _Slot] = {}
        # By engine id, in the order in which the adapters began to wait: their requests' ids.
        self._waiting: dict[int, dict[asyncio.Future[None], str]] = {}

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return sum(len(requests) for requests in self._waiting.values())

    @asynccontextmanager
    async def admit(self, engine_id: int, request_id: str) -> AsyncIterator[None]:
        """Waits until the adapter has a slot, and keeps it for one request. Cancelling ends the
        wait.

        Raises:
            Unavailable: when `abort` ends the wait.
        """
        if self._has_room(engine_id):
            self._enter(engine_id, 1)
        else:
            start = self._clock()
            with metrics.SLOT_WAITING.track_inprogress():
                await self._wait(engine_id, request_id)
            SECONDS.labels("generator", "slot").observe(self._clock() - start)
        try:
            yield
        finally:
            self._leave(engine_id)

    def abort(self, request_id: str) -> bool:
        """Ends the wait of a request; whether it waited."""
        found = [
            admission
            for requests in self._waiting.values()
            for admission, waiting in requests.items()
            if waiting == request_id and not admission.done()
        ]
        for admission in found:
            admission.set_exception(
                Unavailable("the adapter was removed while the request waited for a slot")
            )
        return bool(found)

    def _has_room(self, engine_id: int) -> bool:
        if engine_id in self._waiting:
            return False
        slot = self._slots.get(engine_id)
        if slot is None:
            return len(self._slots) < self._capacity
        if not self._waiting or self._clock() - slot.since < self._seconds:
            return True
        # Only as many adapters give up their slots as others need.
        needed = sum(other not in self._slots for other in self._waiting)
        return engine_id not in islice(self._slots, needed)

    async def _wait(self, engine_id: int, request_id: str) -> None:
        admission = asyncio.get_running_loop().create_future()
        requests = self._waiting.setdefault(engine_id, {})
        requests[admission] = request_id
        try:
            await admission
        except asyncio.CancelledError:
            if admission.done() and not admission.cancelled() and admission.exception() is None:
                self._leave(engine_id)
            raise
        finally:
            del requests[admission]
            if not requests and self._waiting.get(engine_id) is requests:
                del self._waiting[engine_id]
                self._admit_next()

    def _enter(self, engine_id: int, requests: int) -> None:
        slot = self._slots.setdefault(engine_id, _Slot(0, self._clock()))
        slot.running += requests
        metrics.CAPACITY_USED.labels("slots").set(len(self._slots))

    def _leave(self, engine_id: int) -> None:
        slot = self._slots[engine_id]
        slot.running -= 1
        if not slot.running:
            del self._slots[engine_id]
            metrics.CAPACITY_USED.labels("slots").set(len(self._slots))
            self._admit_next()

    def _admit_next(self) -> None:
        while self._waiting:
            engine_id = next(iter(self._waiting))
            if engine_id not in self._slots and len(self._slots) >= self._capacity:
                return
            admitted = [request for request in self._waiting.pop(engine_id) if not request.done()]
            if admitted:
                # Its time starts again, even while earlier requests still run.
                last = self._slots.pop(engine_id, None)
                self._slots[engine_id] = _Slot(last.running if last else 0, self._clock())
                self._enter(engine_id, len(admitted))
            for admission in admitted:
                admission.set_result(None)
