"""When something is tried again, after which pauses, and when not."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneproof.servicekit.errors import InvalidInput, NotFound, Overloaded, Unavailable
from tuneproof.servicekit.retries import Patience, Retries

AWAY = Unavailable("away")
POLICY = Retries(first=0.5, longest=20.0, attempts=5)


class Pauses:
    """Stands in for asyncio.sleep: remembers, and waits for nothing."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


class Action:
    """Fails as scripted, then gives `done`."""

    def __init__(self, *failures: Exception) -> None:
        self._failures = list(failures)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self._failures:
            raise self._failures.pop(0)
        return "done"


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


async def test_what_may_pass_is_tried_again(pauses):
    action = Action(AWAY, Overloaded("full"))
    assert await POLICY.call(action, sleep=pauses) == "done"
    assert action.calls == 3
    assert len(pauses.seconds) == 2


@pytest.mark.parametrize("error", [InvalidInput("wrong"), NotFound("gone"), ValueError("odd")])
async def test_what_stays_wrong_is_the_callers_at_once(pauses, error):
    action = Action(error)
    with pytest.raises(type(error)):
        await POLICY.call(action, sleep=pauses)
    assert (action.calls, pauses.seconds) == (1, [])


async def test_an_action_may_be_a_lambda(pauses):
    """tenacity by itself does not await what a lambda gives."""
    action = Action(AWAY)
    assert await POLICY.call(lambda: action(), sleep=pauses) == "done"  # noqa: PLW0108
    assert action.calls == 2


async def test_the_last_attempts_error_is_raised(pauses):
    errors = [Unavailable(f"away {number}") for number in range(9)]
    action = Action(*errors)
    with pytest.raises(Unavailable, match="away 4"):
        await POLICY.call(action, sleep=pauses)
    assert action.calls == 5


async def test_no_pause_is_shorter_than_what_the_server_asks_for(pauses):
    await POLICY.call(Action(Unavailable("loading", retry_after=7.0)), sleep=pauses)
    assert 7.0 <= pauses.seconds[0] <= 7.5


async def test_a_server_that_asks_for_too_long_is_not_asked_again(pauses):
    action = Action(Overloaded("full", retry_after=121.0))
    with pytest.raises(Overloaded):
        await Retries(first=1, longest=1, longest_asked=120.0).call(action, sleep=pauses)
    assert (action.calls, pauses.seconds) == (1, [])


async def test_no_attempt_begins_after_the_deadline(pauses):
    action = Action(Unavailable("loading", retry_after=7.0))
    with pytest.raises(Unavailable):
        await POLICY.call(action, timeout=5.0, sleep=pauses)
    assert (action.calls, pauses.seconds) == (1, [])
    assert await POLICY.call(Action(AWAY), timeout=5.0, sleep=pauses) == "done"


async def test_something_may_be_brought_back_before_each_further_attempt(pauses):
    order: list[str] = []

    async def recover() -> None:
        order.append("recover")

    async def action() -> None:
        order.append("try")
        if len(order) < 4:
            raise AWAY

    await POLICY.call(action, sleep=pauses, before_again=recover)
    assert order == ["try", "recover", "try", "recover", "try"]


async def test_a_cancelled_caller_is_cancelled():
    action = Action(AWAY)
    task = asyncio.create_task(Retries(first=60, longest=60, jitter=0).call(action))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert action.calls == 1


@given(
    st.integers(1, 10**6),
    st.floats(0.001, 10),
    st.floats(0.001, 600),
    st.floats(0, 1),
    st.integers(0, 9),
)
def test_pauses_lie_within_their_bounds(failures, first, longest, jitter, seed):
    draw = random.Random(seed).uniform
    policy = Retries(first=first, longest=longest, jitter=jitter, draw=draw)
    bound = min(longest, first * 2.0 ** min(failures - 1, 64))
    assert bound * (1 - jitter) <= policy.pause_of(failures) <= bound


async def test_patience_ends_after_its_seconds_and_begins_anew_after_an_answer(pauses):
    patience = Patience(Retries(first=2, longest=8, jitter=0), 5.0, sleep=pauses)
    await patience.wait(AWAY)
    await patience.wait(AWAY)
    assert patience.is_away
    patience.answered()
    assert not patience.is_away
    await patience.wait(AWAY)
    await patience.wait(AWAY)
    with pytest.raises(Unavailable):
        await patience.wait(AWAY)
    assert pauses.seconds == [2, 4, 2, 4]


async def test_without_patience_the_first_failure_is_raised(pauses):
    with pytest.raises(Unavailable):
        await Patience(POLICY, 0.0, sleep=pauses).wait(AWAY)
    assert pauses.seconds == []
