"""Adapters that share the engine's slots; with a clock that the test moves."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneproof.servicekit.errors import Unavailable
from tuneproof_generator.engine.slots import SlotScheduler

_SLOT_SECONDS = 1.0


class Door:
    """Requests that are let in or wait, by their id."""

    def __init__(self, slots: int, seconds: float = _SLOT_SECONDS) -> None:
        self.time = 0.0
        self.scheduler = SlotScheduler(slots, seconds, clock=lambda: self.time)
        self.adapter: dict[str, int] = {}
        self.inside: set[str] = set()
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.at_end: dict[str, Callable[[], object]] = {}
        """Called in the very step in which a request ends."""
        self._ends: dict[str, asyncio.Event] = {}

    async def ask(self, request: str, adapter: int) -> None:
        self.adapter[request], self._ends[request] = adapter, asyncio.Event()
        self.tasks[request] = asyncio.create_task(self._hold(request))
        await self.settle()

    async def end(self, *requests: str) -> None:
        for request in requests:
            self._ends[request].set()
        await self.settle()

    async def cancel(self, request: str) -> None:
        self.tasks[request].cancel()
        await self.settle()

    @property
    def adapters(self) -> set[int]:
        return {self.adapter[request] for request in self.inside}

    @staticmethod
    async def settle() -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def close(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)

    async def _hold(self, request: str) -> None:
        async with self.scheduler.admit(self.adapter[request], request):
            self.inside.add(request)
            try:
                await self._ends[request].wait()
            finally:
                self.inside.discard(request)
        self.at_end.get(request, lambda: None)()


@pytest.fixture
async def doors():
    async with AsyncExitStack() as held:

        def open_door(slots: int, seconds: float = _SLOT_SECONDS) -> Door:
            door = Door(slots, seconds)
            held.push_async_callback(door.close)
            return door

        yield open_door


async def test_nobody_waits_while_the_slots_suffice(doors) -> None:
    door = doors(2)
    for request, adapter in [("a1", 1), ("b1", 2), ("a2", 1), ("b2", 2)]:
        await door.ask(request, adapter)
        door.time += 10 * _SLOT_SECONDS
    assert door.inside == {"a1", "a2", "b1", "b2"}


async def test_an_adapter_without_a_slot_waits_for_one_and_enters_whole(doors) -> None:
    door = doors(2)
    for request, adapter in [("a1", 1), ("b1", 2), ("c1", 3), ("c2", 3)]:
        await door.ask(request, adapter)
    assert door.inside == {"a1", "b1"}
    assert door.scheduler.waiting == 2
    await door.end("a1")
    assert door.inside == {"b1", "c1", "c2"}
    assert door.scheduler.waiting == 0


async def test_a_busy_adapter_gives_up_its_slot_after_its_time(doors) -> None:
    door = doors(1)
    await door.ask("a1", 1)
    await door.ask("b1", 2)
    door.time = _SLOT_SECONDS / 2
    await door.ask("a2", 1)  # It keeps its slot, though another waits.
    await door.end("a1")
    assert door.inside == {"a2"}
    door.time = _SLOT_SECONDS
    await door.ask("a3", 1)
    assert door.inside == {"a2"}
    await door.end("a2")
    assert door.inside == {"b1"}
    await door.end("b1")
    assert door.inside == {"a3"}


async def test_no_more_adapters_give_up_slots_than_others_wait(doors) -> None:
    door = doors(2)
    await door.ask("a1", 1)
    await door.ask("b1", 2)
    await door.ask("c1", 3)
    door.time = 2 * _SLOT_SECONDS
    await door.ask("b2", 2)
    await door.ask("a2", 1)
    assert door.inside == {"a1", "b1", "b2"}, (
        "only the one that has had its slot for longest gives it up"
    )


async def test_adapters_enter_in_the_order_in_which_they_began_to_wait(doors) -> None:
    door = doors(1)
    for request, adapter in [("a1", 1), ("c1", 3), ("b1", 2), ("c2", 3)]:
        await door.ask(request, adapter)
    await door.end("a1")
    assert door.inside == {"c1", "c2"}
    await door.end("c1", "c2")
    assert door.inside == {"b1"}


async def test_a_cancelled_request_is_let_go_at_once_and_takes_no_slot(doors) -> None:
    door = doors(1)
    for request, adapter in [("a1", 1), ("b1", 2), ("c1", 3)]:
        await door.ask(request, adapter)
    await door.cancel("b1")
    assert door.tasks["b1"].cancelled()
    await door.end("a1")
    assert door.inside == {"c1"}


async def test_cancelled_in_the_moment_of_entering_the_slot_is_free_again(doors) -> None:
    door = doors(1)
    for request, adapter in [("a1", 1), ("b1", 2), ("c1", 3)]:
        await door.ask(request, adapter)
    # b1 gets the slot, but is cancelled before it runs.
    door.at_end["a1"] = door.tasks["b1"].cancel
    await door.end("a1")
    assert door.tasks["b1"].cancelled()
    assert door.inside == {"c1"}


async def test_a_request_does_not_overtake_one_of_its_own_adapter(doors) -> None:
    door = doors(2)
    for request, adapter in [("a1", 1), ("b1", 2), ("c1", 3), ("d1", 4)]:
        await door.ask(request, adapter)
    door.time = 2 * _SLOT_SECONDS
    await door.ask("b2", 2)
    await door.cancel("c1")
    await door.ask("b3", 2)
    assert door.inside == {"a1", "b1"}
    await door.end("a1")
    assert door.inside == {"b1", "d1", "b2", "b3"}


async def test_when_the_last_that_waits_leaves_slots_are_given_on(doors) -> None:
    door = doors(1)
    await door.ask("a1", 1)
    await door.ask("b1", 2)
    door.time = 2 * _SLOT_SECONDS
    await door.ask("a2", 1)
    assert door.inside == {"a1"}
    await door.cancel("b1")
    assert door.inside == {"a1", "a2"}


async def test_an_aborted_request_ends_with_the_reason(doors) -> None:
    door = doors(1)
    await door.ask("a1", 1)
    await door.ask("b1", 2)
    assert door.scheduler.abort("b1")
    assert not door.scheduler.abort("a1"), "it is the engine's"
    with pytest.raises(Unavailable, match="removed while the request waited for a slot"):
        await door.tasks["b1"]
    await door.end("a1")
    assert door.scheduler.waiting == 0


async def test_two_waiting_requests_may_have_one_id(doors) -> None:
    door = doors(1)
    await door.ask("a1", 1)
    waiting = [asyncio.create_task(_held(door, "same")) for _ in range(2)]
    await door.settle()
    await door.end("a1")
    assert await asyncio.gather(*waiting) == ["same", "same"]


async def _held(door: Door, request: str) -> str:
    async with door.scheduler.admit(2, request):
        return request


class Client:
    """vLLM's client: two tokens for each request, the second when it is told."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.aborted: list[str] = []
        self.more = asyncio.Event()

    async def generate(self, prompt, sampling, request_id, *, lora_request=None):
        self.begun.append(request_id)
        yield 1
        await self.more.wait()
        yield 2

    async def abort(self, request_id):
        self.aborted.append(request_id)


async def test_both_doors_client_waits_before_the_engine_and_aborts_there() -> None:
    from vllm.exceptions import RetryableRequestError

    from tuneproof_generator.engine.scheduled_client import ScheduledClient

    engine = Client()
    client = ScheduledClient(engine, SlotScheduler(1, _SLOT_SECONDS))

    async def ask(request: str, adapter: int | None) -> list[int]:
        lora = SimpleNamespace(lora_int_id=adapter) if adapter else None
        return [token async for token in client.generate("", None, request, lora_request=lora)]

    asked = {
        name: asyncio.create_task(ask(name, adapter))
        for name, adapter in [("a", 1), ("b", 2), ("base", None)]
    }
    await Door.settle()
    assert engine.begun == ["a", "base"]
    await client.abort("b")
    await client.abort("a")
    assert engine.aborted == ["a"], "the engine never had the other"
    with pytest.raises(RetryableRequestError, match="waited for a slot"):
        await asked["b"]
    engine.more.set()
    assert await asked["a"] == await asked["base"] == [1, 2]
    assert await ask("c", 3) == [1, 2], "the slot is free again"


_STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "end", "cancel", "abort", "wait"]), st.integers(0, 5)),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps=_STEPS, slots=st.integers(1, 3))
async def test_never_more_adapters_than_slots_and_everybody_gets_a_slot(steps, slots) -> None:
    door = Door(slots)
    try:
        for number, (step, choice) in enumerate(steps):
            waiting = [r for r, task in door.tasks.items() if not task.done()]
            waiting = [r for r in waiting if r not in door.inside]
            inside = sorted(door.inside)
            if step == "ask":
                await door.ask(f"r{number}", choice)
            elif step == "end" and inside:
                await door.end(inside[choice % len(inside)])
            elif step == "cancel" and waiting:
                await door.cancel(waiting[choice % len(waiting)])
            elif step == "abort" and waiting:
                assert door.scheduler.abort(waiting[choice % len(waiting)])
                await door.settle()
            elif step == "wait":
                door.time += _SLOT_SECONDS
            assert len(door.adapters) <= slots
            assert not door.scheduler.waiting or len(door.adapters) == slots
        for _ in range(len(steps) + 1):
            await door.end(*door.inside)
        assert not door.inside
        assert door.scheduler.waiting == 0
    finally:
        await door.close()
