"""Who calls, and on which connection."""

from pathlib import Path

import pytest

from tuneproof.retriever.v1 import retriever_pb2, retriever_pb2_grpc
from tuneproof.servicekit.auth import Tokens, caller_of
from tuneproof.servicekit.client import connect
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.server import ConnectionAge, Service
from tuneproof.servicekit.testing import serving

pytestmark = pytest.mark.timeout(20)

_DESCRIPTORS = [retriever_pb2.DESCRIPTOR.services_by_name["RetrieverService"]]


class Retriever(retriever_pb2_grpc.RetrieverServiceServicer):
    """Remembers who deletes, and from where."""

    def __init__(self) -> None:
        self.callers: list[str] = []
        self.peers: set[str] = set()

    async def DeleteCorpus(self, request, context):
        self.callers.append(caller_of(context))
        self.peers.add(context.peer())
        return retriever_pb2.DeleteCorpusResponse()

    async def SearchBatch(self, request_iterator, context):
        async for request in request_iterator:
            yield retriever_pb2.SearchBatchResponse(id=request.id)


def _service(servicer: Retriever) -> Service:
    async def ready() -> None:
        return None

    def register(server) -> None:
        retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(servicer, server)

    return Service(register=register, descriptors=_DESCRIPTORS, check_ready=ready)


@pytest.mark.parametrize(
    ("line", "token", "caller"),
    [
        ("manage {} ops@example.org", "o" * 20, "ops@example.org"),
        ("manage {}", "o" * 20, "127.0.0.1"),
        ("manage {} ops # not any more", "o" * 20, "ops"),
        ("", None, "127.0.0.1"),
    ],
)
async def test_a_call_is_by_the_tokens_holder_or_from_an_address(
    tmp_path: Path, line: str, token: str | None, caller: str
) -> None:
    tokens = None
    if line:
        (tmp_path / "tokens").write_text(f"use {'u' * 20} reader\n{line.format(token)}\n")
        tokens = Tokens.read(tmp_path / "tokens")
    servicer = Retriever()
    async with (
        serving(_service(servicer), tokens=tokens) as target,
        connect(target, services=_DESCRIPTORS, token=token) as channel,
    ):
        stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
        await stub.DeleteCorpus(retriever_pb2.DeleteCorpusRequest(), timeout=5)
    assert servicer.callers == [caller]


@pytest.mark.parametrize(
    "line", ["manage {0} two names", "manage {0} ../etc", "manage {0} " + "n" * 65]
)
def test_a_bad_name_is_refused_by_line_and_without_the_token(tmp_path: Path, line: str) -> None:
    token = "secret-enough-for-a-token"
    (tmp_path / "tokens").write_text(f"# who\n{line.format(token)}\n")
    with pytest.raises(InvalidInput, match=r"tokens, line 2: .*name") as caught:
        Tokens.read(tmp_path / "tokens")
    assert token not in caught.value.message


async def test_an_old_connection_is_left_for_a_new_one_and_nothing_is_lost() -> None:
    servicer = Retriever()
    async with (
        serving(_service(servicer), age=ConnectionAge(0.05)) as target,
        connect(target, services=_DESCRIPTORS) as channel,
    ):
        stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
        stream = stub.SearchBatch(timeout=20)
        await stream.write(retriever_pb2.SearchBatchRequest(id="before"))
        assert (await stream.read()).id == "before"
        while len(servicer.peers) < 3:
            await stub.DeleteCorpus(retriever_pb2.DeleteCorpusRequest(), timeout=5)
        # A stream stays on its connection, as long as no grace is set.
        await stream.write(retriever_pb2.SearchBatchRequest(id="after"))
        assert (await stream.read()).id == "after"
        await stream.done_writing()


def test_without_an_age_a_connection_stays() -> None:
    assert ConnectionAge(0, 5).options() == []
    assert dict(ConnectionAge(300, 60).options()) == {
        "grpc.max_connection_age_ms": 300_000,
        "grpc.max_connection_age_grace_ms": 60_000,
    }
