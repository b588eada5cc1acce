"""The adapters of this replica: declared, loaded, resolved, removed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
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
from tuneproof_generator.aliases import Alias, Aliases, check_alias
from tuneproof_generator.backoff import Backoff
from tuneproof_generator.declarations import Declaration, Declarations
from tuneproof_generator.engine import LoadedAdapter
from tuneproof_generator.entry import Entry, now
from tuneproof_generator.holdings import Holdings
from tuneproof_generator.lifecycle import State
from tuneproof_generator.loading import Loader
from tuneproof_generator.residency import Residency, Residents, residency
from tuneproof_generator.traffic import Traffic, Usage
from tuneproof_generator.watching import AdapterView, Change, Changes

DRAIN_SECONDS = 30.0
"""How long running requests may take when nobody says otherwise."""

_log = structlog.get_logger(__name__)


class AdapterPool:
    """What this replica serves, and the only one who decides it.

    Args:
        base_model: the name under which the base is served.
        capacity: adapters that the engine keeps in host memory.
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
    ) -> None:
        self.base_model = base_model
        self._residents = residents
        self._loader = loader
        self._declarations = declarations
        self._stored_aliases = aliases
        self._clock = clock
        self._traffic = traffic
        self._held = Holdings(
            loader,
            traffic,
            capacity,
            self._tell,
            is_aliased=self._is_aliased,
            evict=self._evict,
            clock=clock,
            backoff=backoff or Backoff(),
        )
        self._aliases: dict[str, Alias] = {}
        self._changes = Changes(self.list)
        # Held while the declared set and what is held here are brought together.
        self._order = asyncio.Lock()
        self._reconciled = False

    def list(self) -> list[AdapterView]:
        """All adapters, sorted by reference."""
        return [self._view(self._held.entries[ref]) for ref in sorted(self._held.entries)]

    def get(self, name: str) -> AdapterView:
        """One adapter, by reference or alias.

        Raises:
            NotFound: when there is none.
        """
        alias = self._aliases.get(name)
        entry = self._held.entries.get(alias.ref if alias else name)
        if entry is None:
            raise NotFound(self._unknown(name, alias), adapter=name)
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
        return self._aliases

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
        alias = self._aliases.get(model)
        entry = self._held.entries.get(alias.ref if alias else model)
        if entry is None:
            raise NotFound(self._unknown(model, alias), model=model)
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
        """Raises Unavailable while the declared set is unknown or a required adapter not READY."""
        self._check_reconciled()
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
            if (
                entry is None
                or entry.record.required is not required
                # Another replica may have removed it, and this one not have seen that yet.
                or not await asyncio.to_thread(self._declarations.has, ref)
            ):
                declaration = Declaration(ref, required, self._clock(), request_id)
                await asyncio.to_thread(self._declarations.put, declaration)
                _log.info("declared", adapter=str(ref), required=required, request_id=request_id)
            return self._view(self._held.adopt(ref, required, evict=evict))

    async def remove(self, name: AdapterRef, drain_seconds: float = DRAIN_SECONDS) -> None:
        """Takes an adapter out of the pool. New requests are refused at once; running ones may
        end, then they are aborted; then the engine lets go, then the files go.

        Raises:
            NotFound: when it is not declared.
            Unavailable: when requests do not end; the adapter stays DRAINING.
        """
        async with self._order:
            entry = self._held.entries.get(str(name))
            if entry is None:
                raise NotFound(self._unknown(str(name), None), adapter=str(name))
            await asyncio.to_thread(self._declarations.delete, name)
            removal = self._held.drain(entry, drain_seconds)
        # The caller may go; the removal goes on.
        await asyncio.shield(removal)

    async def set_alias(
        self,
        name: str,
        ref: AdapterRef,
        *,
        expected_ref: str,
        force: bool,
        reason: str,
        request_id: str,
    ) -> Alias:
        """Points an alias to an adapter.

        Raises:
            InvalidInput: for a name that is no alias, or the base model's.
            WrongState: when the adapter is not READY (unless forced), or the alias points
                elsewhere than expected.
        """
        check_alias(name, reason)
        if name == self.base_model:
            raise InvalidInput(f"{name} is the base model's name; choose another", field="alias")
        entry = self._held.entries.get(str(ref))
        state = entry.record.state if entry else "not declared"
        if state != State.READY and not force:
            raise WrongState(
                f"adapter {ref} is {state}, not READY; wait for it, or force the change",
                reason="ADAPTER_NOT_READY",
            )
        async with self._order:
            alias = await asyncio.to_thread(
                self._stored_aliases.move,
                name,
                ref,
                expected_ref=expected_ref,
                reason=reason,
                request_id=request_id,
            )
            self._take_aliases({**self._aliases, name: alias})
        _log.info("alias set", alias=name, adapter=str(ref), reason=reason, request_id=request_id)
        return alias

    async def reconcile(self) -> None:
        """Makes what is held here what the pool's folder declares.

        Raises:
            Unavailable: when the artifact store does not answer; nothing changes then.
        """
        async with self._order:
            declared = await asyncio.to_thread(self._declarations.list)
            self._take_aliases(await asyncio.to_thread(self._stored_aliases.list))
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
                if ref not in wanted and entry.record.state is not State.DRAINING:
                    self._held.drain(entry, DRAIN_SECONDS)
            self._reconciled = True
            self._held.retry()

    async def follow(self, seconds: float) -> None:
        """Reconciles now and then every so many seconds, without end."""
        while True:
            try:
                await self.reconcile()
            except (TuneproofError, OSError) as error:
                metrics.RECONCILE_ERRORS.inc()
                _log.warning("pool's folder not read", error=str(error))
            await asyncio.sleep(seconds)

    async def close(self) -> None:
        """Stops all loading and removing; what is declared stays declared."""
        await self._held.close()

    async def _evict(self, entry: Entry) -> asyncio.Task[None] | None:
        """Takes an adapter out of the pool, unless it is in use or wanted now."""
        async with self._order:
            if entry.record.state is not State.DRAINING:
                if not self._held.places.may_evict(entry):
                    return None
                await asyncio.to_thread(self._declarations.delete, entry.ref)
                metrics.EVICTIONS.inc()
                _log.info("evicted", adapter=entry.record.ref)
            return self._held.drain(entry, DRAIN_SECONDS)

    def _check_reconciled(self) -> None:
        if not self._reconciled:
            raise Unavailable(
                "the pool's folder in the artifact store was not read yet", retry_after=1.0
            )

    def _is_aliased(self, ref: str) -> bool:
        return any(alias.ref == ref for alias in self._aliases.values())

    def _unknown(self, name: str, alias: Alias | None) -> str:
        if alias is not None:
            return f"alias {name} points to {alias.ref}, which is not declared; declare it first"
        return (
            f"{name!r} is not the base model {self.base_model!r}, nor an alias, nor a declared"
            " adapter; see ListAdapters and ListAliases"
        )

    def _view(self, entry: Entry) -> AdapterView:
        ref = entry.record.ref
        names = sorted(alias.name for alias in self._aliases.values() if alias.ref == ref)
        usage = self._traffic.usage(entry.adapter.engine_id) if entry.adapter else Usage()
        return AdapterView(entry.record, tuple(names), usage)

    def _take_aliases(self, aliases: dict[str, Alias]) -> None:
        old, self._aliases = self._aliases, aliases
        changed = {name for name in old | aliases if old.get(name) != aliases.get(name)}
        refs = {table[name].ref for table in (old, aliases) for name in changed if name in table}
        for ref in refs & self._held.entries.keys():
            self._tell(ref)

    def _tell(self, ref: str) -> None:
        entry = self._held.entries.get(ref)
        self._changes.tell(Change(ref, self._view(entry) if entry else None))
        self._count()

    def _count(self) -> None:
        states = Counter(entry.record.state for entry in self._held.entries.values())
        for state in State:
            metrics.ADAPTERS.labels(state).set(states[state])
