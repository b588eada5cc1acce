"""Weaviate: several retrievers on one server, keys, limits, a server that is not there."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from weaviate.exceptions import WeaviateQueryError

from tuneproof.servicekit.errors import (
    NotFound,
    Overloaded,
    TuneproofError,
    Unavailable,
    WrongState,
)
from tuneproof.servicekit.timing import Stages
from tuneproof_retriever.corpus import Corpus, Document, PreparedDocument, Vector
from tuneproof_retriever.stores import weaviate_connection, weaviate_records
from tuneproof_retriever.stores import weaviate_store as store_module
from tuneproof_retriever.stores.weaviate_connection import Connection
from tuneproof_retriever.stores.weaviate_options import Layout, Server, WeaviateOptions
from tuneproof_retriever.stores.weaviate_store import WeaviateStore, open_weaviate_store

from .house import CHUNKING, HashEmbedder, HashHouse, documents
from .weaviate_server import WeaviateServer

pytestmark = pytest.mark.slow


@pytest.fixture
async def other_store(
    weaviate_store: WeaviateStore, weaviate_server: WeaviateServer
) -> AsyncIterator[WeaviateStore]:
    """A second retriever's store on the same corpora."""
    prefix = weaviate_store._records._options.prefix
    server = Server(weaviate_server.url, weaviate_server.grpc)
    async with open_weaviate_store(WeaviateOptions(server, prefix)) as store:
        yield store


async def test_one_replica_fills_and_the_other_is_told(
    weaviate_store: WeaviateStore, other_store: WeaviateStore
) -> None:
    one, two = HashHouse(weaviate_store), HashHouse(other_store)
    await one.corpora.create("c", CHUNKING, {})
    begun, gate = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[Sequence[Document]]:
        yield documents(10)
        begun.set()
        await gate.wait()
        yield documents(20)

    filling = asyncio.create_task(one.ingestion.run("c", slow(), Stages()))
    await begun.wait()
    for call in (
        two.ingest("c", documents(5)),
        two.corpora.freeze("c"),
        two.corpora.delete("c"),
    ):
        with pytest.raises(Unavailable, match="is being changed by another retriever") as told:
            await call
        assert weaviate_store._records._id in told.value.message
        assert 0 < told.value.retry_after <= 60
    gate.set()
    assert (await filling).documents_added == 20
    # The claim ended with the stream: the other one may go on.
    report = await two.ingest("c", documents(30))
    assert (report.documents_added, report.documents_unchanged) == (10, 20)
    frozen = await two.corpora.freeze("c")
    assert frozen.passage_count == 30
    with pytest.raises(WrongState, match="frozen"):
        await one.ingest("c", documents(31))
    found = await asyncio.gather(*(each.find("c", "own00025") for each in (one, two) * 8))
    assert {hits[0] for hits in found} == {"doc-25"}


async def test_a_replica_that_deletes_what_it_fills_ends_the_stream_and_nothing_comes_back(
    weaviate_store: WeaviateStore, other_store: WeaviateStore
) -> None:
    one, two = HashHouse(weaviate_store, write_passages=10), HashHouse(other_store)
    await one.corpora.create("c", CHUNKING, {})

    async def deleted_meanwhile() -> AsyncIterator[Sequence[Document]]:
        yield documents(10)
        await one.corpora.delete("c")
        yield documents(20)

    with pytest.raises(NotFound):
        await one.ingestion.run("c", deleted_meanwhile(), Stages())
    assert await other_store.names() == []
    await two.corpora.create("c", CHUNKING, {})
    report = await two.ingest("c", documents(5))
    assert (report.documents_added, report.documents_unchanged) == (5, 0)
    assert (await two.corpora.freeze("c")).passage_count == 5


async def test_a_deletion_that_fails_gives_its_claim_back(
    weaviate_store: WeaviateStore, other_store: WeaviateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = HashHouse(weaviate_store), HashHouse(other_store)
    await one.corpora.create("c", CHUNKING, {})

    async def away(_name: str) -> None:
        raise Unavailable("the server is away")

    monkeypatch.setattr(weaviate_store, "delete", away)
    with pytest.raises(Unavailable, match="away"):
        await one.corpora.delete("c")
    assert (await two.ingest("c", documents(5))).documents_added == 5


async def test_an_unknown_failure_does_not_end_the_watch_and_counts_as_an_outage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The watch ended silently, and a later outage was no reason for a whole proof."""
    connection = Connection(Server("http://w"))
    answers = iter([True, RuntimeError("unknown"), RuntimeError("unknown"), True, False, True])
    seen = asyncio.Event()

    async def is_up(_seconds: float = 5.0) -> bool:
        answer = next(answers, None)
        if answer is None:
            seen.set()
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    monkeypatch.setattr(connection, "_is_up", is_up)
    monkeypatch.setattr(weaviate_connection, "_WATCH_SECONDS", 0)
    watching = asyncio.create_task(connection.watch())
    async with asyncio.timeout(10):
        await asyncio.wait(
            [watching, asyncio.create_task(seen.wait())], return_when=asyncio.FIRST_COMPLETED
        )
    assert not watching.done()
    assert connection.outages == 2
    watching.cancel()
    await connection.close()


async def test_a_replica_whose_claim_was_taken_writes_nothing_more(
    weaviate_store: WeaviateStore, other_store: WeaviateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = HashHouse(weaviate_store, write_passages=10), HashHouse(other_store)
    await one.corpora.create("c", CHUNKING, {})

    async def slept_over() -> AsyncIterator[Sequence[Document]]:
        yield documents(10)
        # As after a pause that was longer than its claim: the other one took over.
        await weaviate_store.release("c")
        await two.ingest("c", documents(12))
        yield documents(20)

    with pytest.raises(WrongState, match="changed by another call"):
        await one.ingestion.run("c", slept_over(), Stages())
    assert (await two.corpora.get("c")).document_count == 12


async def test_a_claim_of_a_replica_that_died_ends_by_itself(
    weaviate_store: WeaviateStore, other_store: WeaviateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await HashHouse(weaviate_store).corpora.create("c", CHUNKING, {})
    with monkeypatch.context() as patch:
        patch.setattr(weaviate_records, "_CLAIM", weaviate_records._RENEWAL * 0)
        turn = await weaviate_store.claim("c")
    assert await other_store.claim("c") != turn


async def test_what_an_interrupted_write_left_is_replaced(
    weaviate_store: WeaviateStore, tiny_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = HashHouse(weaviate_store)
    await house.corpora.create("c", CHUNKING, {})
    long = Document("long", " ".join(f"old{n}" for n in range(200)))
    with monkeypatch.context() as patch:
        whole = store_module.objects_of
        patch.setattr(store_module, "objects_of", lambda given: whole(given)[:3])
        await house.ingest("c", [long])
    assert await weaviate_store.documents("c") == {}
    assert (await weaviate_store.counts("c")).documents == 0
    again = HashHouse(weaviate_store)
    await again.ingest("c", [replace(long, text="new and short")])
    frozen = await again.corpora.freeze("c")
    assert (frozen.document_count, frozen.passage_count) == (1, 1)
    assert await again.find("c", "old1 old2 old3") == ["long"]


async def test_a_collection_that_weaviate_made_for_late_objects_is_no_corpus(
    weaviate_store: WeaviateStore, tiny_corpus: Corpus
) -> None:
    await weaviate_store.create(tiny_corpus)
    async with weaviate_store._using("tiny") as collection:
        await weaviate_store.delete("tiny")
        await collection.data.insert({"text": "late"}, vector=[1, 0, 0, 0])
    with pytest.raises(NotFound):
        await weaviate_store.load("tiny")
    assert await weaviate_store.names() == []
    assert await weaviate_store.create(tiny_corpus)
    assert (await weaviate_store.counts("tiny")).passages == 0


@pytest.mark.parametrize(
    "layout", [Layout(index="flat"), Layout(quantised=True), Layout(shards=2)], ids=str
)
async def test_every_layout_finds_what_it_holds(
    weaviate_server: WeaviateServer, layout: Layout
) -> None:
    server = Server(weaviate_server.url, weaviate_server.grpc)
    async with open_weaviate_store(
        WeaviateOptions(server, "Layouts", layout, consistency="ONE")
    ) as store:
        house = HashHouse(store, proof_passages=100)
        frozen = await house.make("c", documents(60))
        assert frozen.proof is not None
        assert (frozen.proof.passages_checked, frozen.proof.passages_mended) == (60, 0)
        ids = [each.passage.id async for batch in store.scan("c") for each in batch]
        assert ids == sorted(ids)
        assert len(ids) == 60
        assert (await house.find("c", "own00033"))[0] == "doc-33"
        await store.delete("c")


class Families(HashEmbedder):
    """Directions in families of some five texts, as long as a MiniLM's."""

    def __init__(self) -> None:
        super().__init__()
        self.identity = replace(self.identity, dimension=384)

    def _vector(self, text: str) -> Vector:
        family = f"family {zlib.crc32(text.encode()) % 400}"
        vector = super()._vector(family) + 0.7 * super()._vector(text)
        return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("shards", [1, 2])
async def test_a_quantised_index_finds_nearly_what_an_exact_search_finds(
    weaviate_server: WeaviateServer, shards: int
) -> None:
    server = Server(weaviate_server.url, weaviate_server.grpc)
    layout = Layout(quantised=True, shards=shards)
    options = WeaviateOptions(server, "Quantised", layout, consistency="ONE")
    given, found = documents(2000), 0
    async with open_weaviate_store(options) as store:
        house = HashHouse(store, write_passages=500, embedder=Families())
        assert (await house.make("c", given)).passage_count == len(given)
        vectors = await house.embedder.embed_passages([each.text for each in given])
        for query in vectors[:50] + 0.7 * vectors[50:100]:
            nearest = {given[place].id for place in np.argsort(-(vectors @ query))[:10]}
            hits = await store.dense("c", query, 10, {}, whole=True)
            found += len({each.passage.document_id for each in hits if each.passage} & nearest)
        await store.delete("c")
    assert found / 500 >= 0.98


async def test_a_passage_that_the_server_refuses_is_told_by_its_document(
    weaviate_store: WeaviateStore, tiny_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = HashHouse(weaviate_store)
    await house.corpora.create("c", CHUNKING, {})
    await house.ingest("c", documents(5))
    whole = store_module.objects_of

    def spoilt(given: Sequence[PreparedDocument]) -> list[Any]:
        objects = whole(given)
        for each in objects:
            if each.properties["document_id"] == "doc-7":
                each.vector = each.vector[:3]
        return objects

    monkeypatch.setattr(store_module, "objects_of", spoilt)
    with pytest.raises(Unavailable, match=r"did not store 1 of 4 passages.*'doc-7'.*dimension"):
        await house.ingest("c", documents(9))
    monkeypatch.undo()
    await house.ingest("c", documents(9))
    assert (await house.corpora.freeze("c")).document_count == 9


async def test_a_server_that_is_not_there_is_unavailable_and_not_ready() -> None:
    server = Server("http://127.0.0.1:9", search_seconds=1, write_seconds=1)
    async with open_weaviate_store(WeaviateOptions(server)) as store:
        for call in (store.load("c"), store.names(), store.check_ready(), store.documents("c")):
            async with asyncio.timeout(10):
                with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"):
                    await call


class Refusal(Exception):
    """As gRPC gives it."""

    def __init__(self, code: str, trailers: dict[str, str]) -> None:
        super().__init__(code)
        self._code, self._trailers = code, trailers

    def code(self) -> object:
        return type("Code", (), {"name": self._code})

    def trailing_metadata(self) -> list[tuple[str, str]]:
        return list(self._trailers.items())


@pytest.mark.parametrize(
    ("code", "trailers", "kind", "delay"),
    [
        ("RESOURCE_EXHAUSTED", {"retry-after": "7"}, Overloaded, 7),
        ("RESOURCE_EXHAUSTED", {"grpc-retry-pushback-ms": "2500"}, Overloaded, 2.5),
        ("RESOURCE_EXHAUSTED", {}, Overloaded, 1),
        ("UNAUTHENTICATED", {}, WrongState, None),
        ("PERMISSION_DENIED", {}, WrongState, None),
        ("UNAVAILABLE", {}, Unavailable, None),
    ],
)
def test_a_refusal_keeps_its_meaning_though_the_client_hides_its_code(
    code: str, trailers: dict[str, str], kind: type[TuneproofError], delay: float | None
) -> None:
    try:
        try:
            raise Refusal(code, trailers)  # noqa: TRY301
        except Refusal as refusal:
            raise WeaviateQueryError(str(refusal), "GRPC search")  # noqa: B904 - as the client does
    except WeaviateQueryError as error:
        meaning = Connection._meaning(Connection(Server("http://w")), error, "c")
    assert type(meaning) is kind
    assert getattr(meaning, "retry_after", None) == delay
    assert ("API key" in meaning.message) == (kind is WrongState)


def test_the_key_is_in_no_representation() -> None:
    assert "secret" not in repr(WeaviateOptions(Server("http://w", api_key="secret")))
