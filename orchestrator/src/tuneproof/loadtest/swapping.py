"""Swaps on the clock of the requests: declare new content, wait, move the alias, remove the old."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

from tuneproof.loadtest.driving import clock
from tuneproof.loadtest.records import Swap
from tuneproof.loadtest.truth import Truth
from tuneproof.sdk import AdapterInfo, AliasInfo
from tuneproof.servicekit.errors import TuneproofError

REASON = "tuneproof loadtest"


@dataclass(frozen=True, slots=True)
class SwapSpec:
    """Which adapters to swap, and how often."""

    adapters: tuple[str, ...]
    """References to declare first, each behind an alias of its own."""
    supply: tuple[str, ...]
    """References that take their places."""
    rate: float
    """Swaps a second."""
    residents: tuple[str, ...] = ()
    """References that are declared already: they get requests, and stay."""
    alias_prefix: str = "loadtest"
    lag: float = 0.0
    """Seconds for which other replicas may serve an alias's former adapter."""
    ready_seconds: float = 120.0
    """How long an adapter may take to be READY."""
    keep: bool = False
    """Whether the adapters stay declared at the end."""


class Manager(Protocol):
    """The calls of a swap; `GeneratorClient` has them."""

    async def declare(self, ref: str) -> AdapterInfo: ...

    async def wait_ready(
        self, ref: str, *, timeout: float, on_change: Callable[[AdapterInfo], None] | None
    ) -> AdapterInfo: ...

    async def set_alias(
        self, alias: str, ref: str, *, expected_ref: str, force: bool = False, reason: str
    ) -> AliasInfo: ...

    async def remove(self, ref: str) -> None: ...


FirstToken = Callable[[str], Awaitable[float | None]]
"""Sends a request to an adapter; returns the seconds to its first token."""


class Swapper:
    """Brings the next content of the supply behind the next alias, round and round.

    Args:
        slots: the current reference of each alias; changes with each swap.
        truth: learns of every move.
        first_token: sends the requests to new adapters.
    """

    def __init__(
        self,
        manager: Manager,
        slots: dict[str, str],
        swaps: SwapSpec,
        truth: Truth,
        first_token: FirstToken,
    ) -> None:
        self._manager = manager
        self._slots = slots
        self._swaps = swaps
        # A removed adapter comes back at the end.
        self._supply = deque(swaps.supply)
        self._truth = truth
        self._first_token = first_token
        self._turn = deque(slots)

    async def run(self, seconds: float) -> tuple[Swap, ...]:
        """Starts swaps at their rate, one at a time; a late one starts at once."""
        start = clock()
        swaps: list[Swap] = []
        while self._supply and (due := (len(swaps) + 0.5) / self._swaps.rate) < seconds:
            await asyncio.sleep(max(0.0, start + due - clock()))
            if clock() > start + seconds:
                break
            swaps.append(await self.swap())
        return tuple(swaps)

    async def swap(self) -> Swap:
        """One swap; a failed one says why, and leaves the alias where it was if possible."""
        alias = self._turn[0]
        self._turn.rotate(-1)
        done = Swap(alias, self._slots[alias], self._supply.popleft(), clock())
        try:
            await self._manager.declare(done.new)
            done = await self._until_ready(done)
            done = await self._ask(done)
            done = await self._move(done)
            await asyncio.sleep(self._swaps.lag)
            await self._manager.remove(done.old)
        except TuneproofError as failure:
            if done.moved is None:
                await self._forget(done.new)
            return replace(done, error=failure.message)
        self._supply.append(done.old)
        return replace(done, removed=clock())

    async def _until_ready(self, swap: Swap) -> Swap:
        states: list[tuple[str, float]] = []

        def note(adapter: AdapterInfo) -> None:
            if not states or states[-1][0] != adapter.state:
                states.append((adapter.state, clock()))

        ready = await self._manager.wait_ready(
            swap.new, timeout=self._swaps.ready_seconds, on_change=note
        )
        return replace(
            swap, states=tuple(states), ready=clock(), stage_seconds=dict(ready.stage_seconds)
        )

    async def _ask(self, swap: Swap) -> Swap:
        """The first request to it, and a second one to compare."""
        first = await self._first_token(swap.new)
        return replace(swap, first_seconds=first, warm_seconds=await self._first_token(swap.new))

    async def _move(self, swap: Swap) -> Swap:
        self._truth.moving(swap.alias, swap.new, clock())
        await self._manager.set_alias(swap.alias, swap.new, expected_ref=swap.old, reason=REASON)
        moved = clock()
        self._truth.moved(swap.alias, moved)
        self._slots[swap.alias] = swap.new
        return replace(swap, moved=moved)

    async def _forget(self, ref: str) -> None:
        try:
            await self._manager.remove(ref)
        except TuneproofError:
            return  # The swap's own error counts.
        self._supply.append(ref)
