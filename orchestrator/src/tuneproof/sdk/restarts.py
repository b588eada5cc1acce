"""Asks again for a stream whose server was lost in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

from tuneproof.sdk.values import Restarted
from tuneproof.servicekit.errors import Unavailable
from tuneproof.servicekit.retries import Retries

T = TypeVar("T")

_RETRIES = Retries(first=0.1, longest=3.0, factor=4.0, jitter=0.5, attempts=4)
"""A lost replica ends all its streams at once; the jitter spreads them over the others."""


async def restarted_on_loss(
    ask: Callable[[float], AsyncGenerator[T, None]],
    *,
    timeout: float,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncGenerator[T | Restarted, None]:
    """Yields the events of a stream. When it breaks off as unavailable, asks for it again.

    Only a stream that has begun is asked for again: gRPC itself has already retried one that never
    began.

    Args:
        ask: starts the stream, given the seconds that it may take.
        timeout: seconds for all attempts together.
        sleep: waits a number of seconds.

    Raises:
        Unavailable: when the stream never began, or the last attempt (the fourth, or the last in
            the time) breaks off.
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
            pause = _RETRIES.pause_of(attempt, failure)
            if not begun or _RETRIES.gives_up(attempt, failure, pause=pause, left=end - clock()):
                raise
            reason = failure.message
        attempt += 1
        await sleep(pause)
        yield Restarted(reason, attempt)
