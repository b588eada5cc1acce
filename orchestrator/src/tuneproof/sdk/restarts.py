"""Asking again for a stream whose server was lost in the middle."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

from tuneproof.sdk.values import Restarted
from tuneproof.servicekit.errors import Unavailable

T = TypeVar("T")

_ATTEMPTS = 4
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 3.0


async def restarted_on_loss(
    ask: Callable[[float], AsyncGenerator[T, None]],
    *,
    timeout: float,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncGenerator[T | Restarted, None]:
    """Yields what a stream gives; where that breaks off as unavailable, asks again, from its start.

    Only a stream that had given something is asked for again: gRPC's own retries have tried one
    that never began.

    Args:
        ask: starts the stream, which may take so many seconds.
        timeout: seconds for all attempts together.
        sleep: waits so many seconds.

    Raises:
        Unavailable: when the stream never began, or the last of 4 attempts, or the last for which
            there is time, breaks off.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + timeout
    begun = False
    attempt = 1
    while True:
        try:
            async with aclosing(ask(end - clock())) as events:
                async for event in events:
                    begun = True
                    yield event
                return
        except Unavailable as failure:
            pause = _pause(attempt, failure.retry_after)
            if not begun or attempt == _ATTEMPTS or clock() + pause >= end:
                raise
            reason = failure.message
        attempt += 1
        await sleep(pause)
        yield Restarted(reason, attempt)


def _pause(attempt: int, asked: float | None) -> float:
    """Seconds before the next attempt, with jitter: a lost replica's streams end all at once."""
    longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 4 ** (attempt - 1))
    return (asked or 0.0) + random.uniform(longest / 2, longest)  # noqa: S311 - no secret
