"""Sending requests: at fixed times (an open loop), or as fast as the server answers (closed)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

from tuneproof.loadtest.doors import Door
from tuneproof.loadtest.records import Ask, Reply
from tuneproof.servicekit.errors import TuneproofError

clock: Callable[[], float] = time.monotonic
"""The one clock of a load test."""


async def send(door: Door, ask: Ask, due: float, *, timeout: float) -> Reply:
    """Sends one request; a failure is a reply too.

    Args:
        due: its time on the clock.
        timeout: most seconds for it.
    """
    sent = clock()
    first: list[float] = []
    answer, error = None, ""
    try:
        answer = await door.ask(ask, timeout=timeout, first=lambda: first.append(clock()))
        if not first or not answer.text:
            error = "the answer is empty"
    except TuneproofError as failure:
        error = failure.message
    return Reply(
        model=ask.model,
        prompt=ask.prompt,
        due=due,
        sent=sent,
        first=first[0] if first else None,
        done=clock(),
        answer=answer,
        error=error,
    )


async def drive_open(
    door: Door, asks: Iterator[Ask], *, seconds: float, timeout: float
) -> tuple[Reply, ...]:
    """Sends each request at its time, without waiting for answers (an open loop)."""
    start = clock()
    under_way: list[asyncio.Task[Reply]] = []
    async with asyncio.TaskGroup() as group:
        for ask in asks:
            if ask.due >= seconds:
                break
            due = start + ask.due
            await asyncio.sleep(max(0.0, due - clock()))
            under_way.append(group.create_task(send(door, ask, due, timeout=timeout)))
    return tuple(task.result() for task in under_way)


async def drive_full(
    door: Door, asks: Iterator[Ask], *, seconds: float, in_flight: int, timeout: float
) -> tuple[Reply, ...]:
    """Keeps `in_flight` requests under way (a closed loop): measures the most the server can do."""
    end = clock() + seconds
    replies: list[Reply] = []

    async def work() -> None:
        while (now := clock()) < end:
            replies.append(await send(door, next(asks), now, timeout=timeout))

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(work())
    return tuple(replies)
