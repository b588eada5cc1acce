"""The pool as the doors of this replica see it; adapters are declared, evicted and removed here."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable
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
from tuneproof_generator.engine.residency import ResidencyProbe
from tuneproof_generator.pool.aliases import Aliases
from tuneproof_generator.pool.changes import AdapterView
from tuneproof_generator.pool.declarations import Declaration, Declarations
from tuneproof_generator.pool.fleet import Fleet
from tuneproof_generator.pool.reconciler import Reconciler
from tuneproof_generator.pool.replicas import Replicas
from tuneproof_generator.pool.resolver import Resolver
from tuneproof_generator.pool.routes import Routes
from tuneproof_generator.pool.views import AdapterViews

_log = structlog.get_logger(__name__)


class AdapterPool:
    """Changes the pool's declared set; its parts do the rest.

    Args:
        base_model: the name under which the base is served.
        capacity: adapters that the engine keeps in host memory.
        replicas: the statuses of the pool's replicas; None: this one is alone.
        draw: gives a number from [0, 1) for each request to an alias with a canary.

    Attributes:
        resolver: which adapter serves a request.
        views: what this replica reports of its adapters.
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
        self.resolver = Resolver(base_model, self._held, self.routes, self._check_known)
        self.views = AdapterViews(
            self._held,
            traffic,
            self.resolver,
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
            views=self.views,
            order=self._order,
        )

    def _check_known(self) -> None:
        self.reconciler.check()

    async def settle(self, seconds: float) -> None:
        """Waits until all that was declared when this replica started is READY or FAILED; no
        longer than `seconds`, and not while the artifact store does not answer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.reconciler.looked.wait()
                loading = [one.loading for one in self._held.values() if one.loading is not None]
                if loading:
                    await asyncio.wait(loading)

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
        self,
        ref: AdapterRef,
        *,
        required: bool,
        request_id: str,
        allow_no_effect: bool = False,
        evict: bool = False,
    ) -> AdapterView:
        """Adds an adapter to the declared set; it loads in the background. Repeatable; one that
        FAILED is tried again at once.

        Args:
            allow_no_effect: whether it may change nothing.
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
            wanted = (required, allow_no_effect)
            if stored is None or (stored.required, stored.allow_no_effect) != wanted:
                declaration = Declaration(ref, required, self._clock(), request_id, allow_no_effect)
                await asyncio.to_thread(self._declarations.put, declaration)
                _log.info("declared", adapter=str(ref), required=required, request_id=request_id)
            local = self._local.ensure(ref, required, allow_no_effect=allow_no_effect, evict=evict)
            return self.views.of(local)

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
                    allowed = stored.allow_no_effect
                    self._local.ensure(
                        local.ref, required=True, allow_no_effect=allowed, retry=False
                    )
                    return None
                try:
                    await self.routes.undeclare(local.ref)
                except WrongState:
                    return None
                metrics.EVICTIONS.inc()
                _log.info("evicted", adapter=local.record.ref)
            return self._local.drain(local, DRAIN_SECONDS)

    def _adapter_changed(self, ref: str) -> None:
        self.views.tell(ref)
        self._fleet.changed()

    def _routes_changed(self, refs: Iterable[str]) -> None:
        self.views.tell_all(refs)

    async def _check_everywhere(self, refs: Iterable[str]) -> None:
        await self._fleet.check_ready(refs, self.views.status)
