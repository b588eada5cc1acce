"""What cannot be used, sent through the gRPC door, with each store behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import grpc
import numpy as np
import pytest

from tuneproof.retriever.v1 import retriever_pb2 as pb
from tuneproof.retriever.v1 import retriever_pb2_grpc
from tuneproof.servicekit.client import connect, typed_errors
from tuneproof.servicekit.errors import (
    Corrupted,
    Internal,
    InvalidInput,
    NotFound,
    TuneproofError,
    WrongState,
)
from tuneproof.servicekit.server import Service
from tuneproof.servicekit.status import error_of
from tuneproof.servicekit.testing import serving
from tuneproof_retriever.corpus import Vector, Vectors
from tuneproof_retriever.servicer import RetrieverServicer
from tuneproof_retriever.stores.lance_store import LanceStore
from tuneproof_retriever.stores.protocol import VectorStore

from .house import HashEmbedder, HashHouse

pytestmark = pytest.mark.long

SERVICES = [pb.DESCRIPTOR.services_by_name["RetrieverService"]]
METHOD = f"/{SERVICES[0].full_name}/"
MOST_BYTES = 10_000_000
GOOD = [
    pb.Document(id=f"doc-{number}", text=f"relay own{number} holds", metadata={"part": "relay"})
    for number in range(6)
]
Stub = retriever_pb2_grpc.RetrieverServiceStub
Spoil = Callable[[Vectors], Vectors]


class SpoiltEmbedder(HashEmbedder):
    """Gives other vectors than it says, while `spoil` is set."""

    spoil: Spoil | None = None

    async def embed_passages(
        self, texts: Sequence[str], *, deadline: float | None = None
    ) -> Vectors:
        vectors = await super().embed_passages(texts)
        return self.spoil(vectors) if self.spoil else vectors

    async def embed_query(self, text: str, *, deadline: float | None = None) -> Vector:
        vector = await super().embed_query(text)
        return self.spoil(np.stack([vector, vector]))[0] if self.spoil else vector


@pytest.fixture
def embedder() -> SpoiltEmbedder:
    return SpoiltEmbedder()


@pytest.fixture
def channel_to(
    store: VectorStore, embedder: SpoiltEmbedder
) -> Callable[[], AsyncIterator[grpc.aio.Channel]]:
    house = HashHouse(store, embedder=embedder)
    servicer = RetrieverServicer(
        house.corpora, house.ingestion, house.searcher, embedder.identity, search_concurrency=4
    )
    service = Service(
        register=lambda server: retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(
            servicer, server
        ),
        descriptors=SERVICES,
        check_ready=store.check_ready,
    )

    @asynccontextmanager
    async def opened() -> AsyncIterator[grpc.aio.Channel]:
        async with serving(service) as target, connect(target, services=SERVICES) as channel:
            yield channel

    return opened


@pytest.fixture
async def channel(channel_to: Callable[[], object]) -> AsyncIterator[grpc.aio.Channel]:
    async with channel_to() as opened:
        yield opened


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Stub:
    return retriever_pb2_grpc.RetrieverServiceStub(channel)


def messages(corpus: str, documents: Sequence[pb.Document]) -> list[pb.IngestDocumentsRequest]:
    each = [pb.IngestDocumentsRequest(documents=[document]) for document in documents]
    return [pb.IngestDocumentsRequest(corpus=corpus), *each]


async def make(stub: Stub, name: str) -> pb.Corpus:
    await stub.CreateCorpus(pb.CreateCorpusRequest(name=name))
    await stub.IngestDocuments(iter(messages(name, GOOD)))
    return (await stub.FreezeCorpus(pb.FreezeCorpusRequest(name=name))).corpus


async def refusal(call: object) -> TuneproofError:
    with pytest.raises(TuneproofError) as caught, typed_errors():
        await call
    return caught.value


async def test_texts_that_are_empty_blank_or_too_long_are_rejected_and_the_rest_is_stored(
    stub: Stub,
) -> None:
    await stub.CreateCorpus(pb.CreateCorpusRequest(name="c"))
    longest = "relay" + " " * (MOST_BYTES - 10) + "holds"
    bad = {
        "empty": pb.Document(id="empty"),
        "blank": pb.Document(id="blank", text=" \n\t"),
        "too-long": pb.Document(id="too-long", text=longest + "s"),
    }
    documents = [GOOD[0], *bad.values(), pb.Document(id="longest", text=longest), GOOD[1]]
    report = await stub.IngestDocuments(iter(messages("c", documents)))
    assert report.documents_added == 3
    assert [each.document_id for each in report.rejected] == list(bad)
    for each in report.rejected:
        error = error_of(each.status)
        assert isinstance(error, InvalidInput)
        assert error.field == "documents.text"
        assert repr(each.document_id) in error.message
    assert "10000001 bytes of text, more than 10000000" in report.rejected[2].status.message
    assert (await stub.FreezeCorpus(pb.FreezeCorpusRequest(name="c"))).corpus.document_count == 3


async def test_text_that_is_not_utf_8_is_refused_with_a_reason(
    channel: grpc.aio.Channel, stub: Stub
) -> None:
    await stub.CreateCorpus(pb.CreateCorpusRequest(name="c"))
    # protobuf's own classes do not take such a text; other clients send it.
    query = pb.SearchRequest(corpus="c", query="?").SerializeToString().replace(b"?", b"\xff")
    search = channel.unary_unary(f"{METHOD}Search")
    document = pb.Document(id="d", text="?")
    message = pb.IngestDocumentsRequest(corpus="c", documents=[document]).SerializeToString()
    ingest = channel.stream_unary(f"{METHOD}IngestDocuments")
    for call in (search(query), ingest(iter([message.replace(b"?", b"\xff")]))):
        error = await refusal(call)
        assert isinstance(error, InvalidInput)
        assert "not UTF-8" in error.message
    assert (await stub.GetCorpus(pb.GetCorpusRequest(name="c"))).corpus.document_count == 0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda vectors: vectors[:, :-1], r"of shape \[\d+, 63\], not \[\d+, 64\]"),
        (lambda vectors: vectors[1:], r"of shape \[\d+, 64\], not"),
        (lambda vectors: np.where(vectors == vectors.max(), np.nan, vectors), "not finite"),
        (lambda vectors: np.where(vectors == vectors.max(), np.inf, vectors), "not finite"),
    ],
    ids=["dimension", "count", "nan", "infinite"],
)
async def test_wrong_vectors_are_neither_stored_nor_searched_by(
    stub: Stub, embedder: SpoiltEmbedder, spoil: Spoil, message: str
) -> None:
    await make(stub, "good")
    await stub.CreateCorpus(pb.CreateCorpusRequest(name="c"))
    embedder.spoil = spoil
    error = await refusal(stub.IngestDocuments(iter(messages("c", GOOD))))
    assert isinstance(error, Internal)
    search = pb.SearchRequest(corpus="good", query="own3", mode=pb.SEARCH_MODE_DENSE)
    if message != r"of shape \[\d+, 64\], not":  # a query has one vector, whatever it is
        assert isinstance(await refusal(stub.Search(search)), Internal)
    search.mode = pb.SEARCH_MODE_KEYWORD
    assert (await stub.Search(search)).passages[0].document_id == "doc-3"
    embedder.spoil = None
    assert (await stub.GetCorpus(pb.GetCorpusRequest(name="c"))).corpus.document_count == 0
    assert (await stub.IngestDocuments(iter(messages("c", GOOD)))).documents_added == len(GOOD)


async def test_k_of_nothing_is_the_default_and_a_million_is_refused(stub: Stub) -> None:
    await make(stub, "c")
    search = pb.SearchRequest(corpus="c", query="relay", k=0)
    assert len((await stub.Search(search)).passages) == 5
    search.k = 1_000_000
    error = await refusal(stub.Search(search))
    assert isinstance(error, InvalidInput)
    assert (error.field, "1000000" in error.message) == ("k", True)
    search.k = 1000
    assert len((await stub.Search(search)).passages) == len(GOOD)


async def test_a_filter_with_a_field_that_no_passage_has_finds_nothing(stub: Stub) -> None:
    await make(stub, "c")
    for mode in (pb.SEARCH_MODE_HYBRID, pb.SEARCH_MODE_DENSE, pb.SEARCH_MODE_KEYWORD):
        search = pb.SearchRequest(corpus="c", query="relay", mode=mode, filter={"colour": "red"})
        assert not (await stub.Search(search)).passages
        search.filter.clear()
        search.filter["part"] = "relay"
        assert len((await stub.Search(search)).passages) == 5


async def test_a_corpus_that_is_not_there_is_named(stub: Stub) -> None:
    for call in (
        stub.GetCorpus(pb.GetCorpusRequest(name="nowhere")),
        stub.FreezeCorpus(pb.FreezeCorpusRequest(name="nowhere")),
        stub.DeleteCorpus(pb.DeleteCorpusRequest(name="nowhere")),
        stub.Search(pb.SearchRequest(corpus="nowhere", query="x")),
        stub.IngestDocuments(iter(messages("nowhere", GOOD))),
        anext(aiter(stub.ExportPassages(pb.ExportPassagesRequest(corpus="nowhere")))),
    ):
        error = await refusal(call)
        assert isinstance(error, NotFound)
        assert "'nowhere'" in error.message


async def test_a_damaged_corpus_is_told_beside_the_others_and_can_be_deleted(
    stub: Stub, store: VectorStore
) -> None:
    """It failed the whole list, or was left out of it."""
    for name in ("a", "b", "c"):
        await make(stub, name)
    await damage(store, "b")
    listed = await stub.ListCorpora(pb.ListCorporaRequest())
    assert [corpus.name for corpus in listed.corpora] == ["a", "c"]
    assert [each.name for each in listed.damaged] == ["b"]
    error = error_of(listed.damaged[0].status)
    assert isinstance(error, Corrupted)
    assert "delete the corpus" in error.message
    await stub.DeleteCorpus(pb.DeleteCorpusRequest(name="b"))
    listed = await stub.ListCorpora(pb.ListCorporaRequest())
    assert ([corpus.name for corpus in listed.corpora], [*listed.damaged]) == (["a", "c"], [])


async def damage(store: VectorStore, name: str) -> None:
    """Behind the retriever's back."""
    if isinstance(store, LanceStore):
        (store._folders.of(name) / "corpus.json").write_text("{}")
        return
    async with store._using(name) as collection:
        await collection.config.update(description="{}")
    store._records._frozen.clear()


async def test_an_open_corpus_is_not_searched_and_a_frozen_one_takes_nothing(stub: Stub) -> None:
    await stub.CreateCorpus(pb.CreateCorpusRequest(name="open"))
    await make(stub, "frozen")
    for call, word in (
        (stub.Search(pb.SearchRequest(corpus="open", query="x")), "freeze it"),
        (anext(aiter(stub.ExportPassages(pb.ExportPassagesRequest(corpus="open")))), "freeze it"),
        (stub.FreezeCorpus(pb.FreezeCorpusRequest(name="open")), "empty"),
        (stub.IngestDocuments(iter(messages("frozen", GOOD))), "frozen"),
    ):
        error = await refusal(call)
        assert isinstance(error, WrongState)
        assert word in error.message


async def test_an_export_has_every_passage_once_in_replies_that_a_client_takes(
    stub: Stub,
) -> None:
    await stub.CreateCorpus(pb.CreateCorpusRequest(name="c"))
    metadata = {f"key-{number}": "v" * 4000 for number in range(64)}
    heavy = [pb.Document(id=f"{n}", text=f"text {n}", metadata=metadata) for n in range(70)]
    await stub.IngestDocuments(iter(messages("c", heavy)))
    await stub.FreezeCorpus(pb.FreezeCorpusRequest(name="c"))
    replies = [reply async for reply in stub.ExportPassages(pb.ExportPassagesRequest(corpus="c"))]
    assert all(reply.ByteSize() <= 5 * 2**20 for reply in replies)
    passages = [passage for reply in replies for passage in reply.passages]
    assert [each.id for each in passages] == sorted(each.id for each in passages)
    assert {each.document_id for each in passages} == {each.id for each in heavy}
