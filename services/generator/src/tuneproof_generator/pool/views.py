"""What this replica reports of its adapters: to callers, to watchers, to the other replicas."""

from __future__ import annotations

import builtins
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from datetime import datetime

from tuneproof_generator import metrics
from tuneproof_generator.adapters.lifecycle import HOLDS_CAPACITY, AdapterState
from tuneproof_generator.adapters.local_adapter import LocalAdapter
from tuneproof_generator.adapters.traffic import Traffic, Usage
from tuneproof_generator.engine.residency import Residency, ResidencyProbe, residency
from tuneproof_generator.pool.changes import AdapterView, Change, Changes
from tuneproof_generator.pool.fleet import NOT_SEEN, Fleet
from tuneproof_generator.pool.replica_status import AdapterStatus
from tuneproof_generator.pool.residency_metrics import Residents
from tuneproof_generator.pool.resolver import Resolver
from tuneproof_generator.pool.routes import Routes


class AdapterViews:
    """Collects what is known of each adapter, and tells watchers when it changes.

    Args:
        held: the adapters of this replica, by reference.
        residency_probe: None: residency is unknown.
    """

    def __init__(
        self,
        held: Mapping[str, LocalAdapter],
        traffic: Traffic,
        resolver: Resolver,
        routes: Routes,
        fleet: Fleet,
        *,
        residency_probe: ResidencyProbe | None,
        clock: Callable[[], datetime],
    ) -> None:
        self._held = held
        self._traffic = traffic
        self._resolver = resolver
        self._routes = routes
        self._fleet = fleet
        self._residency_probe = residency_probe
        self._clock = clock
        self._changes = Changes(self.list)

    def list(self) -> builtins.list[AdapterView]:
        """All adapters, sorted by reference."""
        return [self.of(self._held[ref]) for ref in sorted(self._held)]

    def get(self, name: str) -> AdapterView:
        """One adapter, by reference or alias.

        Raises:
            NotFound: when there is none.
        """
        return self.of(self._resolver.find(name))

    def of(self, local: LocalAdapter) -> AdapterView:
        """One adapter."""
        ref = local.record.ref
        return AdapterView(
            local.record,
            self._routes.names(ref),
            self._usage(local),
            self._fleet.everywhere(ref, self.status(ref)),
        )

    def status(self, ref: str) -> AdapterStatus:
        """An adapter's status on this replica."""
        local = self._held.get(ref)
        if local is None:
            return NOT_SEEN
        usage = self._usage(local)
        used = self._clock() if usage.running else usage.last_used
        return AdapterStatus(local.record.state, local.record.reason, used)

    def statuses(self) -> dict[str, AdapterStatus]:
        """This replica's adapters for the others, by reference."""
        return {ref: self.status(ref) for ref in self._held}

    async def residency(self) -> Mapping[str, Residency]:
        """Where the weights of each adapter are, by reference; UNKNOWN when the engine's workers do
        not answer soon."""
        told = await self.residents()
        return {
            ref: residency(told.workers, local.loaded.engine_id if local.loaded else 0)
            for ref, local in self._held.items()
        }

    async def residents(self) -> Residents:
        """What the workers hold now, and under which names."""
        workers = await self._residency_probe.ask() if self._residency_probe else ()
        loaded = [(local.loaded, ref) for ref, local in self._held.items()]
        return Residents(workers, {each.engine_id: ref for each, ref in loaded if each})

    def watch(self, refs: frozenset[str]) -> AsyncGenerator[Change, None]:
        """The adapters now, then each change.

        Args:
            refs: only these; empty means all.
        """
        return self._changes.watch(refs)

    def tell(self, ref: str) -> None:
        """Tells watchers that an adapter changed, or is gone."""
        local = self._held.get(ref)
        self._changes.tell(Change(ref, self.of(local) if local else None))
        if local is None:
            metrics.forget(ref)
        self._count()

    def tell_all(self, refs: Iterable[str]) -> None:
        """Tells watchers that what is known of some adapters changed; skips those not held here."""
        for ref in set(refs) & self._held.keys():
            self.tell(ref)

    def _usage(self, local: LocalAdapter) -> Usage:
        return self._traffic.usage(local.loaded.engine_id) if local.loaded else Usage()

    def _count(self) -> None:
        states = Counter(local.record.state for local in self._held.values())
        for state in AdapterState:
            metrics.ADAPTERS.labels(state).set(states[state])
        metrics.CAPACITY_USED.labels("host").set(sum(states[state] for state in HOLDS_CAPACITY))
