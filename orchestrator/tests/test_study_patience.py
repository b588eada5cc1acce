"""How long a study waits for a service, and what it says when it waits no more."""

from __future__ import annotations

from contextlib import contextmanager

import grpc
import pytest
from small_study import Quiet

from tuneproof.sdk import BATCH_PENDING, Endpoints
from tuneproof.servicekit.errors import Unavailable
from tuneproof.study.services import GivenServices
from tuneproof.study.state.store import Count, open_state, task
from tuneproof.study.steps.tally import Tally
from tuneproof.study.steps.work import Lane

pytestmark = pytest.mark.long


class Told(Quiet):
    """Keeps the notes of all its stages."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    @contextmanager
    def stage(self, name, total, done):
        yield self

    def advance(self, count=1):
        pass

    def note(self, text):
        self.notes.append(text)


async def nothing(*_: object) -> None:
    """Takes no time."""


def tally_of(total: int, told: Told) -> Tally:
    return Tally(Count("s", "answers", 0, total, 0), told)


async def test_a_service_that_dies_again_and_again_but_works_in_between_is_not_given_up(tmp_path):
    tasks = [task("answer", {"n": n}) for n in range(12)]
    recovered = []

    async def one_then_die(waiting):
        yield (await anext(waiting)).key, {"text": "done"}
        raise Unavailable("gone")

    async def recover() -> None:
        recovered.append(1)

    told = Told()
    with open_state(tmp_path, write=True) as state:
        lane, tally = Lane(one_then_die, state, recover=recover, pause=nothing), tally_of(12, told)
        for each in tasks:
            lane.add(each, tally)
        lane.close()
        await lane.run()
        assert not state.missing(tasks)
    assert len(recovered) >= len(tasks) - 1
    assert any("waiting" in note for note in told.notes)


async def test_a_service_that_only_dies_is_given_up(tmp_path):
    async def die(_):
        raise Unavailable("gone")
        yield

    with open_state(tmp_path, write=True) as state:
        lane = Lane(die, state, recover=nothing, pause=nothing)
        lane.add(task("answer", {"n": 1}), tally_of(1, Told()))
        lane.close()
        with pytest.raises(Unavailable, match="gone"):
            await lane.run()


async def test_what_a_batch_will_answer_is_left_for_a_later_run(tmp_path):
    asked = []

    async def in_a_batch(waiting):
        async for one in waiting:
            asked.append(one.key)
            yield one.key, Unavailable("waits for a batch", reason=BATCH_PENDING)

    tasks = [task("grade", {"n": n}) for n in range(5)]
    with open_state(tmp_path, write=True) as state:
        lane = Lane(in_a_batch, state, recover=nothing, pause=nothing)
        for each in tasks:
            lane.add(each, tally_of(5, Told()))
        lane.close()
        await lane.run()
        assert len(state.missing(tasks)) == len(asked) == 5


async def test_a_service_of_others_is_waited_for_and_then_told_what_to_do():
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    told = []
    endpoints = Endpoints(generator=f"127.0.0.1:{port}")
    given = GivenServices(endpoints, progress=lambda *what: told.append(what), patience=3)
    assert await given.start() == endpoints
    assert await given.start() == endpoints
    assert told == []
    await server.stop(0)
    with pytest.raises(Unavailable, match="the same command") as caught:
        await given.start()
    assert f"127.0.0.1:{port}" in caught.value.message
    assert told == [("generator", f"away; waiting up to 3 s for 127.0.0.1:{port}")]
