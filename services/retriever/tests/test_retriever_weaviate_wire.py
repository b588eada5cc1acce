"""Real retrievers on a real Weaviate server: two at once, a cut link, encryption, overload."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tuneproof.retriever.v1 import retriever_pb2 as pb
from tuneproof.retriever.v1 import retriever_pb2_grpc
from tuneproof.servicekit.client import connect, is_ready, typed_errors, wait_ready
from tuneproof.servicekit.errors import Overloaded, Unavailable
from tuneproof.servicekit.timing import Stages
from tuneproof_retriever.searching import Query, SearchMode
from tuneproof_retriever.stores.weaviate_options import Server, WeaviateOptions
from tuneproof_retriever.stores.weaviate_store import WeaviateStore, open_weaviate_store

from .cable import cable
from .house import HashHouse, documents
from .link import Link
from .weaviate_server import WeaviateServer, new_server

pytestmark = pytest.mark.slow

SERVICES = [pb.DESCRIPTOR.services_by_name["RetrieverService"]]
SEARCH_SECONDS = 2
Stub = retriever_pb2_grpc.RetrieverServiceStub


@dataclass(frozen=True)
class Replica:
    """A retriever in a process of its own."""

    stub: Stub
    health: str

    async def find(self, query: str, *, seconds: float = 20) -> list[str]:
        request = pb.SearchRequest(corpus="c", query=query, k=1)
        with typed_errors():
            reply = await self.stub.Search(request, timeout=seconds)
        return [passage.document_id for passage in reply.passages]


@asynccontextmanager
async def replica(folder: Path, http: str, grpc_address: str) -> AsyncIterator[Replica]:
    folder.mkdir()
    file = folder / "announced.json"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tuneproof_retriever", "--store", "weaviate"),
        *("--weaviate-url", f"http://{http}", "--weaviate-grpc", grpc_address),
        *("--weaviate-prefix", "Wire", "--weaviate-search-seconds", str(SEARCH_SECONDS)),
        *("--announce-file", str(file), "--torch-threads", "1", "--write-passages", "4"),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(150):
            while not file.exists():
                assert process.returncode is None, "the retriever ended"
                await asyncio.sleep(0.1)
        addresses = json.loads(file.read_text())
        await wait_ready(addresses["health"], timeout=60)
        async with connect(addresses["grpc"], services=[]) as channel:
            stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
            yield Replica(stub, addresses["health"])
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def lives(health: str) -> bool:
    async with grpc.aio.insecure_channel(health) as channel:
        request = health_pb2.HealthCheckRequest(service="live")
        reply = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


async def until(condition: object, wanted: bool, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while await condition() is not wanted:
            await asyncio.sleep(0.1)


@pytest.mark.process
@pytest.mark.timeout(240)
@pytest.mark.slow
async def test_two_replicas_share_a_server_and_one_is_cut_off(
    weaviate_server: WeaviateServer, tmp_path: Path
) -> None:
    texts = [
        pb.Document(id=f"doc-{n}", text=f"Relay {n} of own{n:05d} holds {n} contacts.")
        for n in range(40)
    ]
    async with (
        Link(weaviate_server.url.removeprefix("http://")) as http,
        Link(weaviate_server.grpc) as rpc,
        replica(tmp_path / "one", http.address, rpc.address) as one,
        replica(tmp_path / "two", http.address, weaviate_server.grpc) as two,
    ):
        await one.stub.CreateCorpus(pb.CreateCorpusRequest(name="c"))
        await one_fills_and_the_other_is_told(one, two, texts)
        frozen = (await two.stub.FreezeCorpus(pb.FreezeCorpusRequest(name="c"))).corpus
        assert (frozen.document_count, frozen.proof.passages_mended) == (40, 0)
        searches = [each.find(f"own{n:05d}") for n in range(40) for each in (one, two)]
        found = await asyncio.gather(*searches)
        assert found == [[f"doc-{n}"] for n in range(40) for _ in range(2)]

        http.cut()
        rpc.cut()
        await fails_in_time(one)
        http.mend()
        rpc.mend()
        await until(lambda: is_ready(one.health), True)
        assert await one.find("own00001") == await two.find("own00001") == ["doc-1"]
        await two.stub.DeleteCorpus(pb.DeleteCorpusRequest(name="c"))


@pytest.mark.process
@pytest.mark.timeout(240)
@pytest.mark.slow
async def test_a_replica_whose_packets_are_lost_fails_in_time_and_recovers_by_itself(
    weaviate_server: WeaviateServer, tmp_path: Path
) -> None:
    """Where no namespace can be made a `Link` swallows what is sent."""
    with cable() as far:
        links = [
            Link(target, listening=far.listening() if far else None)
            for target in (weaviate_server.url.removeprefix("http://"), weaviate_server.grpc)
        ]
        ends = [far] if far else links
        async with (
            links[0] as http,
            links[1] as rpc,
            replica(tmp_path / "one", http.address, rpc.address) as one,
        ):
            await one.stub.CreateCorpus(pb.CreateCorpusRequest(name="c"))
            document = pb.Document(id="doc-1", text="Relay 1 of own00001 holds 1 contact.")
            message = pb.IngestDocumentsRequest(corpus="c", documents=[document])
            await one.stub.IngestDocuments(iter([message]))
            await one.stub.FreezeCorpus(pb.FreezeCorpusRequest(name="c"))
            assert await one.find("own00001") == ["doc-1"]
            for end in ends:
                end.cut()
            await fails_in_time(one)
            for end in ends:
                end.mend()
            await until(lambda: is_ready(one.health), True, seconds=60)
            assert await one.find("own00001") == ["doc-1"]
            await one.stub.DeleteCorpus(pb.DeleteCorpusRequest(name="c"))


async def fails_in_time(cut_off: Replica) -> None:
    for seconds in (1, 20):  # less than a search may take, and more
        begin = time.monotonic()
        with pytest.raises(Unavailable):
            await cut_off.find("own00001", seconds=seconds)
        assert time.monotonic() - begin < min(seconds, SEARCH_SECONDS + 2)
    await until(lambda: is_ready(cut_off.health), False)
    assert await lives(cut_off.health)


async def one_fills_and_the_other_is_told(
    one: Replica, two: Replica, texts: list[pb.Document]
) -> None:
    rest = asyncio.Event()

    async def slowly() -> AsyncIterator[pb.IngestDocumentsRequest]:
        yield pb.IngestDocumentsRequest(corpus="c", documents=texts[:20])
        await rest.wait()
        yield pb.IngestDocumentsRequest(documents=texts[20:])

    async def ingest(each: Replica, messages: object) -> pb.IngestDocumentsResponse:
        with typed_errors():
            return await each.stub.IngestDocuments(messages)

    filling = asyncio.create_task(ingest(one, slowly()))

    async def holds_documents() -> bool:
        reply = await two.stub.GetCorpus(pb.GetCorpusRequest(name="c"))
        return reply.corpus.document_count > 0

    await until(holds_documents, True)
    with pytest.raises(Unavailable, match="is being changed by another retriever") as told:
        await ingest(two, iter([pb.IngestDocumentsRequest(corpus="c")]))
    assert 0 < told.value.retry_after <= 60
    rest.set()
    assert (await filling).documents_added == 40


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


async def test_calls_over_tls_trust_the_authority_that_is_named_and_no_other(
    weaviate_server: WeaviateServer, authority: trustme.CA
) -> None:
    certificate = authority.issue_cert("127.0.0.1")

    def speaking(protocol: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols([protocol])
        certificate.configure_cert(context)
        return context

    ca = authority.cert_pem.bytes().decode()
    async with (
        Link(weaviate_server.url.removeprefix("http://"), tls=speaking("http/1.1")) as http,
        Link(weaviate_server.grpc, tls=speaking("h2")) as rpc,
    ):

        def server(ca: str) -> WeaviateOptions:
            where = Server(f"https://{http.address}", rpc.address, ca=ca, search_seconds=5)
            return WeaviateOptions(where, prefix="Encrypted")

        async with open_weaviate_store(server(ca)) as store:
            await store.check_ready()
            house = HashHouse(store)
            await house.make("c", documents(20))
            assert (await house.find("c", "own00007"))[0] == "doc-7"
            await store.delete("c")
        other = trustme.CA().cert_pem.bytes().decode()
        for wrong in ("", other):
            async with open_weaviate_store(server(wrong)) as store:
                for call in (store.check_ready(), store.names()):
                    with pytest.raises(Unavailable):
                        await call


async def test_a_servers_own_limit_of_queries_is_overload_and_freezing_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAXIMUM_CONCURRENT_GET_REQUESTS", "1")
    server = new_server(tmp_path / "weaviate")
    await asyncio.to_thread(server.start)
    try:
        async with open_weaviate_store(WeaviateOptions(Server(server.url, server.grpc))) as store:
            house = HashHouse(store, proof_passages=100)
            frozen = await house.make("c", documents(100))
            assert frozen.proof is not None
            assert (frozen.proof.passages_checked, frozen.proof.passages_mended) == (100, 0)
            vector = await house.embedder.embed_query("own00001")
            searches = [store.dense("c", vector, 10, {}) for _ in range(60)]
            found = await asyncio.gather(*searches, return_exceptions=True)
            refused = [each for each in found if isinstance(each, BaseException)]
            assert 0 < len(refused) < 60
            assert {type(each) for each in refused} == {Overloaded}
            assert all(each.retry_after for each in refused)
    finally:
        await asyncio.to_thread(server.stop)


class Refusing(grpc.GenericRpcHandler):
    """Weaviate's gRPC port as it is when it takes no more queries."""

    def __init__(self, trailers: dict[str, str]) -> None:
        self.calls = 0
        self._trailers = trailers

    def service(self, _details: object) -> grpc.RpcMethodHandler:
        async def refuse(_request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            self.calls += 1
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "query admission limit reached",
                trailing_metadata=tuple(self._trailers.items()),
            )
            raise AssertionError

        return grpc.unary_unary_rpc_method_handler(refuse)


@pytest.mark.parametrize(
    ("trailers", "seconds"), [({"retry-after": "7"}, 7), ({"grpc-retry-pushback-ms": "2500"}, 2.5)]
)
async def test_overload_is_passed_on_with_the_servers_own_delay(
    weaviate_store: WeaviateStore,
    weaviate_server: WeaviateServer,
    trailers: dict[str, str],
    seconds: float,
) -> None:
    await HashHouse(weaviate_store).make("c", documents(5))
    refusing, server = Refusing(trailers), grpc.aio.server()
    server.add_generic_rpc_handlers([refusing])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    prefix = weaviate_store._records._options.prefix
    where = Server(weaviate_server.url, f"127.0.0.1:{port}", search_seconds=5)
    try:
        async with open_weaviate_store(WeaviateOptions(where, prefix)) as store:
            house = HashHouse(store)
            house.corpora.looks.trust(await store.load("c"))
            for mode in SearchMode:
                begin = time.monotonic()
                with pytest.raises(Overloaded, match="admission limit") as told:
                    await house.searcher.search(Query("c", "own1", mode, 3, 0.5), Stages())
                assert told.value.retry_after == seconds
                assert time.monotonic() - begin < 2, "the caller waits, not the retriever"
    finally:
        await server.stop(0)
    assert refusing.calls >= len(SearchMode)
