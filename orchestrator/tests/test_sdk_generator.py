"""Answers by the generator's client, against a small generator in this process."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc as stubs
from tuneproof.sdk import Generation, GeneratorClient, Sampling
from tuneproof.servicekit.errors import (
    InvalidInput,
    Unavailable,
)
from tuneproof.servicekit.server import Service
from tuneproof.servicekit.testing import serving

pytestmark = pytest.mark.timeout(20)

REF = "short@sha256:" + "a" * 64


class _Generator(stubs.GeneratorServiceServicer):
    def __init__(self) -> None:
        self.requests: list[pb.GenerateRequest] = []
        self.stopped = asyncio.Event()
        self.final = True
        self.refusals = 0

    async def GetPool(self, request, context):
        pool = pb.Pool(base_model="toy", dtype="float32", max_model_len=1024, replica="r1")
        pool.start_time.FromDatetime(datetime(2026, 1, 2, tzinfo=UTC))
        pool.live_replicas.extend(["r1", "r2"])
        return pb.GetPoolResponse(pool=pool)

    async def Generate(self, request, context):
        self.requests.append(request)
        if self.refusals:
            self.refusals -= 1
            raise Unavailable("loading", retry_after=0.01)
        try:
            for piece in ("46", " dBm"):
                yield pb.GenerateResponse(delta=pb.Delta(text=piece))
            if request.chat.messages[-1].content == "endless":
                await asyncio.Event().wait()
        finally:
            self.stopped.set()
        final = pb.Final(
            finish_reason=pb.FINISH_REASON_STOP,
            usage=pb.Usage(prompt_tokens=9, completion_tokens=3, cached_tokens=4),
            served_by=pb.ServedBy(base_model="toy", adapter_ref=request.model, replica="r1"),
        )
        for stage, milliseconds in (("queue", 100), ("first_token", 20), ("decode", 5)):
            final.stage_times.add(stage=stage).duration.FromMilliseconds(milliseconds)
        yield pb.GenerateResponse(delta=pb.Delta(text="."), final=final if self.final else None)


@pytest.fixture
def fake() -> _Generator:
    return _Generator()


@pytest.fixture
async def client(fake):
    async def ready() -> None: ...

    def register(server):
        stubs.add_GeneratorServiceServicer_to_server(fake, server)

    service = Service(register, [pb.DESCRIPTOR.services_by_name["GeneratorService"]], ready)
    async with serving(service) as target, GeneratorClient(target) as found:
        yield found


async def test_the_pool_is_told(client):
    pool = await client.pool()
    assert (pool.base_model, pool.dtype, pool.max_model_len) == ("toy", "float32", 1024)
    assert pool.start_time == datetime(2026, 1, 2, tzinfo=UTC)
    assert pool.live_replicas == ("r1", "r2")


async def test_an_answer_comes_in_pieces_and_then_whole(client, fake):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What?"}]
    sampling = Sampling(max_tokens=8, temperature=0.5, top_p=0.9, seed=0, stop=("\n",))
    events = [event async for event in client.generate(REF, chat, sampling)]
    assert events[:-1] == ["46", " dBm", "."]
    answer = events[-1]
    assert isinstance(answer, Generation)
    assert (answer.text, answer.finish_reason, answer.served_by) == ("46 dBm.", "stop", REF)
    assert (answer.prompt_tokens, answer.completion_tokens, answer.cached_tokens) == (9, 3, 4)
    assert answer.stage_seconds == {"queue": 0.1, "first_token": 0.02, "decode": 0.005}
    assert answer.seconds == pytest.approx(0.125)
    [request] = fake.requests
    assert [(m.role, m.content) for m in request.chat.messages] == [
        (pb.ROLE_SYSTEM, "Be brief."),
        (pb.ROLE_USER, "What?"),
    ]
    assert request.sampling.HasField("seed")
    assert (request.sampling.max_tokens, request.sampling.temperature) == (8, 0.5)
    assert (request.sampling.top_p, list(request.sampling.stop)) == (0.9, ["\n"])


async def test_the_default_is_greedy_and_the_base_model(client, fake):
    events = [event async for event in client.generate("", [{"role": "user", "content": "x"}])]
    assert events[-1].served_by == "toy"
    [request] = fake.requests
    assert request.sampling.temperature == 0
    assert not request.sampling.HasField("seed")
    assert not request.sampling.HasField("top_p")


@pytest.mark.parametrize("restart_on_loss", [False, True])
async def test_an_answer_that_did_not_begin_is_asked_for_again_unseen(
    client, fake, restart_on_loss
):
    fake.refusals = 1
    chat = [{"role": "user", "content": "x"}]
    events = [event async for event in client.generate("", chat, restart_on_loss=restart_on_loss)]
    assert events[:-1] == ["46", " dBm", "."]
    assert len(fake.requests) == 2


@pytest.mark.parametrize(
    ("sampling", "restart_on_loss", "seeded"),
    [
        (Sampling(temperature=0.5), True, True),
        (Sampling(temperature=0.5), False, False),
        (Sampling(), True, False),
    ],
)
async def test_a_seed_is_chosen_where_a_restart_needs_one(
    client, fake, *, sampling, restart_on_loss, seeded
):
    chat = [{"role": "user", "content": "x"}]
    for _ in range(2):
        async for _ in client.generate("", chat, sampling, restart_on_loss=restart_on_loss):
            pass
    assert [one.sampling.HasField("seed") for one in fake.requests] == [seeded] * 2
    first, second = (one.sampling.seed for one in fake.requests)
    assert (first != second) is seeded


async def test_closing_the_answer_stops_the_work(client, fake):
    answer = client.generate("", [{"role": "user", "content": "endless"}])
    assert [await anext(answer) for _ in range(2)] == ["46", " dBm"]
    assert not fake.stopped.is_set()
    await answer.aclose()
    async with asyncio.timeout(5):
        await fake.stopped.wait()


async def test_an_answer_without_its_end_is_an_error(client, fake):
    fake.final = False
    with pytest.raises(Exception, match="without its usage"):
        [event async for event in client.generate("", [{"role": "user", "content": "x"}])]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"role": "robot", "content": "x"}, "'robot'"),
        ({"role": "user"}, "message 1 lacks its content"),
    ],
)
async def test_a_wrong_message_is_named(client, message, said):
    with pytest.raises(InvalidInput, match=said):
        await anext(client.generate("", [message]))
