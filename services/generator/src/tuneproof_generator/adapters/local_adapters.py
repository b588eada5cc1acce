"""The adapters of this replica: each is loaded, drained and unloaded by a task of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime

import structlog

from tuneproof.adapters import AdapterRef
from tuneproof.servicekit.errors import (
    DeadlineExceeded,
    Internal,
    NotFound,
    Overloaded,
    TuneproofError,
    Unavailable,
)
from tuneproof.servicekit.retries import Retries
from tuneproof.servicekit.tracing import span
from tuneproof_generator import metrics
from tuneproof_generator.adapters.capacity import HostCapacity
from tuneproof_generator.adapters.lifecycle import AdapterRecord, AdapterState
from tuneproof_generator.adapters.loading import Loader
from tuneproof_generator.adapters.local_adapter import LocalAdapter
from tuneproof_generator.adapters.traffic import Traffic
from tuneproof_generator.clock import now

Evict = Callable[[LocalAdapter], Awaitable[asyncio.Task[None] | None]]
"""Takes an idle adapter out of the pool: the task that unloads it; None if it is not idle now."""

_log = structlog.get_logger(__name__)


def may_pass(error: BaseException) -> bool:
    """Whether another attempt to load may succeed: never after a defect of the adapter.

    A full disk and an unreadable folder are OSErrors; a missing adapter may be in a folder that is
    not mounted, or in a bucket that is still being copied.
    """
    return isinstance(error, Unavailable | Overloaded | DeadlineExceeded | NotFound | OSError)


LOAD_RETRIES = Retries(first=1.0, longest=300.0, jitter=0.5, passing=may_pass)
"""When loading is attempted again."""


class LocalAdapters:
    """Moves each adapter on, from its declaration until it is gone.

    Args:
        held: the adapters, by reference; this class alone changes it.
        capacity: of the engine, over the same adapters.
        changed: called with the reference of an adapter that changed, or is gone.
        retries: when an adapter that FAILED is tried again.
    """

    def __init__(
        self,
        held: dict[str, LocalAdapter],
        loader: Loader,
        traffic: Traffic,
        capacity: HostCapacity,
        changed: Callable[[str], None],
        *,
        evict: Evict,
        retries: Retries = LOAD_RETRIES,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._held = held
        self._loader = loader
        self._traffic = traffic
        self._capacity = capacity
        self._changed = changed
        self._evict = evict
        self._retries = retries
        self._clock = clock

    def ensure(
        self,
        ref: AdapterRef,
        required: bool,
        *,
        allow_no_effect: bool = False,
        retry: bool = True,
        evict: bool = False,
    ) -> LocalAdapter:
        """Begins to load an adapter, unless it is here already. Without capacity it is FAILED.

        Args:
            allow_no_effect: whether it may change nothing. Where that is new, one that FAILED is
                tried again in any case.
            retry: whether one that FAILED is tried again.
            evict: whether an idle adapter is evicted for it when the capacity is used up.
        """
        local = self._held.get(str(ref))
        if local is None:
            record = AdapterRecord.declared(str(ref), required=required, now=self._clock())
            local = LocalAdapter(ref, record, self._changed, self._clock)
            local.allow_no_effect = allow_no_effect
            self._begin(local, evict=evict)
            return local
        if local.record.required is not required:
            local.update(replace(local.record, required=required))
        retry = retry or (allow_no_effect and not local.allow_no_effect)
        local.allow_no_effect = allow_no_effect
        if local.record.state is AdapterState.FAILED and retry:
            self._begin(local, evict=evict)
        return local

    def retry(self) -> None:
        """Tries FAILED adapters again when they are due; required ones first."""
        failed = [one for one in self._held.values() if one.record.state is AdapterState.FAILED]
        for local in sorted(failed, key=lambda one: not one.record.required):
            due = local.record.next_try is not None and local.record.next_try <= self._clock()
            if self._capacity.free and (local.lacks_capacity or due):
                metrics.RETRIES.inc()
                self._begin(local, is_declared=False)

    def drain(self, local: LocalAdapter, seconds: float) -> asyncio.Task[None]:
        """Begins to remove an adapter, unless that has begun; the task that does it."""
        if local.removal is None or (local.removal.done() and not local.gone):
            if local.record.state is not AdapterState.DRAINING:
                local.enter(AdapterState.DRAINING)
            if local.loading is not None:
                local.loading.cancel()  # At once, else it may still become READY.
            local.removal = asyncio.create_task(self._remove(local, seconds))
            # The caller gets an error; the log has it for a caller that is gone.
            local.removal.add_done_callback(_log_failure)
        return local.removal

    async def close(self) -> None:
        """Stops all loading and removing; what is declared stays declared."""
        tasks = [
            task
            for local in self._held.values()
            for task in (local.loading, local.removal)
            if task is not None
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, local: LocalAdapter, *, evict: bool = False, is_declared: bool = True) -> None:
        """Starts to load an adapter that is new or FAILED, if there can be capacity for it."""
        is_new = local.record.ref not in self._held
        is_full = not self._capacity.free
        refusal = None
        if is_full and not evict:
            refusal = self._capacity.exceeded_by(local.ref, evict=False)
        self._held[local.record.ref] = local
        if is_new:
            self._changed(local.record.ref)
        elif refusal is None:
            local.begin_again(is_declared=is_declared)
        if refusal is None:
            local.awaits_eviction = is_full
            local.loading = asyncio.create_task(self._load(local))
        elif is_new:
            self._fail(local, refusal)

    async def _load(self, local: LocalAdapter) -> None:
        try:
            with span("load adapter", {"tuneproof.adapter": local.record.ref}):
                folder = await self._loader.fetch(local)
                await self._take_capacity(local)
                loaded = await self._loader.load(local, folder)
            self._traffic.open(loaded.engine_id)
            local.enter(AdapterState.READY)
            _log.info("ready", adapter=local.record.ref, **local.record.stage_seconds)
        except Exception as error:  # noqa: BLE001 - whatever failed, the adapter is FAILED
            await self._give_up(local, error)
        finally:
            local.loading = None

    async def _take_capacity(self, newcomer: LocalAdapter) -> None:
        """Waits until an adapter that was declared beyond the capacity has room.

        Nothing is evicted before this point: the newcomer is verified first.

        Raises:
            Overloaded: when nothing may be evicted now.
        """
        while newcomer.awaits_eviction:
            victim = self._capacity.claim(newcomer)
            if victim is None:
                return
            try:
                removal = await self._evict(victim)
                if removal is None:  # Someone used it, or declared it required, at this moment.
                    newcomer.awaits_eviction = True
                else:
                    await asyncio.shield(removal)
            finally:
                victim.is_victim = False

    async def _give_up(self, local: LocalAdapter, error: Exception) -> None:
        try:
            await self._loader.discard(local)
        except TuneproofError as worse:
            error = Unavailable(f"{_said(error)}; and it cannot be unloaded: {worse.message}")
        local.loaded = None
        self._fail(local, error)

    def _fail(self, local: LocalAdapter, error: Exception) -> None:
        kind = type(error) if isinstance(error, TuneproofError) else Internal
        metrics.FAILURES.labels(kind.__name__).inc()
        reason = _said(error)
        local.lacks_capacity = isinstance(error, Overloaded)
        wait = None
        if local.lacks_capacity:
            reason += "; it is tried again when there is capacity"
        elif self._retries.passing(error):
            wait = self._retries.pause_of(local.record.tries + 1)
        local.fail(reason, wait=wait)
        _log.warning("failed", adapter=local.record.ref, reason=local.record.reason)

    async def _remove(self, local: LocalAdapter, drain_seconds: float) -> None:
        if local.loading is not None:
            await asyncio.gather(local.loading, return_exceptions=True)
        aborted = 0
        if local.loaded is not None:
            aborted = await self._traffic.drain(local.loaded.engine_id, drain_seconds)
        await self._loader.discard(local)
        local.gone = True
        del self._held[local.record.ref]
        self._changed(local.record.ref)
        _log.info("removed", adapter=local.record.ref, aborted_requests=aborted)


def _said(error: Exception) -> str:
    if isinstance(error, TuneproofError):
        return error.message
    return f"the registry or the cache cannot be used: {error}" if may_pass(error) else f"{error!r}"


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.error("adapter not removed", error=str(task.exception()))
