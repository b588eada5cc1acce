"""The engine's capacity in host memory: who holds it, and who may be evicted.

vLLM silently evicts the least recently used adapter when it loads one more. So capacity is counted
here, before the engine is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from tuneproof.adapters import AdapterRef
from tuneproof.servicekit.errors import Overloaded
from tuneproof_generator.adapters.lifecycle import HOLDS_CAPACITY, AdapterState
from tuneproof_generator.adapters.local_adapter import LocalAdapter
from tuneproof_generator.adapters.traffic import Traffic
from tuneproof_generator.clock import now

FRESH_SECONDS = 30.0
"""For this long after an adapter was loaded, it does not count as idle: else two callers who each
declare one and then use it would evict each other's adapter again and again. The same holds after
another replica used it, because what this one knows of the others is some seconds old."""
_SHOWN = 8
_RETRY_SECONDS = 30.0
"""So long that no client repeats the call automatically: only people make room."""


class HostCapacity:
    """Counts the adapters in host memory, and finds the one that has been idle for longest.

    Args:
        held: the adapters of this replica, by reference.
        capacity: adapters that the engine keeps in host memory.
        is_aliased: whether an alias points to an adapter.
        used_elsewhere: when an adapter last answered on another replica.
    """

    def __init__(
        self,
        held: Mapping[str, LocalAdapter],
        capacity: int,
        traffic: Traffic,
        *,
        is_aliased: Callable[[str], bool],
        used_elsewhere: Callable[[str], datetime | None],
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._held = held
        self._capacity = capacity
        self._traffic = traffic
        self._is_aliased = is_aliased
        self._used_elsewhere = used_elsewhere
        self._clock = clock

    @property
    def free(self) -> int:
        """Adapters that still fit; 0 or more."""
        return max(0, self._capacity - len(self._holders()))

    def check(self, ref: AdapterRef, *, evict: bool) -> None:
        """Checks that one more adapter fits.

        Args:
            evict: whether an idle adapter may be evicted for it.

        Raises:
            Overloaded: naming the limit and the adapters that hold the capacity.
        """
        if self.free and not evict:
            return
        waiting = sum(
            local.awaits_eviction and local.record.state in HOLDS_CAPACITY - {AdapterState.DRAINING}
            for local in self._held.values()
        )
        evictable = sum(self._is_evictable(local) for local in self._held.values())
        if not evict or self.free + evictable <= waiting:
            raise self.exceeded_by(ref, evict=evict)

    def claim(self, newcomer: LocalAdapter) -> LocalAdapter | None:
        """Reserves capacity for an adapter that awaits an eviction.

        Returns:
            the victim that must be unloaded first; None when there was free capacity.

        Raises:
            Overloaded: when nothing is free and nothing may be evicted.
        """
        victim = None
        if not self.free:
            candidates = [local for local in self._held.values() if self._is_evictable(local)]
            if not candidates:
                raise self.exceeded_by(newcomer.ref, evict=True)
            victim = min(candidates, key=self._order_of_eviction)
            victim.is_victim = True
        newcomer.awaits_eviction = False
        return victim

    def exceeded_by(self, ref: AdapterRef, *, evict: bool) -> Overloaded:
        """The error of an adapter for which there is no capacity."""
        holders = sorted(self._holders(), key=lambda local: local.ref)
        told = [f"{local.record.ref} ({self._why_kept(local)})" for local in holders[:_SHOWN]]
        if len(holders) > _SHOWN:
            told.append(f"{len(holders) - _SHOWN} more")
        way = "none of them may be evicted" if evict else "remove one, or let the idle be evicted"
        return Overloaded(
            f"no capacity for {ref}: this replica holds {self._capacity} adapters at most"
            f" (max_cpu_loras), now {', '.join(told)}; {way}, or restart it with a larger"
            " max_cpu_loras",
            reason="NO_ADAPTER_CAPACITY",
            retry_after=_RETRY_SECONDS,
        )

    def may_evict(self, local: LocalAdapter) -> bool:
        """Whether an adapter is idle, and nothing requires it to stay."""
        return self._why_kept(local).startswith("idle")

    def _is_evictable(self, local: LocalAdapter) -> bool:
        """Whether a newcomer can have an adapter's capacity: it is being removed, or is idle."""
        if local.is_victim or local.awaits_eviction:
            return False
        is_leaving = local.removal is not None and not local.removal.done()
        return is_leaving or self.may_evict(local)

    def _order_of_eviction(self, local: LocalAdapter) -> tuple[bool, datetime, AdapterRef]:
        is_leaving = local.record.state is AdapterState.DRAINING
        return not is_leaving, self._idle_since(local), local.ref

    def _idle_since(self, local: LocalAdapter) -> datetime:
        entered = local.record.transitions[-1].time
        here = self._traffic.usage(local.loaded.engine_id).last_used if local.loaded else None
        return max(filter(None, (entered, here, self._used_elsewhere(local.record.ref))))

    def _why_kept(self, local: LocalAdapter) -> str:
        """Why an adapter stays; begins with `idle` when it need not."""
        if local.record.state is not AdapterState.READY or local.loaded is None:
            return str(local.record.state)
        if local.record.required:
            return "required"
        if self._is_aliased(local.record.ref):
            return "an alias points to it"
        usage = self._traffic.usage(local.loaded.engine_id)
        if usage.running:
            return f"{usage.running} requests running"
        elsewhere = self._used_elsewhere(local.record.ref)
        if elsewhere and (self._clock() - elsewhere).total_seconds() < FRESH_SECONDS:
            return "another replica used it just now"
        seconds = (self._clock() - self._idle_since(local)).total_seconds()
        is_new = not (usage.last_used or elsewhere) and seconds < FRESH_SECONDS
        return "new and not used yet" if is_new else f"idle for {seconds:.0f} s"

    def _holders(self) -> list[LocalAdapter]:
        return [
            local
            for local in self._held.values()
            if local.record.state in HOLDS_CAPACITY
            and not local.awaits_eviction
            and not local.is_victim
        ]
