"""The adapters of this replica: declared, loaded, resolved, removed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from datetime import datetime

import structlog

from tuneproof.adapters import AdapterRef
from tuneproof.servicekit.errors import (
    InvalidInput,
    NotFound,
    TuneproofError,
    Unavailable,
    WrongState,
)
from tuneproof_generator import metrics
from tuneproof_generator.adapters.lifecycle import HOLDS_PLACE, State
from tuneproof_generator.adapters.loading import Loader
from tuneproof_generator.adapters.local_adapter import Entry, now
from tuneproof_generator.adapters.local_adapters import Holdings
from tuneproof_generator.adapters.traffic import Traffic, Usage
from tuneproof_generator.backoff import Backoff
from tuneproof_generator.engine.protocol import LoadedAdapter
from tuneproof_generator.engine.residency import Residency, Residents, residency
from tuneproof_generator.pool.alias import Alias, Target, check_alias
from tuneproof_generator.pool.aliases import Aliases
from tuneproof_generator.pool.changes import AdapterView, Change, Changes
from tuneproof_generator.pool.declarations import Declaration, Declarations
from tuneproof_generator.pool.fleet import NOT_SEEN, Fleet
from tuneproof_generator.pool.replica_status import AdapterStatus
from tuneproof_generator.pool.replicas import Replicas
from tuneproof_generator.pool.routes import Routes

DRAIN_SECONDS = 30.0
"""How long running requests may take when nobody says otherwise."""

_LONGEST_WAIT = 60.0

_log = structlog.get_logger(__name__)


class AdapterPool:
    """What this replica serves, and the only one who decides it.

    Args:
        base_model: the name under which the base is served.
        capacity: adapters that the engine keeps in host memory.
        replicas: what this replica and the others of the pool tell each other; None: it is alone.
        draw: gives a number from [0, 1) for each request to an alias with a canary.
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
        backoff: Backoff | None = None,
        residents: Residents | None = None,
        replicas: Replicas | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.base_model = base_model
        metrics.PLACES.labels("host").set(capacity)
        self._fleet = Fleet(replicas, self._status)
        self._residents = residents
        self._loader = loader
        self._declarations = declarations
        self.routes = Routes(aliases, declarations, self._tell_all, draw)
        self._clock = clock
        self._traffic = traffic
        self._held = Holdings(
            loader,
            traffic,
            capacity,
            self._changed,
            is_aliased=lambda ref: bool(self.routes.names(ref)),
            used_elsewhere=self._fleet.last_used,
            evict=self._evict,
            clock=clock,
            backoff=backoff or Backoff(),
        )
        self._changes = Changes(self.list)
        # Held while the declared set and what is held here are brought together.
        self._order = asyncio.Lock()
        self._reconciled = False
        self._not_read = "the pool's folder in the artifact store was not read yet"

    def list(self) -> list[AdapterView]:
        """All adapters, sorted by reference."""
        return [self._view(self._held.entries[ref]) for ref in sorted(self._held.entries)]

    def get(self, name: str) -> AdapterView:
        """One adapter, by reference or alias.

        Raises:
            NotFound: when there is none.
        """
        alias = self.aliases.get(name)
        ref = alias.ref if alias else name
        entry = self._held.entries.get(ref)
        if entry is None:
            raise NotFound(self._unknown(name, ref), adapter=name)
        return self._view(entry)

    async def residency(self) -> Mapping[str, Residency]:
        """Where the weights of each adapter are, by reference; asked from the engine's workers,
        UNKNOWN when they do not answer soon."""
        workers = await self._residents.ask() if self._residents else ()
        return {
            ref: residency(workers, entry.adapter.engine_id if entry.adapter else 0)
            for ref, entry in self._held.entries.items()
        }

    @property
    def aliases(self) -> Mapping[str, Alias]:
        """Where the aliases point."""
        return self.routes.table

    def statuses(self) -> dict[str, AdapterStatus]:
        """What this replica tells the others: its adapters, by reference."""
        return {ref: self._status(ref) for ref in self._held.entries}

    def watch(self, refs: frozenset[str]) -> AsyncGenerator[Change, None]:
        """The adapters now, then each change."""
        return self._changes.watch(refs)

    def resolve(self, model: str) -> LoadedAdapter | None:
        """What serves a model's name; None for the base, which never stands in for an adapter.

        Raises:
            NotFound: for a name that is neither base, nor adapter, nor alias.
            Unavailable: for an adapter that is not READY.
        """
        if model in ("", self.base_model):
            return None
        ref = self.routes.pick(model)
        entry = self._held.entries.get(ref)
        if entry is None:
            raise NotFound(self._unknown(model, ref), model=model)
        if entry.record.state is not State.READY or entry.adapter is None:
            record = entry.record
            because = f" ({record.reason})" if record.reason else ""
            raise Unavailable(
                f"adapter {record.ref} is {record.state}, not READY{because}; see GetAdapter",
                retry_after=None if record.state is State.FAILED else 1.0,
                adapter=record.ref,
                state=record.state,
            )
        return entry.adapter

    def check_ready(self) -> None:
        """Raises Unavailable while the declared set is unknown, a required adapter not READY, or
        this replica's name another's."""
        self._check_reconciled()
        self._fleet.check()
        missing = [
            f"{entry.record.ref} is {entry.record.state}"
            for entry in self._held.entries.values()
            if entry.record.required and entry.record.state is not State.READY
        ]
        if missing:
            raise Unavailable(f"required adapters are not READY: {'; '.join(missing)}")

    async def declare(
        self, ref: AdapterRef, *, required: bool, request_id: str, evict: bool = False
    ) -> AdapterView:
        """Adds an adapter to the pool; it loads in the background. Repeatable; one that FAILED is
        tried again, at once.

        Args:
            evict: whether the adapter that has been idle for longest goes when there is no place.

        Raises:
            Overloaded: when the engine has no place for it, and none may be made.
            Unavailable: while the pool's folder was not read yet, so that places are not known.
            WrongState: while it is being removed.
        """
        async with self._order:
            self._check_reconciled()
            entry = self._held.entries.get(str(ref))
            if entry is not None and entry.record.state is State.DRAINING:
                raise WrongState(
                    f"adapter {ref} is being removed; declare it again when it is gone"
                )
            if entry is None or entry.record.state is State.FAILED:
                self._held.places.check(ref, evict=evict)
            # What another replica was told may not have been seen here yet.
            stored = await asyncio.to_thread(self._declarations.get, ref)
            if stored is None or stored.required is not required:
                declaration = Declaration(ref, required, self._clock(), request_id)
                await asyncio.to_thread(self._declarations.put, declaration)
                _log.info("declared", adapter=str(ref), required=required, request_id=request_id)
            return self._view(self._held.adopt(ref, required, evict=evict))

    async def remove(self, name: AdapterRef, drain_seconds: float = DRAIN_SECONDS) -> None:
        """Takes an adapter out of the pool. New requests are refused at once; running ones may
        end, then they are aborted; then the engine lets go, then the files go.

        Repeatable; nothing happens when it is not declared, or not any more.

        Raises:
            WrongState: while an alias points to it.
            Unavailable: when requests do not end; the adapter stays DRAINING.
        """
        async with self._order:
            await self.routes.undeclare(name)
            entry = self._held.entries.get(str(name))
            removal = self._held.drain(entry, drain_seconds) if entry else None
        if removal:
            # The caller may go; the removal goes on.
            await asyncio.shield(removal)

    async def set_alias(
        self,
        name: str,
        target: Target,
        *,
        expected_ref: str,
        expected_version: int | None = None,
        force: bool = False,
        reason: str = "",
        request_id: str = "",
        set_by: str = "",
    ) -> Alias:
        """Points an alias to an adapter, or in parts to two, or to none.

        Raises:
            InvalidInput: for a name that is no alias, or the base model's.
            WrongState: when an adapter is not READY on every live replica (unless forced), or the
                alias points elsewhere than expected, or has another version.
            Unavailable: when the artifact store does not answer.
        """
        check_alias(name, reason)
        if name == self.base_model:
            raise InvalidInput(f"{name} is the base model's name; choose another", field="alias")
        if target.ref is None and not force:
            raise InvalidInput(
                f"the ref is empty, so alias {name} would be retired; set force if that is meant",
                field="ref",
            )
        if not force:
            await self._fleet.check_ready(str(ref) for ref in target.refs)
        async with self._order:
            alias = await self.routes.set(
                name,
                target,
                expected_ref=expected_ref,
                expected_version=expected_version,
                reason=reason,
                request_id=request_id,
                set_by=set_by,
                declared=not force,
            )
        _log.info(
            "alias set",
            alias=name,
            adapter=alias.ref,
            canary=alias.canary_ref,
            by=set_by,
            reason=reason,
            request_id=request_id,
        )
        return alias

    async def reconcile(self) -> None:
        """Makes what is held here what the pool's folder declares.

        Raises:
            Unavailable: when the artifact store does not answer; nothing changes then.
        """
        async with self._order:
            self._tell_all(await self._fleet.refresh())
            served = [
                Declaration(entry.ref, entry.record.required, entry.record.transitions[0].time)
                for entry in self._held.entries.values()
                if entry.record.state is not State.DRAINING
            ]
            declared = await asyncio.to_thread(self._declarations.list, served)
            # After the declared set: who removes an adapter moved its aliases before. So no alias
            # points to what is drained here now.
            await self.routes.refresh()
            if not self._reconciled:
                digests = frozenset(declaration.ref.digest for declaration in declared)
                await asyncio.to_thread(self._loader.sweep, digests)
            # Where places do not suffice, the required and the older ones have them.
            for declaration in sorted(declared, key=lambda one: (not one.required, one.time)):
                entry = self._held.entries.get(str(declaration.ref))
                if entry is None or (
                    entry.record.state is not State.DRAINING
                    and entry.record.required is not declaration.required
                ):
                    self._held.adopt(declaration.ref, declaration.required, retry=False)
            wanted = {str(declaration.ref) for declaration in declared}
            for ref, entry in list(self._held.entries.items()):
                # Again for one whose requests did not end when they were aborted.
                if ref not in wanted or entry.record.state is State.DRAINING:
                    self._held.drain(entry, DRAIN_SECONDS)
            self._reconciled = True
            self._held.retry()

    async def follow(self, seconds: float, *, failed: Backoff | None = None) -> None:
        """Reconciles now and then every so many seconds, without end.

        Args:
            failed: the waits after failures; from one second to a minute if not given.
        """
        waits, failures = failed or Backoff(longest=_LONGEST_WAIT), 0
        while True:
            try:
                await self.reconcile()
                failures = 0
            except Exception as error:  # noqa: BLE001 - it goes on, whatever an object holds
                failures += 1
                metrics.RECONCILE_ERRORS.inc()
                is_ours = isinstance(error, TuneproofError)
                if not self._reconciled:
                    self._not_read = f"the pool's folder was not read yet: {error}"
                _log.warning("pool's folder not read", error=str(error), exc_info=not is_ours)
            await asyncio.sleep(waits.seconds(failures) if failures else seconds)

    async def close(self) -> None:
        """Stops all loading and removing; what is declared stays declared."""
        await self._held.close()

    async def _evict(self, entry: Entry) -> asyncio.Task[None] | None:
        """Takes an adapter out of the pool, unless it is in use or wanted now."""
        async with self._order:
            if entry.record.state is not State.DRAINING:
                if not self._held.places.may_evict(entry):
                    return None
                stored = await asyncio.to_thread(self._declarations.get, entry.ref)
                if stored and stored.required:
                    self._held.adopt(entry.ref, required=True, retry=False)
                    return None
                try:
                    await self.routes.undeclare(entry.ref)
                except WrongState:
                    return None
                metrics.EVICTIONS.inc()
                _log.info("evicted", adapter=entry.record.ref)
            return self._held.drain(entry, DRAIN_SECONDS)

    def _check_reconciled(self) -> None:
        if not self._reconciled:
            raise Unavailable(self._not_read, retry_after=1.0)

    def _unknown(self, name: str, ref: str) -> str:
        if name in self.aliases:
            return f"alias {name} points to {ref}, which is not declared; declare it first"
        return (
            f"{name!r} is not the base model {self.base_model!r}, nor an alias, nor a declared"
            " adapter; see ListAdapters and ListAliases"
        )

    def _view(self, entry: Entry) -> AdapterView:
        ref = entry.record.ref
        return AdapterView(
            entry.record, self.routes.names(ref), self._usage(entry), self._fleet.everywhere(ref)
        )

    def _status(self, ref: str) -> AdapterStatus:
        entry = self._held.entries.get(ref)
        if entry is None:
            return NOT_SEEN
        usage = self._usage(entry)
        used = self._clock() if usage.running else usage.last_used
        return AdapterStatus(entry.record.state, entry.record.reason, used)

    def _usage(self, entry: Entry) -> Usage:
        return self._traffic.usage(entry.adapter.engine_id) if entry.adapter else Usage()

    def _changed(self, ref: str) -> None:
        self._tell(ref)
        self._fleet.changed()

    def _tell_all(self, refs: Iterable[str]) -> None:
        for ref in set(refs) & self._held.entries.keys():
            self._tell(ref)

    def _tell(self, ref: str) -> None:
        entry = self._held.entries.get(ref)
        self._changes.tell(Change(ref, self._view(entry) if entry else None))
        if entry is None:
            metrics.forget(ref)
        self._count()

    def _count(self) -> None:
        states = Counter(entry.record.state for entry in self._held.entries.values())
        for state in State:
            metrics.ADAPTERS.labels(state).set(states[state])
        metrics.PLACES_USED.labels("host").set(sum(states[state] for state in HOLDS_PLACE))
