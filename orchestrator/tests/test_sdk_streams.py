"""Many requests over one stream, against a generator whose answers the test scripts."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.generator.v1 import generator_pb2_grpc as stubs
from tuneproof.sdk import GenerateInput, Generation, GeneratorClient
from tuneproof.servicekit.auth import Tokens
from tuneproof.servicekit.calls import CallInterceptor
from tuneproof.servicekit.errors import (
    Internal,
    InvalidInput,
    NotFound,
    TuneproofError,
    Unauthenticated,
    Unavailable,
)
from tuneproof.servicekit.server import Service, make_server
from tuneproof.servicekit.status import status_of
from tuneproof.servicekit.testing import serving

pytestmark = [pytest.mark.long, pytest.mark.timeout(20)]

Script = Callable[[AsyncIterator[pb.GenerateBatchRequest], Any], Any]


class _Scripted(stubs.GeneratorServiceServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    async def GenerateBatch(self, request_iterator, context):
        async for reply in self._script(request_iterator, context):
            yield reply


def _service(script: Script) -> Service:
    async def ready() -> None: ...

    return Service(
        register=lambda server: stubs.add_GeneratorServiceServicer_to_server(
            _Scripted(script), server
        ),
        descriptors=[pb.DESCRIPTOR.services_by_name["GeneratorService"]],
        check_ready=ready,
    )


def _ask(text: str) -> GenerateInput:
    return GenerateInput([{"role": "user", "content": text}])


def _echo(request: pb.GenerateBatchRequest) -> pb.GenerateBatchResponse:
    text = request.generate.chat.messages[0].content.upper()
    return pb.GenerateBatchResponse(id=request.id, result=pb.Generation(text=text))


async def _collect(outcomes: AsyncIterator[Any], into: dict[str, Any]) -> dict[str, Any]:
    async for name, outcome in outcomes:
        assert name not in into
        into[name] = outcome
    return into


async def _run(script: Script, inputs: Any, **limits: Any) -> dict[str, Any]:
    async with serving(_service(script)) as target, GeneratorClient(target) as client:
        return await _collect(client.generate_many(inputs, **limits), {})


async def _answer_all(requests, context):
    async for request in requests:
        yield _echo(request)


async def test_every_request_is_answered_under_its_id_in_whatever_order():
    async def backwards(requests, context):
        for request in reversed([request async for request in requests]):
            yield _echo(request)

    inputs = {f"id-{n}": _ask(f"text {n}") for n in range(50)}
    found = await _run(backwards, inputs)
    assert {name: answer.text for name, answer in found.items()} == {
        f"id-{n}": f"TEXT {n}" for n in range(50)
    }


async def test_one_refused_item_leaves_the_others():
    async def refuse_one(requests, context):
        async for request in requests:
            if request.id == "b":
                error = status_of(NotFound("no adapter x@1 here"))
                yield pb.GenerateBatchResponse(id="b", error=error)
            else:
                yield _echo(request)

    found = await _run(refuse_one, {name: _ask(name) for name in "abc"})
    assert isinstance(found["b"], NotFound)
    assert found["b"].message == "no adapter x@1 here"
    assert (found["a"].text, found["c"].text) == ("A", "C")


async def test_an_item_that_cannot_be_sent_is_refused_here():
    wrong = GenerateInput([{"role": "narrator", "content": "x"}])
    found = await _run(_answer_all, {"good": _ask("x"), "bad": wrong, "last": _ask("y")})
    assert isinstance(found["bad"], InvalidInput)
    assert "narrator" in found["bad"].message
    assert "assistant" in found["bad"].message
    assert found["last"].text == "Y"


async def test_no_more_are_sent_than_may_be_in_flight():
    held: list[pb.GenerateBatchRequest] = []
    most = 0

    async def hold(requests, context):
        nonlocal most

        async def read() -> None:
            async for request in requests:
                held.append(request)  # noqa: PERF401 - each as it comes

        reading = asyncio.create_task(read())
        while not reading.done() or held:
            await asyncio.sleep(0.02)
            most = max(most, len(held))
            while held:
                yield _echo(held.pop())

    found = await _run(hold, {str(n): _ask("x") for n in range(20)}, in_flight=3)
    assert most == 3
    assert len(found) == 20


async def test_requests_may_come_from_an_asynchronous_source():
    async def source() -> AsyncIterator[tuple[str, GenerateInput]]:
        for n in range(10):
            await asyncio.sleep(0)
            yield str(n), _ask(str(n))

    assert len(await _run(_answer_all, source())) == 10


async def test_nothing_is_asked_for_nothing():
    def never(requests, context):
        raise AssertionError("called")

    assert await _run(never, {}) == {}


async def test_a_repeated_id_is_an_error_after_the_answers():
    async def source() -> AsyncIterator[tuple[str, GenerateInput]]:
        for name in ("a", "b", "a"):
            yield name, _ask(name)

    found: dict[str, Any] = {}
    async with serving(_service(_answer_all)) as target, GeneratorClient(target) as client:
        with pytest.raises(InvalidInput, match="id 'a'"):
            await _collect(client.generate_many(source()), found)
    assert set(found) == {"a", "b"}


async def test_an_error_of_the_source_reaches_the_caller():
    async def source() -> AsyncIterator[tuple[str, GenerateInput]]:
        yield "a", _ask("a")
        raise ZeroDivisionError

    found: dict[str, Any] = {}
    async with serving(_service(_answer_all)) as target, GeneratorClient(target) as client:
        with pytest.raises(ZeroDivisionError):
            await _collect(client.generate_many(source()), found)
    assert found["a"].text == "A"


@pytest.mark.parametrize("ending", ["ends the stream", "fails", "cancels", "dies"])
async def test_a_stream_that_fails_raises_after_what_came(ending: str):
    kill = asyncio.Event()
    found: dict[str, Any] = {}

    async def script(requests, context):
        asked = [request async for request in requests]
        for request in asked[:2]:
            yield _echo(request)
        if ending == "fails":
            raise Unavailable("the engine died")
        if ending == "cancels":
            await context.abort(grpc.StatusCode.CANCELLED, "stopping")
        if ending == "dies":
            while len(found) < 2:  # A reply that is not sent yet dies with its server.
                await asyncio.sleep(0.01)
            kill.set()
            await asyncio.Event().wait()

    inputs = {str(n): _ask("x") for n in range(5)}
    async with _killable(script, kill) as target, GeneratorClient(target) as client:
        with pytest.raises(Unavailable) as caught:
            await _collect(client.generate_many(inputs), found)
    assert len(found) == 2
    assert all(isinstance(outcome, Generation) for outcome in found.values())
    if ending == "ends the stream":
        assert "3 requests not answered" in caught.value.message
    if ending == "fails":
        assert caught.value.message == "the engine died"


async def test_services_that_die_leave_no_task_behind():
    told: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context["message"]))
    inputs = {str(n): _ask("x") for n in range(50)}
    for _ in range(15):  # It depends on when the end is noticed.
        kill = asyncio.Event()

        async def script(requests, context, kill=kill):
            for _ in range(2):
                yield _echo(await anext(requests))
            kill.set()
            await asyncio.Event().wait()

        async with _killable(script, kill) as target, GeneratorClient(target) as client:
            with pytest.raises(Unavailable):
                await _collect(client.generate_many(inputs, in_flight=4), {})
        gc.collect()
        await asyncio.sleep(0.01)
    assert told == []


@asynccontextmanager
async def _killable(script: Script, kill: asyncio.Event) -> AsyncIterator[str]:
    """A server that ends at once, calls under way included, when `kill` is set."""
    service = _service(script)
    server = make_server(service, CallInterceptor(service.descriptors, None), 2**20)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    async def end() -> None:
        await kill.wait()
        await server.stop(None)

    ending = asyncio.create_task(end())
    try:
        yield f"127.0.0.1:{port}"
    finally:
        kill.set()
        await ending


async def test_a_service_that_says_nothing_counts_as_dead():
    async def silent(requests, context):
        yield _echo(await anext(requests))
        await asyncio.Event().wait()

    found: dict[str, Any] = {}
    async with serving(_service(silent)) as target, GeneratorClient(target) as client:
        with pytest.raises(Unavailable, match="answered none of 2 requests"):
            await _collect(
                client.generate_many({n: _ask(n) for n in "abc"}, stall=0.15),
                found,
            )
    assert len(found) == 1


async def test_a_slow_source_is_no_dead_service():
    async def source() -> AsyncIterator[tuple[str, GenerateInput]]:
        yield "a", _ask("a")
        await asyncio.sleep(0.15)
        yield "b", _ask("b")

    assert len(await _run(_answer_all, source(), stall=0.05)) == 2


@pytest.mark.parametrize("repeats", [False, True])
async def test_an_answer_to_no_question_is_a_defect(repeats: bool):
    async def wrong(requests, context):
        request = await anext(requests)
        yield _echo(request)
        yield pb.GenerateBatchResponse(id=request.id if repeats else "other")

    with pytest.raises(Internal, match="not sent or has its answer already"):
        await _run(wrong, {"a": _ask("a")})


async def test_an_empty_answer_is_an_error_of_its_item():
    async def empty(requests, context):
        async for request in requests:
            yield pb.GenerateBatchResponse(id=request.id)

    assert isinstance((await _run(empty, {"a": _ask("a")}))["a"], Internal)


async def test_leaving_the_answers_stops_the_work():
    stopped = asyncio.Event()

    async def endless(requests, context):
        try:
            yield _echo(await anext(requests))
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with serving(_service(endless)) as target, GeneratorClient(target) as client:
        outcomes = client.generate_many({n: _ask(n) for n in "ab"})
        await anext(outcomes)
        await outcomes.aclose()
        async with asyncio.timeout(5):
            await stopped.wait()


async def test_a_cancelled_caller_is_cancelled():
    async def silent(requests, context):
        await asyncio.Event().wait()
        yield

    async with serving(_service(silent)) as target, GeneratorClient(target) as client:
        task = asyncio.create_task(_collect(client.generate_many({"a": _ask("a")}), {}))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_the_token_goes_with_the_stream():
    tokens = Tokens(((b"a-token-of-some-length", "use"),))
    async with serving(_service(_answer_all), tokens=tokens) as target:
        async with GeneratorClient(target, token="a-token-of-some-length") as client:
            assert len(await _collect(client.generate_many({"a": _ask("a")}), {})) == 1
        async with GeneratorClient(target) as client:
            with pytest.raises(Unauthenticated):
                await client.pool()


async def test_in_flight_must_be_positive():
    async with GeneratorClient("127.0.0.1:1") as client:
        with pytest.raises(InvalidInput, match="in_flight is 0"):
            client.generate_many({"a": _ask("a")}, in_flight=0)


async def test_a_service_that_is_not_there_is_named():
    async with GeneratorClient("127.0.0.1:1") as client:
        with pytest.raises(TuneproofError) as caught:
            await _collect(client.generate_many({"a": _ask("a")}), {})
    assert isinstance(caught.value, Unavailable)
    assert "the generator at 127.0.0.1:1 cannot be reached" in caught.value.message
    assert "tuneproof up" in caught.value.message
