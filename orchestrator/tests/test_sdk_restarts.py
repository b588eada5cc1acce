"""When a stream that broke off is asked for again, and when it is not."""

from __future__ import annotations

import asyncio

import pytest

from tuneproof.sdk import Restarted
from tuneproof.sdk.restarts import restarted_on_loss
from tuneproof.servicekit.errors import (
    DeadlineExceeded,
    Internal,
    NotFound,
    Overloaded,
    TuneproofError,
    Unavailable,
)

pytestmark = pytest.mark.timeout(10)

LOST = Unavailable("the replica is lost")


class Streams:
    """Gives one scripted stream after the other."""

    def __init__(self, *scripts: list[str | TuneproofError]) -> None:
        self._scripts = list(scripts)
        self.lefts: list[float] = []
        self.pauses: list[float] = []
        self.closed = 0

    async def ask(self, left):
        self.lefts.append(left)
        try:
            for event in self._scripts[min(len(self.lefts), len(self._scripts)) - 1]:
                if isinstance(event, TuneproofError):
                    raise event
                yield event
        finally:
            self.closed += 1

    async def sleep(self, seconds):
        self.pauses.append(seconds)

    def events(self, timeout=60.0):
        return restarted_on_loss(self.ask, timeout=timeout, sleep=self.sleep)


async def collect(streams, **more):
    found = []
    try:
        async for event in streams.events(**more):
            found.append(event)  # noqa: PERF401 - some come before an error
    except TuneproofError as error:
        return found, error
    return found, None


async def test_a_lost_stream_begins_again():
    streams = Streams(["a", "b", LOST], ["a", "b", "c"])
    events, error = await collect(streams)
    assert events == ["a", "b", Restarted("the replica is lost", 2), "a", "b", "c"]
    assert error is None


@pytest.mark.parametrize(
    "error", [DeadlineExceeded("late"), NotFound("gone"), Internal("defect"), Overloaded("full")]
)
async def test_other_failures_are_the_callers(error):
    streams = Streams(["a", error], ["a", "b"])
    assert await collect(streams) == (["a"], error)
    assert streams.pauses == []


async def test_a_stream_that_never_began_was_retried_already():
    streams = Streams([LOST], ["a"])
    assert await collect(streams) == ([], LOST)


async def test_attempts_are_bounded_and_pauses_grow_with_jitter():
    streams = Streams(["a", LOST], [LOST], [LOST], [LOST])
    events, error = await collect(streams)
    assert [event.attempt for event in events[1:]] == [2, 3, 4]
    assert error is LOST
    assert len(streams.lefts) == 4
    for pause, longest in zip(streams.pauses, (0.1, 0.4, 1.6), strict=True):
        assert longest / 2 <= pause <= longest
    other = Streams(["a", LOST], [LOST], [LOST], [LOST])
    await collect(other)
    assert other.pauses != streams.pauses


async def test_the_pause_is_at_least_what_the_server_asks_for():
    streams = Streams(["a", Unavailable("loading", retry_after=7.0)], ["b"])
    await collect(streams)
    assert streams.pauses[0] > 7.0


async def test_all_attempts_share_the_time():
    streams = Streams(["a", LOST], ["b"])
    await collect(streams, timeout=50.0)
    assert streams.lefts[0] > streams.lefts[1] > 0
    no_time = Streams(["a", Unavailable("loading", retry_after=7.0)], ["b"])
    _, error = await collect(no_time, timeout=5.0)
    assert isinstance(error, Unavailable)
    assert no_time.pauses == []


async def test_leaving_ends_the_stream_under_way():
    streams = Streams(["a", "b"])
    events = streams.events()
    assert await anext(events) == "a"
    await events.aclose()
    assert streams.closed == 1


async def test_a_cancelled_caller_is_cancelled():
    asked = 0

    async def endless(left):
        nonlocal asked
        asked += 1
        yield "a"
        await asyncio.Event().wait()

    async def read():
        async for _ in restarted_on_loss(endless, timeout=60):
            begun.set()

    begun = asyncio.Event()
    task = asyncio.create_task(read())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asked == 1
