"""Swapping adapters while requests run: declare new content, wait, move the alias, remove the old.

On the same clock as the requests.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from tuneproof.loadtest.driving import clock
from tuneproof.loadtest.records import Swap
from tuneproof.loadtest.truth import Truth
from tuneproof.sdk import AdapterInfo, AliasInfo
from tuneproof.servicekit.errors import TuneproofError

REASON = "tuneproof loadtest"


class Manager(Protocol):
    """What a swap needs of a generator; `GeneratorClient` is one."""

    async def declare(self, ref: str) -> AdapterInfo: ...

    async def wait_ready(
        self,
        ref: str,
        *,
        timeout: float,
        on_change: Callable[[AdapterInfo], None] | None,
    ) -> AdapterInfo: ...

    async def set_alias(
        self, alias: str, ref: str, *, expected_ref: str, force: bool = False, reason: str
    ) -> AliasInfo: ...

    async def remove(self, ref: str) -> None: ...


FirstToken = Callable[[str], Awaitable[float | None]]
"""Asks an adapter something and gives the seconds to its first token."""


class Swapper:
    """Brings the next content of the supply behind the next alias, and on in a circle.

    Args:
        slots: reference by alias, as they are now.
        supply: references that are not declared now; a removed one comes back at its end.
        truth: is told of every move.
        first_token: None: nothing is asked directly.
        ready_seconds: how long an adapter may take to be READY.
        lag: seconds between a move and the removal of the old adapter.
    """

    def __init__(
        self,
        manager: Manager,
        slots: Mapping[str, str],
        supply: Sequence[str],
        truth: Truth,
        *,
        first_token: FirstToken | None = None,
        ready_seconds: float = 120.0,
        lag: float = 0.0,
    ) -> None:
        self.slots = dict(slots)
        self.supply = deque(supply)
        self._manager = manager
        self._truth = truth
        self._first_token = first_token
        self._ready_seconds = ready_seconds
        self._lag = lag
        self._turn = deque(slots)

    async def run(self, rate: float, seconds: float) -> tuple[Swap, ...]:
        """Starts a swap every 1 / rate seconds, one at a time; a late one starts at once."""
        start = clock()
        swaps: list[Swap] = []
        while self.supply and (due := (len(swaps) + 0.5) / rate) < seconds:
            await asyncio.sleep(max(0.0, start + due - clock()))
            if clock() > start + seconds:
                break
            swaps.append(await self.swap())
        return tuple(swaps)

    async def swap(self) -> Swap:
        """One swap; a failed one tells why, and leaves the alias where it was if it can."""
        alias = self._turn[0]
        self._turn.rotate(-1)
        done = Swap(alias, self.slots[alias], self.supply.popleft(), clock())
        try:
            await self._manager.declare(done.new)
            done = await self._until_ready(done)
            done = await self._ask(done)
            done = await self._move(done)
            await asyncio.sleep(self._lag)
            await self._manager.remove(done.old)
        except TuneproofError as failure:
            if done.moved is None:
                await self._forget(done.new)
            return replace(done, error=failure.message)
        self.supply.append(done.old)
        return replace(done, removed=clock())

    async def _until_ready(self, swap: Swap) -> Swap:
        states: list[tuple[str, float]] = []

        def note(adapter: AdapterInfo) -> None:
            if not states or states[-1][0] != adapter.state:
                states.append((adapter.state, clock()))

        ready = await self._manager.wait_ready(
            swap.new, timeout=self._ready_seconds, on_change=note
        )
        return replace(
            swap, states=tuple(states), ready=clock(), stage_seconds=dict(ready.stage_seconds)
        )

    async def _ask(self, swap: Swap) -> Swap:
        """The first request to it, and a second one to compare."""
        if self._first_token is None:
            return swap
        first = await self._first_token(swap.new)
        return replace(swap, first_seconds=first, warm_seconds=await self._first_token(swap.new))

    async def _move(self, swap: Swap) -> Swap:
        self._truth.moving(swap.alias, swap.new, clock())
        await self._manager.set_alias(swap.alias, swap.new, expected_ref=swap.old, reason=REASON)
        moved = clock()
        self._truth.moved(swap.alias, moved)
        self.slots[swap.alias] = swap.new
        return replace(swap, moved=moved)

    async def _forget(self, ref: str) -> None:
        try:
            await self._manager.remove(ref)
        except TuneproofError:
            return  # The swap's own error is the one to tell.
        self.supply.append(ref)
