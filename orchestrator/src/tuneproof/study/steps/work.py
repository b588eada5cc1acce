"""Doing what is missing: asks a service, keeps each output, asks again for the rest."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from tuneproof.sdk import BATCH_PENDING
from tuneproof.servicekit.errors import TuneproofError, Unavailable
from tuneproof.servicekit.retries import Retries, may_pass
from tuneproof.study.state.store import State, Task
from tuneproof.study.steps.tally import Piece, Tally

TaskOutcome = tuple[str, Any | TuneproofError]
"""A task's key with its output (JSON), or why there is none."""
Ask = Callable[[AsyncIterator[Task]], AsyncGenerator[TaskOutcome, None]]
"""Opens a stream to a service: takes tasks as they come, gives outcomes in any order."""
Ended = Callable[[Task, Any | None], None]
"""Receives a task with its output, or with None where it failed for good."""
_RETRIES = Retries(
    first=1.0, longest=8.0, attempts=4, passing=lambda error: isinstance(error, Unavailable)
)


class Lane:
    """The work of one service: tasks come in while others are asked for, on one stream.

    The stream ends whenever nothing is left to ask for. What it left out, because it broke off or
    for a failure that may pass, is asked for again by the next stream.

    Args:
        recover: brings back a service that was lost.
        ended: is told of each task that leaves the lane.
        pause: waits a number of seconds before another try.
    """

    def __init__(
        self,
        ask: Ask,
        state: State,
        *,
        recover: Callable[[], Awaitable[None]],
        ended: Ended | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._ask = ask
        self._state = state
        self._recover = recover
        self._ended = ended
        self._pause = pause
        self._pieces: dict[str, Piece] = {}
        """All that have not left, by key."""
        self._ranks: dict[str, tuple[Any, int]] = {}
        self._waiting: list[tuple[Any, int, str]] = []
        """A heap of rank, number and key."""
        self._asked: set[str] = set()
        self._again: set[str] = set()
        """Failed, perhaps for the moment only."""
        self._numbers = itertools.count()
        self._stream = 0
        self._kept = 0
        self._closed = False
        self._changed = asyncio.Event()

    def add(self, task: Task, tally: Tally, *, rank: Any = "", places: int = 1) -> None:
        """Has a task asked for. One that is in the lane already is asked for once.

        Args:
            rank: tasks of a lower rank are asked for first.
            places: how many of the stage's places it fills.
        """
        piece = self._pieces.get(task.key)
        if piece is None:
            piece = self._pieces[task.key] = Piece(task)
            self._ranks[task.key] = rank, next(self._numbers)
            self._wait(task.key)
        piece.add(tally, places)
        self._changed.set()

    def close(self) -> None:
        """Nothing more comes: `run` ends after what is here."""
        self._closed = True
        self._changed.set()

    async def run(self) -> None:
        """Asks for what is here and what comes, until the lane is closed and empty.

        Raises:
            Unavailable: the service was lost several times in a row without any progress.
        """
        attempt = 0
        while await self._more():
            kept = self._kept
            lost = await self._one_stream()
            if lost is None and not self._again:
                attempt = 0
                continue
            attempt = 1 if self._kept > kept else attempt + 1
            if attempt == _RETRIES.attempts:
                if lost is not None:
                    raise lost
                self._give_up()
                attempt = 0
                continue
            if lost is not None:
                for _, _, key in self._waiting[:1]:
                    self._pieces[key].note("a service was lost; waiting for it")
            await self._pause(_RETRIES.pause_of(attempt, lost))
            if lost is not None:
                await self._recover()
            while self._again:
                self._wait(self._again.pop())

    async def _more(self) -> bool:
        """Whether there is something to ask for, once this is known."""
        while not self._waiting and not self._again and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        return bool(self._waiting or self._again)

    async def _one_stream(self) -> Unavailable | None:
        """Asks until nothing is left to ask for; the loss that ended it before."""
        self._stream += 1
        try:
            async with aclosing(self._ask(self._tasks(self._stream))) as outcomes:
                async for key, outcome in outcomes:
                    self._take(key, outcome)
        except Unavailable as error:
            return error
        finally:
            self._stream += 1
            self._changed.set()
            for key in self._asked:
                self._pieces[key].end()
                self._wait(key)
            self._asked.clear()
        return None

    async def _tasks(self, stream: int) -> AsyncIterator[Task]:
        """Tasks as they come, until nothing is left that others could still follow from.

        gRPC may read on after its stream is over, so each look makes sure that it is not.
        """
        while stream == self._stream:
            if self._waiting:
                _, _, key = heapq.heappop(self._waiting)
                self._asked.add(key)
                self._pieces[key].begin()
                yield self._pieces[key].task
            elif not self._asked:
                return
            else:
                self._changed.clear()
                await self._changed.wait()

    def _take(self, key: str, outcome: Any | TuneproofError) -> None:
        piece = self._pieces[key]
        self._asked.remove(key)
        piece.end()
        self._changed.set()
        if not isinstance(outcome, TuneproofError):
            self._kept += 1
            # What follows from an output may be there already, and is counted with it.
            with self._state.together():
                piece.keep(self._state, outcome)
                self._leave(key, outcome)
            return
        piece.fail(self._state, outcome.message)
        if may_pass(outcome) and outcome.reason != BATCH_PENDING:
            self._again.add(key)
        else:
            self._leave(key, None)

    def _wait(self, key: str) -> None:
        heapq.heappush(self._waiting, (*self._ranks[key], key))

    def _give_up(self) -> None:
        while self._again:
            self._leave(self._again.pop(), None)

    def _leave(self, key: str, output: Any | None) -> None:
        piece = self._pieces.pop(key)
        del self._ranks[key]
        if self._ended is not None:
            self._ended(piece.task, output)


async def persist(
    step: Callable[[], Awaitable[object]],
    *,
    recover: Callable[[], Awaitable[None]],
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Does a step that can begin again, until no service is lost on the way.

    Raises:
        Unavailable: services were lost several times in a row.
    """
    await _RETRIES.call(step, sleep=pause, before_again=recover)
