"""Calls through a real server: authorisation, errors, streams, deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from tuneproof.judge.v1 import judge_pb2
from tuneproof.retriever.v1 import retriever_pb2, retriever_pb2_grpc
from tuneproof.servicekit import errors
from tuneproof.servicekit.auth import Tokens
from tuneproof.servicekit.batch import answer_each
from tuneproof.servicekit.calls import CallInterceptor, Limits
from tuneproof.servicekit.client import connect, service_config, typed_errors
from tuneproof.servicekit.server import Service, make_server
from tuneproof.servicekit.testing import serving
from tuneproof.trainer.v1 import trainer_pb2, trainer_pb2_grpc

pytestmark = pytest.mark.long

RETRIEVER = retriever_pb2.DESCRIPTOR.services_by_name["RetrieverService"]
TRAINER = trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"]
JUDGE = judge_pb2.DESCRIPTOR.services_by_name["JudgeService"]


class Retriever(retriever_pb2_grpc.RetrieverServiceServicer):
    """Raises what a test wants raised."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.cancels = False
        self.calls = 0
        self.searching = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.running = 0
        self.most_running = 0

    async def GetCorpus(self, request, context):
        self.calls += 1
        if self.cancels:
            await context.abort(grpc.StatusCode.CANCELLED, "stopping")
        if self.error is not None:
            raise self.error
        return retriever_pb2.GetCorpusResponse(corpus=retriever_pb2.Corpus(name=request.name))

    async def DeleteCorpus(self, request, context):
        self.calls += 1
        if self.error is not None:
            raise self.error
        return retriever_pb2.DeleteCorpusResponse()

    async def Search(self, request, context):
        self.searching.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def SearchBatch(self, request_iterator, context):
        async for response in answer_each(request_iterator, self._one, self._no, concurrency=4):
            yield response

    async def _one(self, request):
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await asyncio.sleep(0.005)
        self.running -= 1
        if request.id == "bad":
            raise errors.InvalidInput("the query is blank; ask something", field="query")
        if request.id == "defect":
            raise KeyError("secret detail")
        result = retriever_pb2.SearchResponse(corpus_digest=request.id)
        return retriever_pb2.SearchBatchResponse(id=request.id, result=result)

    def _no(self, request, status):
        return retriever_pb2.SearchBatchResponse(id=request.id, error=status)


@asynccontextmanager
async def retriever(
    tokens: Tokens | None = None, token: str | None = None, limits: Limits | None = None
) -> AsyncIterator[tuple[Retriever, retriever_pb2_grpc.RetrieverServiceAsyncStub]]:
    servicer = Retriever()

    async def ready() -> None:
        return None

    service = Service(
        register=lambda server: retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(
            servicer, server
        ),
        descriptors=[RETRIEVER],
        check_ready=ready,
    )
    async with (
        serving(service, tokens=tokens, limits=limits) as target,
        connect(target, services=[RETRIEVER], token=token) as channel,
    ):
        yield servicer, retriever_pb2_grpc.RetrieverServiceStub(channel)


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidInput("k is 0", field="k"),
        errors.NotFound("no corpus x", corpus="x"),
        errors.AlreadyExists("differs"),
        errors.WrongState("not frozen"),
        errors.Forbidden("no"),
        errors.Overloaded("full", retry_after=0.25),
        errors.DeadlineExceeded("late"),
        errors.Corrupted("bits"),
    ],
)
async def test_an_error_arrives_as_the_error_that_was_raised(error: errors.TuneproofError) -> None:
    async with retriever() as (servicer, stub):
        servicer.error = error
        with pytest.raises(type(error)) as caught, typed_errors():
            await stub.GetCorpus(retriever_pb2.GetCorpusRequest(name="x"), timeout=5)
    assert caught.value.message == error.message
    assert caught.value.reason == error.reason
    assert caught.value.metadata == error.metadata
    assert getattr(caught.value, "field", "") == getattr(error, "field", "")
    assert getattr(caught.value, "retry_after", None) == getattr(error, "retry_after", None)


async def test_a_defect_does_not_show_its_text() -> None:
    async with retriever() as (servicer, stub):
        servicer.error = RuntimeError("password=hunter2")
        with pytest.raises(errors.Internal) as caught, typed_errors():
            await stub.GetCorpus(retriever_pb2.GetCorpusRequest(), timeout=5)
    assert "hunter2" not in caught.value.message
    assert "RuntimeError" in caught.value.message


async def test_only_idempotent_calls_are_retried() -> None:
    async with retriever() as (servicer, stub):
        servicer.error = errors.Unavailable("restarting")
        for call, request, attempts in (
            (stub.GetCorpus, retriever_pb2.GetCorpusRequest(), 4),
            (stub.DeleteCorpus, retriever_pb2.DeleteCorpusRequest(), 1),
        ):
            servicer.calls = 0
            with pytest.raises(errors.Unavailable), typed_errors():
                await call(request, timeout=10)
            assert servicer.calls == attempts


async def test_what_is_away_for_long_is_not_asked_again_within_the_call() -> None:
    async with retriever() as (servicer, stub):
        servicer.error = errors.Unavailable("tried for a while, in vain", retry_after=5.0)
        with pytest.raises(errors.Unavailable) as caught, typed_errors():
            await stub.GetCorpus(retriever_pb2.GetCorpusRequest(), timeout=30)
        assert servicer.calls == 1
    assert caught.value.retry_after == 5.0


async def test_what_the_server_cancels_is_unavailable_and_no_cancelled_caller() -> None:
    async with retriever() as (servicer, stub):
        servicer.cancels = True
        with (
            pytest.raises(errors.Unavailable, match="the server ended the call GetCorpus"),
            typed_errors("GetCorpus"),
        ):
            await stub.GetCorpus(retriever_pb2.GetCorpusRequest(), timeout=5)


async def test_a_cancelled_caller_stays_cancelled() -> None:
    async with retriever() as (servicer, stub):

        async def ask() -> None:
            with typed_errors():
                await stub.Search(retriever_pb2.SearchRequest(), timeout=30)

        asking = asyncio.create_task(ask())
        await asyncio.wait_for(servicer.searching.wait(), 5)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_what_is_over_the_limit_is_refused_at_once_and_retried_later() -> None:
    async with retriever(limits=Limits(calls=1)) as (servicer, stub):
        held = stub.Search(retriever_pb2.SearchRequest(), timeout=30)
        await asyncio.wait_for(servicer.searching.wait(), 5)
        with pytest.raises(errors.Overloaded) as caught, typed_errors():
            await stub.DeleteCorpus(retriever_pb2.DeleteCorpusRequest(), timeout=5)
        assert caught.value.retry_after == 1.0
        read = asyncio.ensure_future(stub.GetCorpus(retriever_pb2.GetCorpusRequest(), timeout=20))
        await asyncio.sleep(0.1)
        held.cancel()
        await read
    assert servicer.calls == 1


async def test_a_passed_deadline_cancels_the_work() -> None:
    async with retriever() as (servicer, stub):
        with pytest.raises(errors.DeadlineExceeded), typed_errors():
            await stub.Search(retriever_pb2.SearchRequest(), timeout=0.1)
        await asyncio.wait_for(servicer.cancelled.wait(), 5)


async def test_one_bad_item_ends_nothing_else() -> None:
    ids = [*(str(n) for n in range(20)), "bad", "defect"]
    requests = [retriever_pb2.SearchBatchRequest(id=name) for name in ids]
    async with retriever() as (servicer, stub):
        replies = {reply.id: reply async for reply in stub.SearchBatch(iter(requests), timeout=10)}
    assert set(replies) == set(ids)
    assert replies["bad"].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert replies["defect"].error.code == grpc.StatusCode.INTERNAL.value[0]
    assert "secret" not in replies["defect"].error.message
    assert all(replies[str(n)].result.corpus_digest == str(n) for n in range(20))
    assert 1 < servicer.most_running <= 4


READER, OWNER = "r" * 16, "o" * 16
TOKENS = Tokens(((READER.encode(), "use"), (OWNER.encode(), "manage")))


@pytest.mark.parametrize(
    ("token", "read", "change"),
    [
        (None, errors.Unauthenticated, errors.Unauthenticated),
        ("x" * 16, errors.Unauthenticated, errors.Unauthenticated),
        (READER, None, errors.Forbidden),
        (OWNER, None, None),
    ],
)
async def test_roles(token: str | None, read: type | None, change: type | None) -> None:
    async with retriever(TOKENS, token) as (servicer, stub):
        for call, request, expected in (
            (stub.GetCorpus, retriever_pb2.GetCorpusRequest(), read),
            (stub.DeleteCorpus, retriever_pb2.DeleteCorpusRequest(), change),
        ):
            if expected is None:
                with typed_errors():
                    await call(request, timeout=5)
            else:
                with pytest.raises(expected), typed_errors():
                    await call(request, timeout=5)
        assert servicer.calls == (read is None) + (change is None)


async def test_streams_ask_for_tokens_too() -> None:
    async with retriever(TOKENS) as (_, stub):
        with pytest.raises(errors.Unauthenticated), typed_errors():
            async for _ in stub.SearchBatch(iter([]), timeout=5):
                pass


class Trainer(trainer_pb2_grpc.TrainerServiceServicer):
    """Has a run that never changes, or all the time."""

    def __init__(self, changes: bool) -> None:
        self.changes = changes
        self.ended = False

    async def WatchRun(self, request, context):
        try:
            yield trainer_pb2.WatchRunResponse(run=trainer_pb2.Run(id=request.run_id))
            while self.changes:
                yield trainer_pb2.WatchRunResponse(run=trainer_pb2.Run(id=request.run_id))
                await asyncio.sleep(0)
            await asyncio.Event().wait()
        finally:
            self.ended = True


@pytest.mark.parametrize("changes", [False, True], ids=["waiting", "sending"])
async def test_a_server_that_ends_ends_its_watch_streams(changes: bool) -> None:
    servicer = Trainer(changes)

    async def ready() -> None:
        return None

    service = Service(
        register=lambda server: trainer_pb2_grpc.add_TrainerServiceServicer_to_server(
            servicer, server
        ),
        descriptors=[TRAINER],
        check_ready=ready,
    )
    around = CallInterceptor([TRAINER], None)
    server = make_server(service, around, 2**20)
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with connect(target, services=[TRAINER]) as channel:
        stub = trainer_pb2_grpc.TrainerServiceStub(channel)
        stream = aiter(stub.WatchRun(trainer_pb2.WatchRunRequest(run_id="r"), timeout=60))
        assert (await anext(stream)).run.id == "r"
        around.end_watchers()
        async with asyncio.timeout(10):
            await server.stop(60)
        assert servicer.ended
        with pytest.raises(errors.Unavailable), typed_errors():
            async for _ in stream:
                pass


def test_the_contract_says_what_is_retried() -> None:
    config = service_config([RETRIEVER, JUDGE])
    assert '"method": "Search"' in config
    assert '"method": "GradeBatch"' in config
    assert "DeleteCorpus" not in config
