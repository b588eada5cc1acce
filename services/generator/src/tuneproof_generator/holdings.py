"""The adapters that are held here: their loading, draining and letting go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from tuneproof.adapters import AdapterRef
from tuneproof.servicekit.errors import Overloaded, TuneproofError
from tuneproof_generator import metrics
from tuneproof_generator.entry import Entry, now
from tuneproof_generator.lifecycle import HOLDS_PLACE, AdapterRecord, State
from tuneproof_generator.loading import Loader
from tuneproof_generator.traffic import Traffic

_log = structlog.get_logger(__name__)


class Holdings:
    """Adapters by reference, each with the task that moves it on.

    Args:
        capacity: adapters that the engine keeps in host memory.
        changed: called with the reference of an adapter that changed, or is gone.
    """

    def __init__(
        self, loader: Loader, traffic: Traffic, capacity: int, changed: Callable[[str], None]
    ) -> None:
        self.entries: dict[str, Entry] = {}
        self._loader = loader
        self._traffic = traffic
        self._capacity = capacity
        self._changed = changed

    def check_room(self, ref: AdapterRef) -> None:
        """Raises Overloaded, naming the limit, when there is no place for one more."""
        if self._taken() >= self._capacity:
            raise Overloaded(f"no place for {ref}: {self._no_room()}", reason="NO_ADAPTER_PLACE")

    def adopt(self, ref: AdapterRef, required: bool, *, retry: bool = True) -> Entry:
        """Holds an adapter and begins to load it. One that is held already keeps its state;
        one that FAILED is tried again if asked for. Beyond the capacity it is held as FAILED.
        """
        entry = self.entries.get(str(ref))
        if entry is None:
            record = AdapterRecord.declared(str(ref), required=required, now=now())
            full = self._taken() >= self._capacity
            entry = self.entries[str(ref)] = Entry(ref, record, self._changed)
            if full:
                entry.fail(self._no_room())
                return entry
        elif entry.record.state is State.FAILED and retry:
            entry.record = entry.record.to(State.PENDING, now(), reason="declared again")
        elif entry.record.required is required:
            return entry
        entry.update(replace(entry.record, required=required))
        if entry.record.state is State.PENDING and entry.loading is None:
            entry.loading = asyncio.create_task(self._load(entry))
        return entry

    def drain(self, entry: Entry, seconds: float) -> asyncio.Task[None]:
        """Begins to let an adapter go, if that has not begun; the task that does it."""
        if entry.removal is None or (entry.removal.done() and not entry.gone):
            if entry.record.state is not State.DRAINING:
                entry.enter(State.DRAINING)
            entry.removal = asyncio.create_task(self._let_go(entry, seconds))
            # An error is the caller's, and the log's if there is none any more.
            entry.removal.add_done_callback(_log_failure)
        return entry.removal

    async def close(self) -> None:
        """Stops all loading and removing; what is declared stays declared."""
        tasks = [
            task
            for entry in self.entries.values()
            for task in (entry.loading, entry.removal)
            if task is not None
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _load(self, entry: Entry) -> None:
        try:
            adapter = await self._loader.load(entry.ref, entry)
            self._traffic.open(adapter.engine_id)
            entry.enter(State.READY)
            _log.info("ready", adapter=entry.record.ref, **entry.record.stage_seconds)
        except Exception as error:  # noqa: BLE001 - whatever failed, the adapter is FAILED
            reason = error.message if isinstance(error, TuneproofError) else f"{error!r}"
            await self._give_up(entry, reason)
        finally:
            entry.loading = None

    async def _give_up(self, entry: Entry, reason: str) -> None:
        _log.warning("failed", adapter=entry.record.ref, reason=reason)
        metrics.FAILURES.inc()
        try:
            await self._loader.discard(entry.ref, entry.adapter, lambda: self._is_shared(entry))
        except TuneproofError as error:
            reason = f"{reason}; and it cannot be unloaded: {error.message}"
        entry.adapter = None
        entry.fail(reason)

    async def _let_go(self, entry: Entry, seconds: float) -> None:
        if entry.loading is not None:
            entry.loading.cancel()
            await asyncio.gather(entry.loading, return_exceptions=True)
        aborted = 0
        if entry.adapter is not None:
            aborted = await self._traffic.close(entry.adapter.engine_id, seconds)
        await self._loader.discard(entry.ref, entry.adapter, lambda: self._is_shared(entry))
        entry.gone = True
        del self.entries[entry.record.ref]
        self._changed(entry.record.ref)
        _log.info("removed", adapter=entry.record.ref, aborted_requests=aborted)

    def _is_shared(self, entry: Entry) -> bool:
        return any(
            other is not entry and other.ref.digest == entry.ref.digest
            for other in self.entries.values()
        )

    def _taken(self) -> int:
        return sum(entry.record.state in HOLDS_PLACE for entry in self.entries.values())

    def _no_room(self) -> str:
        return (
            f"this replica holds {self._capacity} adapters at most (max_cpu_loras); remove one, or"
            " start it with more places"
        )


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.error("adapter not removed", error=str(task.exception()))
