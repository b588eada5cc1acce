"""The aliases on this replica: which adapter serves a request for one, and how one is set.

An adapter to which an alias points cannot be taken out of the declared set.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import structlog

from tuneproof.adapters import AdapterRef
from tuneproof.servicekit.errors import InvalidInput, WrongState
from tuneproof_generator.pool.alias import Alias, Target, check_alias
from tuneproof_generator.pool.aliases import Aliases
from tuneproof_generator.pool.declarations import Declarations

_log = structlog.get_logger(__name__)


class Routes:
    """The aliases as last read; a request is answered from it without a wait.

    One replica may set an alias while another removes its target. No lock covers both. But a
    removal reads the aliases afterwards, and a change of an alias reads the declared set. So at
    least one of them sees the other, and undoes its own change.

    Args:
        stored: the aliases in the pool's folder.
        declarations: the declared set, likewise.
        changed: gets the references that an alias now points to, or did before.
        base_model: the name under which the base is served; no alias may have it.
        check_ready: raises WrongState unless adapters are READY on every live replica.
        order: held while an alias is set.
        draw: gives a number from [0, 1) for each request to an alias with a canary.
    """

    def __init__(
        self,
        stored: Aliases,
        declarations: Declarations,
        changed: Callable[[set[str]], None],
        *,
        base_model: str,
        check_ready: Callable[[Iterable[str]], Awaitable[None]],
        order: asyncio.Lock,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.table: Mapping[str, Alias] = {}
        self._stored = stored
        self._declarations = declarations
        self._changed = changed
        self._base_model = base_model
        self._check_ready = check_ready
        self._order = order
        self._draw = draw

    def pick(self, model: str) -> str:
        """The reference that serves a request for an alias; any other name as it is."""
        alias = self.table.get(model)
        return alias.pick(self._draw) if alias else model

    def names(self, ref: str) -> tuple[str, ...]:
        """The aliases that point to an adapter, as their target or as their canary, sorted."""
        return tuple(sorted(name for name, alias in self.table.items() if ref in alias.refs))

    async def refresh(self) -> None:
        """Reads the aliases.

        Raises:
            Unavailable: when the artifact store does not answer.
        """
        self._take(await asyncio.to_thread(self._stored.list, self.table))

    async def set(
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
            InvalidInput: for a name that no alias may have, as the base model's.
            WrongState: when an adapter is not READY on every live replica (unless forced) or is
                removed meanwhile, or the alias points elsewhere than expected, or has another
                version.
            Unavailable: when the artifact store does not answer.
        """
        check_alias(name, reason)
        if name == self._base_model:
            raise InvalidInput(f"{name} is the base model's name; choose another", field="alias")
        if target.ref is None and not force:
            raise InvalidInput(
                f"the ref is empty, so alias {name} would be retired; set force if that is meant",
                field="ref",
            )
        if not force:
            await self._check_ready(str(ref) for ref in target.refs)
        async with self._order:
            alias = await asyncio.to_thread(
                self._stored.move,
                name,
                target,
                expected_ref=expected_ref,
                expected_version=expected_version,
                reason=reason,
                request_id=request_id,
                set_by=set_by,
            )
            for ref in () if force else target.refs:
                if not await asyncio.to_thread(self._declarations.get, ref):
                    await self._undo(alias, f"{ref} was removed at this moment")
            self._take_one(alias)
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

    async def undeclare(self, ref: AdapterRef) -> None:
        """Takes an adapter out of the declared set. The caller holds `order`.

        Raises:
            WrongState: while an alias points to it, whichever replica set that.
            Unavailable: when the artifact store does not answer.
        """
        await self._check_free(ref)
        declaration = await asyncio.to_thread(self._declarations.get, ref)
        await asyncio.to_thread(self._declarations.delete, ref)
        try:
            await self._check_free(ref)
        except WrongState:
            if declaration:
                await asyncio.to_thread(self._declarations.put, declaration)
            raise

    async def versions(self, name: str) -> list[int]:
        """The numbers of an alias's changes, ascending.

        Raises:
            NotFound: when it was never set.
        """
        return await asyncio.to_thread(self._stored.versions, name)

    async def history(self, name: str, versions: Sequence[int]) -> list[Alias]:
        """Changes of an alias, in the order asked for, as far as they can be read."""
        return await asyncio.to_thread(self._stored.read, name, versions)

    async def _check_free(self, ref: AdapterRef) -> None:
        await self.refresh()
        if names := self.names(str(ref)):
            raise WrongState(
                f"adapter {ref} cannot go: {', '.join(names)} points to it; point {names[0]} to"
                " another adapter first, or retire it by setting it to an empty ref",
                reason="ADAPTER_ALIASED",
                aliases=",".join(names),
            )

    async def _undo(self, alias: Alias, reason: str) -> None:
        """Undoes a change of an alias by one more, and says so."""
        before = await self.history(alias.name, [alias.version - 1] if alias.version > 1 else [])
        undone = await asyncio.to_thread(
            self._stored.move,
            alias.name,
            before[0].target if before else Target(None),
            expected_ref=alias.ref,
            reason=reason,
            set_by="tuneproof",
        )
        self._take_one(undone)
        raise WrongState(f"alias {alias.name} was not moved: {reason}", reason="ADAPTER_NOT_READY")

    def _take_one(self, alias: Alias) -> None:
        others = {name: known for name, known in self.table.items() if name != alias.name}
        self._take(others | ({alias.name: alias} if alias.ref else {}))

    def _take(self, table: Mapping[str, Alias]) -> None:
        old, self.table = self.table, table
        names = {name for name in {*old, *table} if old.get(name) != table.get(name)}
        self._changed(
            {
                ref
                for known in (old, table)
                for name in names & known.keys()
                for ref in known[name].refs
            }
        )
