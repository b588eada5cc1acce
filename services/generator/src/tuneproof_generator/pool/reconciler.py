"""Brings this replica's adapters to what the pool's folder declares."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from tuneproof.servicekit.errors import TuneproofError, Unavailable
from tuneproof.servicekit.retries import Retries
from tuneproof_generator import metrics
from tuneproof_generator.adapters.lifecycle import AdapterState
from tuneproof_generator.adapters.loading import Loader
from tuneproof_generator.adapters.local_adapter import LocalAdapter
from tuneproof_generator.adapters.local_adapters import LocalAdapters
from tuneproof_generator.adapters.traffic import DRAIN_SECONDS
from tuneproof_generator.pool.declarations import Declaration, Declarations
from tuneproof_generator.pool.fleet import Fleet
from tuneproof_generator.pool.routes import Routes
from tuneproof_generator.pool.views import AdapterViews

RECONCILE_RETRIES = Retries(first=1.0, longest=60.0, jitter=0.5)
"""The pauses after reads of the pool's folder that failed."""

_log = structlog.get_logger(__name__)


class Reconciler:
    """Reads declared and observed state, and makes them equal on this replica.

    Args:
        held: the adapters of this replica, by reference.
        order: held during a pass, so that no declaration or removal comes between its steps.
    """

    def __init__(
        self,
        held: Mapping[str, LocalAdapter],
        local: LocalAdapters,
        *,
        loader: Loader,
        declarations: Declarations,
        routes: Routes,
        fleet: Fleet,
        views: AdapterViews,
        order: asyncio.Lock,
    ) -> None:
        self._held = held
        self._local = local
        self._loader = loader
        self._declarations = declarations
        self._routes = routes
        self._fleet = fleet
        self._views = views
        self._order = order
        self.looked = asyncio.Event()
        """Set after the first pass, whatever came of it."""
        self._is_done = False
        self._obstacle = "the pool's folder in the artifact store was not read yet"

    def check(self) -> None:
        """Raises Unavailable until the first pass has succeeded: before, the declared set and the
        capacity that is left are unknown."""
        if not self._is_done:
            raise Unavailable(self._obstacle, retry_after=1.0)

    async def reconcile(self) -> None:
        """Makes one pass.

        Raises:
            Unavailable: when the artifact store does not answer; nothing changes then.
        """
        async with self._order:
            self._views.tell_all(await self._fleet.refresh())
            declared = await asyncio.to_thread(self._declarations.list, self._served())
            # After the declared set: a removal comes after its aliases moved. So no alias points to
            # what is drained below.
            await self._routes.refresh()
            if not self._is_done:
                digests = frozenset(declaration.ref.digest for declaration in declared)
                await asyncio.to_thread(self._loader.sweep, digests)
            # When capacity is short, required adapters get it first, then older ones.
            for declaration in sorted(declared, key=lambda one: (not one.required, one.time)):
                self._ensure(declaration)
            refs = {str(declaration.ref) for declaration in declared}
            for ref, local in list(self._held.items()):
                # Again, too, when aborted requests did not end.
                if ref not in refs or local.record.state is AdapterState.DRAINING:
                    self._local.drain(local, DRAIN_SECONDS)
            self._is_done = True
            self._local.retry()

    async def follow(self, seconds: float, *, failed: Retries = RECONCILE_RETRIES) -> None:
        """Makes a pass now and then every `seconds`, without end.

        Args:
            failed: the pauses after failures.
        """
        failures = 0
        while True:
            try:
                await self.reconcile()
                failures = 0
            except Exception as error:  # noqa: BLE001 - no object may end the loop
                failures += 1
                metrics.RECONCILE_ERRORS.inc()
                is_ours = isinstance(error, TuneproofError)
                if not self._is_done:
                    self._obstacle = f"the pool's folder was not read yet: {error}"
                _log.warning("pool's folder not read", error=str(error), exc_info=not is_ours)
            self.looked.set()
            await asyncio.sleep(failed.pause_of(failures) if failures else seconds)

    def _served(self) -> list[Declaration]:
        """What to take for the declaration of an adapter whose object cannot be read."""
        return [
            Declaration(
                local.ref,
                local.record.required,
                local.record.transitions[0].time,
                allow_no_effect=local.allow_no_effect,
            )
            for local in self._held.values()
            if local.record.state is not AdapterState.DRAINING
        ]

    def _ensure(self, declaration: Declaration) -> None:
        local = self._held.get(str(declaration.ref))
        if local is None or (
            local.record.state is not AdapterState.DRAINING
            and (local.record.required, local.allow_no_effect)
            != (declaration.required, declaration.allow_no_effect)
        ):
            self._local.ensure(
                declaration.ref,
                declaration.required,
                allow_no_effect=declaration.allow_no_effect,
                retry=False,
            )
