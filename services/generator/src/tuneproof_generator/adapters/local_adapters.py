"""The adapters that are held here: their loading, draining and letting go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime

import structlog

from tuneproof.adapters import AdapterRef
from tuneproof.servicekit.errors import Internal, Overloaded, TuneproofError, Unavailable
from tuneproof.servicekit.tracing import span
from tuneproof_generator import metrics
from tuneproof_generator.adapters.capacity import Places
from tuneproof_generator.adapters.lifecycle import AdapterRecord, State
from tuneproof_generator.adapters.loading import Loader
from tuneproof_generator.adapters.local_adapter import Entry
from tuneproof_generator.adapters.traffic import Traffic
from tuneproof_generator.backoff import Backoff, may_pass

Evict = Callable[[Entry], Awaitable[asyncio.Task[None] | None]]
"""Takes an idle adapter out of the pool: the task that lets it go; None if it is not idle now."""

_log = structlog.get_logger(__name__)


class Holdings:
    """Adapters by reference, each with the task that moves it on.

    Args:
        capacity: adapters that the engine keeps in host memory.
        changed: called with the reference of an adapter that changed, or is gone.
        is_aliased: whether an alias points to an adapter.
        used_elsewhere: when an adapter last answered on another replica.
    """

    def __init__(
        self,
        loader: Loader,
        traffic: Traffic,
        capacity: int,
        changed: Callable[[str], None],
        *,
        is_aliased: Callable[[str], bool],
        used_elsewhere: Callable[[str], datetime | None],
        evict: Evict,
        clock: Callable[[], datetime],
        backoff: Backoff,
    ) -> None:
        self.entries: dict[str, Entry] = {}
        self.places = Places(
            self.entries,
            capacity,
            traffic,
            is_aliased=is_aliased,
            used_elsewhere=used_elsewhere,
            clock=clock,
        )
        self._loader = loader
        self._traffic = traffic
        self._changed = changed
        self._evict = evict
        self._clock = clock
        self._backoff = backoff

    def adopt(
        self, ref: AdapterRef, required: bool, *, retry: bool = True, evict: bool = False
    ) -> Entry:
        """Holds an adapter and begins to load it. One that is held already keeps its state; one
        that FAILED is tried again if asked for. Without a place it is held as FAILED.

        Args:
            evict: whether an idle adapter goes for it when no place is free.
        """
        entry = self.entries.get(str(ref))
        if entry is None:
            record = AdapterRecord.declared(str(ref), required=required, now=self._clock())
            entry = Entry(ref, record, self._changed, self._clock)
            self._begin(entry, evict=evict)
            return entry
        if entry.record.required is not required:
            entry.update(replace(entry.record, required=required))
        if entry.record.state is State.FAILED and retry:
            self._begin(entry, evict=evict)
        return entry

    def retry(self) -> None:
        """Tries again what FAILED in a way that may pass, when it is time for it; required ones
        first."""
        failed = [entry for entry in self.entries.values() if entry.record.state is State.FAILED]
        for entry in sorted(failed, key=lambda entry: not entry.record.required):
            due = entry.record.next_try is not None and entry.record.next_try <= self._clock()
            if self.places.free and (entry.lacks_place or due):
                metrics.RETRIES.inc()
                self._begin(entry, is_declared=False)

    def drain(self, entry: Entry, seconds: float) -> asyncio.Task[None]:
        """Begins to let an adapter go, if that has not begun; the task that does it."""
        if entry.removal is None or (entry.removal.done() and not entry.gone):
            if entry.record.state is not State.DRAINING:
                entry.enter(State.DRAINING)
            if entry.loading is not None:
                entry.loading.cancel()  # Now, else it might still say READY.
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

    def _begin(self, entry: Entry, *, evict: bool = False, is_declared: bool = True) -> None:
        """Starts loading an adapter that is new or FAILED, if it can have a place."""
        is_new = entry.record.ref not in self.entries
        is_full = not self.places.free
        missing = self.places.none_for(entry.ref, evict=False) if is_full and not evict else None
        self.entries[entry.record.ref] = entry
        if is_new:
            self._changed(entry.record.ref)
        elif missing is None:
            entry.begin_again(is_declared=is_declared)
        if missing is None:
            entry.is_heir = is_full
            entry.loading = asyncio.create_task(self._load(entry))
        elif is_new:
            self._fail(entry, missing)

    async def _load(self, entry: Entry) -> None:
        try:
            with span("load adapter", {"tuneproof.adapter": entry.record.ref}):
                folder = await self._loader.fetch(entry.ref, entry)
                await self._take_place(entry)
                adapter = await self._loader.load(entry.ref, folder, entry)
            self._traffic.open(adapter.engine_id)
            entry.enter(State.READY)
            _log.info("ready", adapter=entry.record.ref, **entry.record.stage_seconds)
        except Exception as error:  # noqa: BLE001 - whatever failed, the adapter is FAILED
            await self._give_up(entry, error)
        finally:
            entry.loading = None

    async def _take_place(self, heir: Entry) -> None:
        """Waits until an adapter that was declared beyond the capacity has a place.

        Only now, when it is known that it can be served, another one goes for it.

        Raises:
            Overloaded: when nobody may go any more.
        """
        while heir.is_heir:
            victim = self.places.claim(heir)
            if victim is None:
                return
            try:
                removal = await self._evict(victim)
                if removal is None:
                    heir.is_heir = True  # It was asked, or made to stay, at this moment.
                else:
                    await asyncio.shield(removal)
            finally:
                victim.is_promised = False

    async def _give_up(self, entry: Entry, error: Exception) -> None:
        try:
            await self._loader.discard(entry.ref, entry.adapter)
        except TuneproofError as worse:
            error = Unavailable(f"{_said(error)}; and it cannot be unloaded: {worse.message}")
        entry.adapter = None
        self._fail(entry, error)

    def _fail(self, entry: Entry, error: Exception) -> None:
        kind = type(error) if isinstance(error, TuneproofError) else Internal
        metrics.FAILURES.labels(kind.__name__).inc()
        reason = _said(error)
        entry.lacks_place = isinstance(error, Overloaded)
        wait = None
        if entry.lacks_place:
            reason += "; it is tried again when a place is free"
        elif may_pass(error):
            wait = self._backoff.seconds(entry.record.tries + 1)
        entry.fail(reason, wait=wait)
        _log.warning("failed", adapter=entry.record.ref, reason=entry.record.reason)

    async def _let_go(self, entry: Entry, seconds: float) -> None:
        if entry.loading is not None:
            await asyncio.gather(entry.loading, return_exceptions=True)
        aborted = 0
        if entry.adapter is not None:
            aborted = await self._traffic.close(entry.adapter.engine_id, seconds)
        await self._loader.discard(entry.ref, entry.adapter)
        entry.gone = True
        del self.entries[entry.record.ref]
        self._changed(entry.record.ref)
        _log.info("removed", adapter=entry.record.ref, aborted_requests=aborted)


def _said(error: Exception) -> str:
    if isinstance(error, TuneproofError):
        return error.message
    return f"the registry or the cache cannot be used: {error}" if may_pass(error) else f"{error!r}"


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.error("adapter not removed", error=str(task.exception()))
