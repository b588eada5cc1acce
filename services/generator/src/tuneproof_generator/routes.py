"""Where the aliases point as this replica knows it, and which adapter serves a request for one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence

from tuneproof.adapters import AdapterRef
from tuneproof.servicekit.errors import WrongState
from tuneproof_generator.alias import Alias, Target
from tuneproof_generator.aliases import Aliases


class Routes:
    """The aliases as last read; a request is answered from it without a wait.

    Args:
        stored: the aliases in the pool's folder.
        draw: gives a number from [0, 1) for each request to an alias with a canary.
    """

    def __init__(self, stored: Aliases, draw: Callable[[], float] = random.random) -> None:
        self.table: Mapping[str, Alias] = {}
        self._stored = stored
        self._draw = draw

    def pick(self, model: str) -> str:
        """The reference that serves a request for an alias; any other name as it is."""
        alias = self.table.get(model)
        return alias.pick(self._draw) if alias else model

    def names(self, ref: str) -> tuple[str, ...]:
        """The aliases that point to an adapter, as their target or as their canary, sorted."""
        return tuple(sorted(name for name, alias in self.table.items() if ref in alias.refs))

    async def refresh(self) -> set[str]:
        """Reads the aliases; the references that an alias points to now, or not any more.

        Raises:
            Unavailable: when the artifact store does not answer.
        """
        found = await asyncio.to_thread(self._stored.list, self.table)
        return self._take(found)

    async def check_free(self, ref: AdapterRef) -> set[str]:
        """Checks that no alias points to an adapter, as it is in the store; else like `refresh`.

        Raises:
            WrongState: naming the aliases.
            Unavailable: when the artifact store does not answer.
        """
        changed = await self.refresh()
        if names := self.names(str(ref)):
            one = names[0]
            raise WrongState(
                f"adapter {ref} cannot go: {', '.join(names)} points to it; point {one} to another"
                " adapter first, or retire it by setting it to an empty ref",
                reason="ADAPTER_ALIASED",
                aliases=",".join(names),
            )
        return changed

    async def move(
        self,
        name: str,
        target: Target,
        *,
        expected_ref: str,
        reason: str = "",
        request_id: str = "",
        set_by: str = "",
    ) -> tuple[Alias, set[str]]:
        """Points an alias elsewhere: the change, and the references whose aliases changed.

        Raises:
            WrongState: when it points elsewhere than expected.
            Unavailable: when the artifact store does not answer.
        """
        alias = await asyncio.to_thread(
            self._stored.move,
            name,
            target,
            expected_ref=expected_ref,
            reason=reason,
            request_id=request_id,
            set_by=set_by,
        )
        others = {each: known for each, known in self.table.items() if each != name}
        return alias, self._take(others | ({name: alias} if alias.ref else {}))

    async def versions(self, name: str) -> list[int]:
        """The numbers of an alias's changes, ascending.

        Raises:
            NotFound: when it was never set.
        """
        return await asyncio.to_thread(self._stored.versions, name)

    async def history(self, name: str, versions: Sequence[int]) -> list[Alias]:
        """Changes of an alias, in the order asked for, as far as they can be read."""
        return await asyncio.to_thread(self._stored.read, name, versions)

    def _take(self, table: Mapping[str, Alias]) -> set[str]:
        old, self.table = self.table, table
        changed = {name for name in {*old, *table} if old.get(name) != table.get(name)}
        return {
            ref
            for known in (old, table)
            for name in changed & known.keys()
            for ref in known[name].refs
        }
