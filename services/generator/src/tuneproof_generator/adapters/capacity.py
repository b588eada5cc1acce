"""The engine's places in host memory: who holds one, and who may lose it.

Of vLLM's own cache the least recently used adapter goes without a word when one more is loaded, so
places are counted here, before the engine is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from tuneproof.adapters import AdapterRef
from tuneproof.servicekit.errors import Overloaded
from tuneproof_generator.adapters.lifecycle import HOLDS_PLACE, State
from tuneproof_generator.adapters.local_adapter import Entry
from tuneproof_generator.adapters.traffic import Traffic

FRESH_SECONDS = 30.0
"""So long an adapter that nobody used yet is not idle: else two callers who each declare one and
then ask it would evict each other's for ever. So long, too, one that another replica used: what is
known of there is some seconds old."""
_SHOWN = 8
_PLACE_RETRY_SECONDS = 30.0
"""Long enough that no client asks again by itself: a place is made by people."""


class Places:
    """Counts places, and finds the adapter that has been idle for longest.

    Args:
        entries: the adapters that are held here, by reference.
        capacity: adapters that the engine keeps in host memory.
        is_aliased: whether an alias points to an adapter.
        used_elsewhere: when an adapter last answered on another replica.
    """

    def __init__(
        self,
        entries: Mapping[str, Entry],
        capacity: int,
        traffic: Traffic,
        *,
        is_aliased: Callable[[str], bool],
        used_elsewhere: Callable[[str], datetime | None],
        clock: Callable[[], datetime],
    ) -> None:
        self._entries = entries
        self._capacity = capacity
        self._traffic = traffic
        self._is_aliased = is_aliased
        self._used_elsewhere = used_elsewhere
        self._clock = clock

    @property
    def free(self) -> int:
        """Places that nobody holds or waits for; negative never."""
        return max(0, self._capacity - len(self._holders()))

    def check(self, ref: AdapterRef, *, evict: bool) -> None:
        """Raises Overloaded, naming the limit and who holds the places, when there is none for one
        more and none can be made.

        Args:
            evict: whether an idle adapter may go for it.
        """
        if self.free and not evict:
            return
        heirs = sum(
            entry.is_heir and entry.record.state in HOLDS_PLACE - {State.DRAINING}
            for entry in self._entries.values()
        )
        leaving = sum(self._may_follow(entry) for entry in self._entries.values())
        if not evict or self.free + leaving <= heirs:
            raise self.none_for(ref, evict=evict)

    def claim(self, heir: Entry) -> Entry | None:
        """Gives an adapter a place.

        Returns:
            the adapter that must be gone first; None when there was a free place.

        Raises:
            Overloaded: when there is no place, and nobody may go.
        """
        if not self.free:
            candidates = [entry for entry in self._entries.values() if self._may_follow(entry)]
            if not candidates:
                raise self.none_for(heir.ref, evict=True)
            victim = min(candidates, key=self._order_of_leaving)
            victim.is_promised = True
            heir.is_heir = False
            return victim
        heir.is_heir = False
        return None

    def none_for(self, ref: AdapterRef, *, evict: bool) -> Overloaded:
        """The error of an adapter that has no place."""
        holders = sorted(self._holders(), key=lambda entry: entry.ref)
        told = [f"{entry.record.ref} ({self._why_not(entry)})" for entry in holders[:_SHOWN]]
        if len(holders) > _SHOWN:
            told.append(f"{len(holders) - _SHOWN} more")
        way = "none of them may be evicted" if evict else "remove one, or let the idle be evicted"
        return Overloaded(
            f"no place for {ref}: this replica holds {self._capacity} adapters at most"
            f" (max_cpu_loras), now {', '.join(told)}; {way}, or start it with more places",
            reason="NO_ADAPTER_PLACE",
            retry_after=_PLACE_RETRY_SECONDS,
        )

    def may_evict(self, entry: Entry) -> bool:
        """Whether an adapter is idle and nobody has said that it must stay."""
        return self._why_not(entry).startswith("idle")

    def _may_follow(self, entry: Entry) -> bool:
        """Whether an heir can have an adapter's place: it is leaving anyway, or is idle."""
        if entry.is_promised or entry.is_heir:
            return False
        leaving = entry.removal is not None and not entry.removal.done()
        return leaving or self.may_evict(entry)

    def _order_of_leaving(self, entry: Entry) -> tuple[bool, datetime, AdapterRef]:
        leaving = entry.record.state is State.DRAINING
        return not leaving, self._idle_since(entry), entry.ref

    def _idle_since(self, entry: Entry) -> datetime:
        entered = entry.record.transitions[-1].time
        here = self._traffic.usage(entry.adapter.engine_id).last_used if entry.adapter else None
        return max(filter(None, (entered, here, self._used_elsewhere(entry.record.ref))))

    def _why_not(self, entry: Entry) -> str:
        """Why an adapter keeps its place; begins with `idle` when it need not."""
        if entry.record.state is not State.READY or entry.adapter is None:
            return str(entry.record.state)
        if entry.record.required:
            return "required"
        if self._is_aliased(entry.record.ref):
            return "an alias points to it"
        usage = self._traffic.usage(entry.adapter.engine_id)
        if usage.running:
            return f"{usage.running} requests running"
        elsewhere = self._used_elsewhere(entry.record.ref)
        if elsewhere and (self._clock() - elsewhere).total_seconds() < FRESH_SECONDS:
            return "another replica used it just now"
        seconds = (self._clock() - self._idle_since(entry)).total_seconds()
        is_new = not (usage.last_used or elsewhere) and seconds < FRESH_SECONDS
        return "new and not used yet" if is_new else f"idle for {seconds:.0f} s"

    def _holders(self) -> list[Entry]:
        return [
            entry
            for entry in self._entries.values()
            if entry.record.state in HOLDS_PLACE and not entry.is_heir and not entry.is_promised
        ]
