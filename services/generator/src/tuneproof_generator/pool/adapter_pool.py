"""The adapters of this replica, as its doors see them: declared, resolved, evicted, removed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from datetime import datetime

import structlog

from tuneproof.adapters import AdapterRef
from tuneproof.servicekit.errors import Unavailable, WrongState
from tuneproof.servicekit.retries import Retries
from tuneproof_generator import metrics
from tuneproof_generator.adapters.capacity import HostCapacity
from tuneproof_generator.adapters.lifecycle import AdapterState
from tuneproof_generator.adapters.loading import Loader
from tuneproof_generator.adapters.local_adapter import LocalAdapter
from tuneproof_generator.adapters.local_adapters import LOAD_RETRIES, LocalAdapters
from tuneproof_generator.adapters.traffic import DRAIN_SECONDS, Traffic
from tuneproof_generator.clock import now
from tuneproof_generator.engine.protocol import LoadedAdapter
from tuneproof_generator.engine.residency import Residency, ResidencyProbe
from tuneproof_generator.pool.alias import Alias
from tuneproof_generator.pool.aliases import Aliases
from tuneproof_generator.pool.changes import AdapterView, Change
from tuneproof_generator.pool.declarations import Declaration, Declarations
from tuneproof_generator.pool.fleet import Fleet
from tuneproof_generator.pool.reconciler import Reconciler
from tuneproof_generator.pool.replica_status import AdapterStatus
from tuneproof_generator.pool.replicas import Replicas
from tuneproof_generator.pool.resolver import Resolver
from tuneproof_generator.pool.routes import Routes
from tuneproof_generator.pool.views import AdapterViews

_log = structlog.get_logger(__name__)


class AdapterPool:
    """Changes the pool's declared set, and shows what this replica serves.

    Args:
        base_model: the name under which the base is served.
        capacity: adapters that the engine keeps in host memory.
        replicas: what this replica and the others of the pool tell each other; None: it is alone.
        draw: gives a number from [0, 1) for each request to an alias with a canary.

    Attributes:
        routes: the aliases: where they point, how they are set, their history.
        reconciler: keeps this replica equal to the declared state.
    """

    def __init__(
        self,
        loader: Loader,
        traffic: Traffic,
        declarations: Declarations,
        aliases: Aliases,
        *,
        base_model: str,
        capacity: int,
        clock: Callable[[], datetime] = now,
        retries: Retries = LOAD_RETRIES,
        residency_probe: ResidencyProbe | None = None,
        replicas: Replicas | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.base_model = base_model
        metrics.CAPACITY.labels("host").set(capacity)
        self._declarations = declarations
        self._clock = clock
        self._held: dict[str, LocalAdapter] = {}
        self._fleet = Fleet(replicas)
        # Held while the declared set and what is held here are brought together.
        self._order = asyncio.Lock()
        self.routes = Routes(
            aliases,
            declarations,
            self._routes_changed,
            base_model=base_model,
            check_ready=self._check_everywhere,
            order=self._order,
            draw=draw,
        )
        self._views = AdapterViews(
            self._held,
            traffic,
            self.routes,
            self._fleet,
            residency_probe=residency_probe,
            clock=clock,
        )
        self._capacity = HostCapacity(
            self._held,
            capacity,
            traffic,
            is_aliased=lambda ref: bool(self.routes.names(ref)),
            used_elsewhere=self._fleet.last_used,
            clock=clock,
        )
        self._local = LocalAdapters(
            self._held,
            loader,
            traffic,
            self._capacity,
            self._adapter_changed,
            evict=self._evict,
            retries=retries,
            clock=clock,
        )
        self.reconciler = Reconciler(
            self._held,
            self._local,
            loader=loader,
            declarations=declarations,
            routes=self.routes,
            fleet=self._fleet,
            views=self._views,
            order=self._order,
        )
        self._resolver = Resolver(base_model, self._held, self.routes)

    def list(self) -> list[AdapterView]:
        """All adapters, sorted by reference."""
        return self._views.list()

    def get(self, name: str) -> AdapterView:
        """One adapter, by reference or alias.

        Raises:
            NotFound: when there is none.
        """
        return self._views.of(self._resolver.find(name))

    @property
    def aliases(self) -> Mapping[str, Alias]:
        """Where the aliases point, by name."""
        return self.routes.table

    def statuses(self) -> dict[str, AdapterStatus]:
        """What this replica tells the others: its adapters, by reference."""
        return self._views.statuses()

    def watch(self, refs: frozenset[str]) -> AsyncGenerator[Change, None]:
        """The adapters now, then each change; only these references, or all."""
        return self._views.watch(refs)

    async def residency(self) -> Mapping[str, Residency]:
        """Where the weights of each adapter are, by reference."""
        return await self._views.residency()

    def resolve(self, model: str) -> LoadedAdapter | None:
        """What serves a request for a model; None for the base model.

        Raises:
            NotFound: for a name that is neither base, nor adapter, nor alias.
            Unavailable: for an adapter that is not READY.
        """
        return self._resolver.serving(model)

    def check_ready(self) -> None:
        """Raises Unavailable while the declared set is unknown, a required adapter is not READY, or
        another process has this replica's name."""
        self.reconciler.check()
        self._fleet.check()
        missing = [
            f"{local.record.ref} is {local.record.state}"
            for local in self._held.values()
            if local.record.required and local.record.state is not AdapterState.READY
        ]
        if missing:
            raise Unavailable(f"required adapters are not READY: {'; '.join(missing)}")

    async def declare(
        self, ref: AdapterRef, *, required: bool, request_id: str, evict: bool = False
    ) -> AdapterView:
        """Adds an adapter to the declared set; it loads in the background. Repeatable; one that
        FAILED is tried again at once.

        Args:
            evict: whether the adapter that has been idle for longest is evicted when the capacity
                is used up.

        Raises:
            Overloaded: when there is no capacity, and none can be made.
            Unavailable: until the pool's folder was read, because the capacity is unknown.
            WrongState: while it is being removed.
        """
        async with self._order:
            self.reconciler.check()
            local = self._held.get(str(ref))
            if local is not None and local.record.state is AdapterState.DRAINING:
                raise WrongState(
                    f"adapter {ref} is being removed; declare it again when it is gone"
                )
            if local is None or local.record.state is AdapterState.FAILED:
                self._capacity.check(ref, evict=evict)
            # This replica may not have read yet what another one wrote.
            stored = await asyncio.to_thread(self._declarations.get, ref)
            if stored is None or stored.required is not required:
                declaration = Declaration(ref, required, self._clock(), request_id)
                await asyncio.to_thread(self._declarations.put, declaration)
                _log.info("declared", adapter=str(ref), required=required, request_id=request_id)
            return self._views.of(self._local.ensure(ref, required, evict=evict))

    async def remove(self, name: AdapterRef, drain_seconds: float = DRAIN_SECONDS) -> None:
        """Takes an adapter out of the declared set and drains it: new requests are refused at once,
        running ones may end, then they are aborted; then the engine unloads it, then its files are
        deleted.

        Repeatable; nothing happens when it is not declared.

        Raises:
            WrongState: while an alias points to it.
            Unavailable: when requests do not end; the adapter stays DRAINING.
        """
        async with self._order:
            await self.routes.undeclare(name)
            local = self._held.get(str(name))
            removal = self._local.drain(local, drain_seconds) if local else None
        if removal:
            # The removal goes on when its caller is gone.
            await asyncio.shield(removal)

    async def close(self) -> None:
        """Stops all loading and removing; what is declared stays declared."""
        await self._local.close()

    async def _evict(self, local: LocalAdapter) -> asyncio.Task[None] | None:
        """Takes an adapter out of the declared set, unless it is in use or required now."""
        async with self._order:
            if local.record.state is not AdapterState.DRAINING:
                if not self._capacity.may_evict(local):
                    return None
                stored = await asyncio.to_thread(self._declarations.get, local.ref)
                if stored and stored.required:
                    self._local.ensure(local.ref, required=True, retry=False)
                    return None
                try:
                    await self.routes.undeclare(local.ref)
                except WrongState:
                    return None
                metrics.EVICTIONS.inc()
                _log.info("evicted", adapter=local.record.ref)
            return self._local.drain(local, DRAIN_SECONDS)

    def _adapter_changed(self, ref: str) -> None:
        self._views.tell(ref)
        self._fleet.changed()

    def _routes_changed(self, refs: Iterable[str]) -> None:
        self._views.tell_all(refs)

    async def _check_everywhere(self, refs: Iterable[str]) -> None:
        await self._fleet.check_ready(refs, self._views.status)
