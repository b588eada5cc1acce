"""Trying again: how often, after which pauses, for which failures.

    Retries     the policy: attempts, growing pauses with jitter, the failures that may pass
    .call       repeats an action that is safe to repeat, until it succeeds or the policy gives up
    .pause_of   the pause after a failure, for loops that count their failures themselves
    Patience    for loops that follow a service: how long it may be away without a break

gRPC repeats the idempotent calls of a channel itself (see `client`). This module is for what gRPC
cannot repeat: client streams, HTTP endpoints, steps of several calls.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from tuneproof.servicekit.errors import Overloaded, Unavailable

T = TypeVar("T")

Sleep = Callable[[float], Awaitable[None]]
"""Waits a number of seconds; tests give one that does not wait."""

_MOST_DOUBLINGS = 64
"""Bounds the exponent: a float holds no 2**1024."""


def may_pass(error: BaseException) -> bool:
    """Whether a failure may be gone at the next attempt: `Unavailable` and `Overloaded`."""
    return isinstance(error, Unavailable | Overloaded)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """When to try again. Only what is safe to repeat may be given to it."""

    first: float
    """Seconds: bound of the pause after the first failure."""
    longest: float
    """Seconds: the bound grows up to this."""
    factor: float = 2.0
    """By which the bound grows from one failure to the next."""
    jitter: float = 1.0
    """Share of a pause that is drawn at random: at 1 (full jitter) it lies between 0 and the
    bound, at 0.5 between half the bound and the bound. Without jitter, callers that failed
    together come back together."""
    attempts: int | None = None
    """Most attempts, the first included; None: without a limit."""
    longest_asked: float | None = None
    """Seconds: a server that asks for a longer pause (`retry_after`) is not asked again."""
    passing: Callable[[BaseException], bool] = may_pass
    """Whether another attempt may help after this error; other errors go to the caller at once."""
    draw: Callable[[float, float], float] = random.uniform
    """Draws a number between two; tests give one with a seed."""

    def pause_of(self, failures: int, error: BaseException | None = None) -> float:
        """Seconds to pause after a number of failures in a row (1 or more).

        Args:
            error: the last failure. What it asks for (`retry_after`) comes on top of the jitter.
        """
        bound = min(self.longest, self.first * self.factor ** min(failures - 1, _MOST_DOUBLINGS))
        return _asked_by(error) + self.draw(bound * (1 - self.jitter), bound)

    def gives_up(
        self, failures: int, error: BaseException, *, pause: float = 0.0, left: float | None = None
    ) -> bool:
        """Whether no further attempt follows after a number of failures in a row.

        Args:
            pause: seconds before the attempt would begin.
            left: seconds until the deadline; None: there is none.
        """
        return (
            not self.passing(error)
            or (self.attempts is not None and failures >= self.attempts)
            or (self.longest_asked is not None and _asked_by(error) > self.longest_asked)
            or (left is not None and pause >= left)
        )

    async def call(
        self,
        action: Callable[[], Awaitable[T]],
        *,
        timeout: float | None = None,
        sleep: Sleep = asyncio.sleep,
        before_again: Callable[[], Awaitable[None]] | None = None,
    ) -> T:
        """Does an action, again after each failure that may pass; gives its result.

        Args:
            timeout: seconds after which no attempt begins; it does not cut an attempt short.
            before_again: done after each pause, before the next attempt.

        Raises:
            Exception: the last attempt's error.
        """
        clock = asyncio.get_running_loop().time
        end = None if timeout is None else clock() + timeout

        def is_last(state: tenacity.RetryCallState) -> bool:
            left = None if end is None else end - clock()
            return self.gives_up(
                state.attempt_number, _error_of(state), pause=state.upcoming_sleep, left=left
            )

        async def wait(seconds: float) -> None:
            await sleep(seconds)
            if before_again is not None:
                await before_again()

        retrying = tenacity.AsyncRetrying(
            sleep=wait,
            wait=lambda state: self.pause_of(state.attempt_number, _error_of(state)),
            stop=is_last,
            retry=tenacity.retry_if_exception(self.passing),
            reraise=True,
        )

        # tenacity 9 awaits only what is declared `async`: a lambda's coroutine it would give back.
        async def attempt() -> T:
            return await action()

        return await retrying(attempt)


class Patience:
    """How long a service that is followed may be away without a break.

    Args:
        retries: gives the pauses; its `attempts` is not read.
        seconds: how long it may be away, from the first failure on.
    """

    def __init__(self, retries: Retries, seconds: float, *, sleep: Sleep = asyncio.sleep) -> None:
        self._retries = retries
        self._seconds = seconds
        self._sleep = sleep
        self._clock = asyncio.get_running_loop().time
        self._failures = 0
        self._away_since = 0.0

    @property
    def is_away(self) -> bool:
        """Whether the service has not answered since its last failure."""
        return self._failures > 0

    def answered(self) -> None:
        """The service is there: the next failure is a first one."""
        self._failures = 0

    async def wait(self, error: Exception) -> None:
        """Pauses after a failure.

        Raises:
            Exception: the given error, when the service is away for too long by then.
        """
        now = self._clock()
        if not self._failures:
            self._away_since = now
        self._failures += 1
        pause = self._retries.pause_of(self._failures, error)
        if now - self._away_since + pause > self._seconds:
            raise error
        await self._sleep(pause)


def _asked_by(error: BaseException | None) -> float:
    """Seconds that the server asks its caller to wait, 0 when it asks for nothing."""
    asked: float | None = getattr(error, "retry_after", None)
    return asked or 0.0


def _error_of(state: tenacity.RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome is not None else None
    if error is None:
        raise AssertionError("tenacity asks for a pause after failures only")
    return error
