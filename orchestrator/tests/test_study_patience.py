"""How long a study waits for a service, and what it says when it waits no more."""

from __future__ import annotations

import grpc
import pytest

from tuneproof.sdk import Endpoints
from tuneproof.servicekit.errors import Unavailable
from tuneproof.study.progress import Stage
from tuneproof.study.services import GivenServices
from tuneproof.study.state.store import open_state, task
from tuneproof.study.steps.work import complete


class Told(Stage):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def advance(self, count: int = 1) -> None:
        """Counts nothing."""

    def note(self, text: str) -> None:
        self.notes.append(text)


async def nothing(*_: object) -> None:
    """Takes no time."""


async def test_a_service_that_dies_again_and_again_but_works_in_between_is_not_given_up(tmp_path):
    tasks = [task("answer", {"n": n}) for n in range(12)]
    recovered = []

    async def one_then_die(waiting):
        yield waiting[0].key, {"text": "done"}
        raise Unavailable("gone")

    async def recover() -> None:
        recovered.append(1)

    stage = Told()
    with open_state(tmp_path, write=True) as state:
        await complete(
            tasks, one_then_die, state=state, stage=stage, recover=recover, pause=nothing
        )
        assert not state.missing(tasks)
    assert len(recovered) >= len(tasks) - 1
    assert any("waiting" in note for note in stage.notes)


async def test_a_service_that_only_dies_is_given_up(tmp_path):
    async def die(_):
        raise Unavailable("gone")
        yield

    with open_state(tmp_path, write=True) as state, pytest.raises(Unavailable, match="gone"):
        await complete(
            [task("answer", {"n": 1})],
            die,
            state=state,
            stage=Told(),
            recover=nothing,
            pause=nothing,
        )


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
