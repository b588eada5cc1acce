"""How many completions are in flight, as the endpoint bears them.

Additive increase, multiplicative decrease (Chiu and Jain 1989), as TCP does it: an endpoint that
answers 429 is asked for half as many at once, and for one more after each round of answers. What an
answer says of the remaining quota (`x-ratelimit-remaining-requests`) bounds them too. How long a
refused request waits is another matter: see `Retries`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tuneproof_judge.metrics import ALLOWED

_QUOTA = ("x-ratelimit-remaining-requests", "ratelimit-remaining")


@dataclass(frozen=True)
class Slot:
    """A request's leave to be in flight."""

    size: int
    """Completions that it asks for."""
    era: int
    """How often the endpoint was asked less, when the request began."""


class Pace:
    """Lets requests begin, the first come first.

    Args:
        most: completions in flight, if the endpoint never complains.
        model: for the metric.
    """

    def __init__(self, most: int, model: str) -> None:
        self._most = most
        self._allowed = float(most)
        self._running = 0
        self._era = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._metric = ALLOWED.labels(model)
        self._metric.set(most)

    @property
    def allowed(self) -> int:
        """Completions that may be in flight now."""
        return max(1, int(self._allowed))

    @asynccontextmanager
    async def slot(self, size: int = 1) -> AsyncIterator[Slot]:
        """Waits until one more request may be in flight; it is for the time of the block.

        Args:
            size: completions that it asks for. A request for more than all may go alone.
        """
        await self._enter(size)
        try:
            yield Slot(size, self._era)
        finally:
            self._running -= size
            self._let_in()

    def refused(self, slot: Slot) -> None:
        """The endpoint answered 429. What began before it was asked less says nothing new."""
        if slot.era == self._era:
            self._era += 1
            self._set(min(self._allowed, self._most) / 2)

    def answered(self, slot: Slot, headers: Mapping[str, str]) -> None:
        """The endpoint answered."""
        self._set(self._allowed + slot.size / self._allowed)
        for name in _QUOTA:
            left = headers.get(name, "")
            if left.isascii() and left.isdigit():
                self._set(min(self._allowed, int(left)))

    def _set(self, allowed: float) -> None:
        self._allowed = max(1.0, min(allowed, self._most))
        self._metric.set(self.allowed)
        self._let_in()

    async def _enter(self, size: int) -> None:
        if self._fits(size) and not self._waiting:
            self._running += size
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, mine))
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():  # Let in and cancelled at one moment.
                self._running -= size
            else:
                self._waiting.remove((size, mine))
            self._let_in()
            raise

    def _fits(self, size: int) -> bool:
        return not self._running or self._running + size <= self.allowed

    def _let_in(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size, next_one = self._waiting.popleft()
            if not next_one.done():
                self._running += size
                next_one.set_result(None)
