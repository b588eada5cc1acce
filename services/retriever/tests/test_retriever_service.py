"""The contract over gRPC: calls, limits, statuses, streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import pytest

from tuneproof.retriever.v1 import retriever_pb2 as pb
from tuneproof.retriever.v1 import retriever_pb2_grpc
from tuneproof.servicekit.auth import Tokens
from tuneproof.servicekit.client import connect, typed_errors
from tuneproof.servicekit.errors import (
    AlreadyExists,
    Forbidden,
    InvalidInput,
    NotFound,
    TuneproofError,
    WrongState,
)
from tuneproof.servicekit.server import Service
from tuneproof.servicekit.status import error_of
from tuneproof.servicekit.testing import serving
from tuneproof_retriever.corpora import Corpora
from tuneproof_retriever.embedders.sentence_embedder import SentenceEmbedder
from tuneproof_retriever.ingestion import Ingestion
from tuneproof_retriever.searching import Searcher
from tuneproof_retriever.servicer import RetrieverServicer
from tuneproof_retriever.stores.lance_store import LanceStore

SERVICES = [pb.DESCRIPTOR.services_by_name["RetrieverService"]]
DOCUMENTS = [
    pb.Document(
        id=f"doc-{number}",
        title=f"Birch {number}",
        text=f"The Birch {number} receives at {number} GHz.",
        metadata={"parity": "even" if number % 2 == 0 else "odd"},
    )
    for number in range(9)
]


@pytest.fixture
def service(lance_store: LanceStore, embedder: SentenceEmbedder) -> Service:
    corpora = Corpora(lance_store, embedder.identity)
    servicer = RetrieverServicer(
        corpora,
        Ingestion(corpora, lance_store, embedder, write_passages=4),
        Searcher(corpora, lance_store, embedder),
        embedder.identity,
        search_concurrency=4,
    )
    return Service(
        register=lambda server: retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(
            servicer, server
        ),
        descriptors=SERVICES,
        check_ready=lance_store.check_ready,
    )


@pytest.fixture
async def stub(service: Service) -> AsyncIterator[retriever_pb2_grpc.RetrieverServiceAsyncStub]:
    async with serving(service) as target, connect(target, services=SERVICES) as channel:
        yield retriever_pb2_grpc.RetrieverServiceStub(channel)


def messages(
    corpus: str, documents: Iterable[pb.Document], size: int = 4
) -> Iterable[pb.IngestDocumentsRequest]:
    listed = list(documents)
    yield pb.IngestDocumentsRequest(corpus=corpus)
    for first in range(0, len(listed), size):
        yield pb.IngestDocumentsRequest(documents=listed[first : first + size])


async def fill(
    stub: retriever_pb2_grpc.RetrieverServiceAsyncStub, name: str = "birches"
) -> pb.Corpus:
    await stub.CreateCorpus(pb.CreateCorpusRequest(name=name))
    await stub.IngestDocuments(messages(name, DOCUMENTS))
    return (await stub.FreezeCorpus(pb.FreezeCorpusRequest(name=name))).corpus


async def refusal(call: object) -> TuneproofError:
    with pytest.raises(TuneproofError) as caught, typed_errors():
        await call
    return caught.value


async def test_the_life_of_a_corpus(stub: retriever_pb2_grpc.RetrieverServiceAsyncStub) -> None:
    chunking = pb.Chunking(max_tokens=30, overlap_tokens=3, by=pb.CHUNKING_STRATEGY_TOKENS)
    request = pb.CreateCorpusRequest(name="birches", chunking=chunking, labels={"a": "b"})
    created = (await stub.CreateCorpus(request)).corpus
    assert created.state == pb.CORPUS_STATE_OPEN
    assert created.chunking == chunking
    assert created.labels == {"a": "b"}
    assert created.embedder.dimension == 384
    assert not created.digest
    assert (await stub.CreateCorpus(request)).corpus == created

    report = await stub.IngestDocuments(messages("birches", DOCUMENTS))
    assert (report.documents_added, report.passages_added) == (9, 9)
    assert {time.stage for time in report.stage_times} == {"chunk", "embed", "store"}
    again = await stub.IngestDocuments(messages("birches", DOCUMENTS))
    assert (again.documents_added, again.documents_unchanged, again.passages_added) == (0, 9, 0)
    filled = (await stub.GetCorpus(pb.GetCorpusRequest(name="birches"))).corpus
    assert (filled.document_count, filled.passage_count) == (9, 9)

    frozen = (await stub.FreezeCorpus(pb.FreezeCorpusRequest(name="birches"))).corpus
    assert frozen.state == pb.CORPUS_STATE_FROZEN
    assert frozen.digest.startswith("sha256:")
    assert (frozen.document_count, frozen.passage_count) == (9, 9)
    assert frozen.freeze_time.ToSeconds() >= frozen.create_time.ToSeconds() > 0
    assert (await stub.FreezeCorpus(pb.FreezeCorpusRequest(name="birches"))).corpus == frozen
    assert (await stub.GetCorpus(pb.GetCorpusRequest(name="birches"))).corpus == frozen
    assert (await stub.CreateCorpus(request)).corpus == frozen

    await stub.DeleteCorpus(pb.DeleteCorpusRequest(name="birches"))
    for call in (
        stub.GetCorpus(pb.GetCorpusRequest(name="birches")),
        stub.DeleteCorpus(pb.DeleteCorpusRequest(name="birches")),
        stub.FreezeCorpus(pb.FreezeCorpusRequest(name="birches")),
        stub.Search(pb.SearchRequest(corpus="birches", query="x")),
        stub.IngestDocuments(messages("birches", DOCUMENTS)),
    ):
        error = await refusal(call)
        assert isinstance(error, NotFound)
        assert "birches" in error.message


async def test_a_name_with_other_settings_is_taken(
    stub: retriever_pb2_grpc.RetrieverServiceAsyncStub,
) -> None:
    await stub.CreateCorpus(pb.CreateCorpusRequest(name="c"))
    for other, word in (
        (pb.CreateCorpusRequest(name="c", labels={"x": "y"}), "labels"),
        (pb.CreateCorpusRequest(name="c", chunking=pb.Chunking(max_tokens=9)), "chunking"),
    ):
        error = await refusal(stub.CreateCorpus(other))
        assert isinstance(error, AlreadyExists)
        assert word in error.message


async def test_states_are_kept(stub: retriever_pb2_grpc.RetrieverServiceAsyncStub) -> None:
    await stub.CreateCorpus(pb.CreateCorpusRequest(name="c"))
    search = pb.SearchRequest(corpus="c", query="birch")
    assert isinstance(await refusal(stub.Search(search)), WrongState)
    empty = await refusal(stub.FreezeCorpus(pb.FreezeCorpusRequest(name="c")))
    assert isinstance(empty, WrongState)
    assert "empty" in empty.message
    await fill(stub)
    error = await refusal(stub.IngestDocuments(messages("birches", DOCUMENTS)))
    assert isinstance(error, WrongState)
    assert "frozen" in error.message
    search = pb.SearchRequest(corpus="birches", query="birch", expected_digest="sha256:0")
    error = await refusal(stub.Search(search))
    assert isinstance(error, WrongState)
    assert "sha256:0" in error.message


@pytest.mark.parametrize(
    "name", ["", "Upper", "9lives", "-x", "a_b", "a/b", "..", "../x", ".lock", "a" * 64, "a\n", "ä"]
)
async def test_names_never_become_paths(
    stub: retriever_pb2_grpc.RetrieverServiceAsyncStub, name: str
) -> None:
    for call, field in (
        (stub.CreateCorpus(pb.CreateCorpusRequest(name=name)), "name"),
        (stub.GetCorpus(pb.GetCorpusRequest(name=name)), "name"),
        (stub.FreezeCorpus(pb.FreezeCorpusRequest(name=name)), "name"),
        (stub.DeleteCorpus(pb.DeleteCorpusRequest(name=name)), "name"),
        (stub.IngestDocuments(messages(name, DOCUMENTS)), "corpus"),
        (stub.Search(pb.SearchRequest(corpus=name, query="x")), "corpus"),
    ):
        error = await refusal(call)
        assert isinstance(error, InvalidInput)
        assert error.field == field


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.CreateCorpusRequest(name="c", chunking=pb.Chunking(max_tokens=7)), "chunking.max_to"),
        (pb.CreateCorpusRequest(name="c", chunking=pb.Chunking(max_tokens=255)), "chunking.max_to"),
        (
            pb.CreateCorpusRequest(name="c", chunking=pb.Chunking(max_tokens=9, overlap_tokens=9)),
            "chunking.overlap_tokens",
        ),
        (pb.CreateCorpusRequest(name="c", chunking=pb.Chunking(by=9)), "by"),
        (pb.CreateCorpusRequest(name="c", labels={str(n): "" for n in range(65)}), "labels"),
        (pb.CreateCorpusRequest(name="c", labels={"": "x"}), "labels"),
        (pb.CreateCorpusRequest(name="c", labels={"x": "y" * 4097}), "labels"),
        (pb.CreateCorpusRequest(name="c", request_id="r" * 129), "request_id"),
    ],
)
async def test_settings_of_a_corpus_are_checked(
    stub: retriever_pb2_grpc.RetrieverServiceAsyncStub,
    request_: pb.CreateCorpusRequest,
    field: str,
) -> None:
    error = await refusal(stub.CreateCorpus(request_))
    assert isinstance(error, InvalidInput)
    assert error.field.startswith(field)
    assert not (await stub.ListCorpora(pb.ListCorporaRequest())).corpora


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"query": " \n"}, "query"),
        ({"query": "x" * 32_769}, "query"),
        ({"query": "word " * 300}, "query"),
        ({"k": 1001}, "k"),
        ({"alpha": -0.1}, "alpha"),
        ({"alpha": 1.1}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"mode": 9}, "mode"),
        ({"filter": {"": "x"}}, "filter"),
        ({"filter": {str(n): "" for n in range(65)}}, "filter"),
    ],
)
async def test_searches_are_checked(
    stub: retriever_pb2_grpc.RetrieverServiceAsyncStub, change: dict[str, object], field: str
) -> None:
    await fill(stub)
    request = pb.SearchRequest(**{"corpus": "birches", "query": "birch", **change})
    error = await refusal(stub.Search(request))
    assert isinstance(error, InvalidInput)
    assert error.field == field


async def test_bad_documents_are_rejected_one_by_one(
    stub: retriever_pb2_grpc.RetrieverServiceAsyncStub,
) -> None:
    await stub.CreateCorpus(pb.CreateCorpusRequest(name="c"))
    bad = {
        "": pb.Document(id="", text="fine"),
        " ": pb.Document(id=" ", text="fine"),
        "i" * 513: pb.Document(id="i" * 513, text="fine"),
        "blank": pb.Document(id="blank", text=" \n\u00a0"),
        "controls": pb.Document(id="controls", text="\x00\x01"),
        "heavy": pb.Document(id="heavy", text="\u00fc" * 5_000_001),
        "meta": pb.Document(id="meta", text="fine", metadata={"k" * 129: "v"}),
    }
    mixed = [DOCUMENTS[0], *bad.values(), DOCUMENTS[1], pb.Document(id="blank", text="Now fine.")]
    report = await stub.IngestDocuments(messages("c", mixed, size=1))
    assert report.documents_added == 3
    assert report.documents_rejected == len(bad)
    assert [each.document_id for each in report.rejected] == list(bad)
    assert all(isinstance(error_of(each.status), InvalidInput) for each in report.rejected)
    assert "blank" in report.rejected[3].status.message


async def test_a_message_with_too_many_documents_and_an_empty_stream_are_refused(
    stub: retriever_pb2_grpc.RetrieverServiceAsyncStub,
) -> None:
    await stub.CreateCorpus(pb.CreateCorpusRequest(name="c"))
    many = [pb.Document(id=str(number), text="x") for number in range(1001)]
    error = await refusal(stub.IngestDocuments(messages("c", many, size=1001)))
    assert isinstance(error, InvalidInput)
    assert "1001" in error.message
    error = await refusal(stub.IngestDocuments(iter(())))
    assert isinstance(error, InvalidInput)
    assert error.field == "corpus"


async def test_a_list_of_rejections_ends_but_all_are_counted(
    stub: retriever_pb2_grpc.RetrieverServiceAsyncStub,
) -> None:
    await stub.CreateCorpus(pb.CreateCorpusRequest(name="c"))
    bad = [pb.Document(id=str(number)) for number in range(1500)]
    report = await stub.IngestDocuments(messages("c", bad, size=500))
    assert report.documents_rejected == 1500
    assert len(report.rejected) == 1000


async def test_search_replies_with_passages_digest_and_stage_times(
    stub: retriever_pb2_grpc.RetrieverServiceAsyncStub,
) -> None:
    corpus = await fill(stub)
    stages = {
        pb.SEARCH_MODE_UNSPECIFIED: {"embed", "search", "fuse"},
        pb.SEARCH_MODE_DENSE: {"embed", "search"},
        pb.SEARCH_MODE_KEYWORD: {"search"},
    }
    for mode, expected in stages.items():
        request = pb.SearchRequest(
            corpus="birches",
            query="what does the Birch 7 receive ?",
            mode=mode,
            expected_digest=corpus.digest,
        )
        reply = await stub.Search(request)
        assert reply.corpus_digest == corpus.digest
        assert {time.stage for time in reply.stage_times} == expected
        assert len(reply.passages) == 5
        best = reply.passages[0]
        assert best.document_id == "doc-7"
        assert best.text == DOCUMENTS[7].text
        assert (best.start, best.end) == (0, len(DOCUMENTS[7].text))
        assert best.metadata == {"parity": "odd"}
        scores = [passage.score for passage in reply.passages]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] > 0


async def test_alpha_zero_is_not_the_default(
    stub: retriever_pb2_grpc.RetrieverServiceAsyncStub,
) -> None:
    await fill(stub)
    query = {"corpus": "birches", "query": "Birch 7 aerial frequency", "k": 9}

    async def order(**change: object) -> list[str]:
        reply = await stub.Search(pb.SearchRequest(**query, **change))
        return [passage.id for passage in reply.passages]

    dense = await order(mode=pb.SEARCH_MODE_DENSE)
    keyword = await order(mode=pb.SEARCH_MODE_KEYWORD)
    assert dense != keyword
    assert await order(alpha=1.0) == dense
    assert await order(alpha=0.0) == keyword
    assert await order() == await order(alpha=0.5)


async def test_filters_hold_in_every_mode(
    stub: retriever_pb2_grpc.RetrieverServiceAsyncStub,
) -> None:
    await fill(stub)
    for mode in (pb.SEARCH_MODE_HYBRID, pb.SEARCH_MODE_DENSE, pb.SEARCH_MODE_KEYWORD):
        request = pb.SearchRequest(corpus="birches", query="Birch 7", mode=mode, k=9)
        request.filter["parity"] = "even"
        found = {passage.document_id for passage in (await stub.Search(request)).passages}
        assert found == {f"doc-{number}" for number in range(0, 9, 2)}
        request.filter["parity"] = "' OR '1'='1"
        assert not (await stub.Search(request)).passages


async def test_a_batch_answers_each_search_and_a_bad_one_ends_nothing(
    stub: retriever_pb2_grpc.RetrieverServiceAsyncStub,
) -> None:
    await fill(stub)
    searches = [
        pb.SearchBatchRequest(
            id=f"q{number}",
            search=pb.SearchRequest(corpus="birches", query=f"Birch {number % 9}", k=1),
        )
        for number in range(40)
    ]
    searches[5].search.k = 5000
    searches[6].search.corpus = "nowhere"
    searches[7].id = "q8"
    searches[9].id = ""
    replies: dict[str, list[pb.SearchBatchResponse]] = {}
    async for reply in stub.SearchBatch(iter(searches)):
        replies.setdefault(reply.id, []).append(reply)
    assert sum(map(len, replies.values())) == 40
    assert isinstance(error_of(replies["q5"][0].error), InvalidInput)
    assert isinstance(error_of(replies["q6"][0].error), NotFound)
    assert isinstance(error_of(replies[""][0].error), InvalidInput)
    assert sorted(reply.WhichOneof("outcome") for reply in replies["q8"]) == ["error", "result"]
    for number in range(10, 40):
        (reply,) = replies[f"q{number}"]
        assert reply.result.passages[0].document_id == f"doc-{number % 9}"


async def test_corpora_are_listed_by_name_in_pages(
    stub: retriever_pb2_grpc.RetrieverServiceAsyncStub,
) -> None:
    for name in ("c", "a", "b"):
        await stub.CreateCorpus(pb.CreateCorpusRequest(name=name))
    first = await stub.ListCorpora(pb.ListCorporaRequest(page_size=2))
    assert [corpus.name for corpus in first.corpora] == ["a", "b"]
    rest = await stub.ListCorpora(pb.ListCorporaRequest(page_token=first.next_page_token))
    assert [corpus.name for corpus in rest.corpora] == ["c"]
    assert not rest.next_page_token
    error = await refusal(stub.ListCorpora(pb.ListCorporaRequest(page_token="?")))
    assert isinstance(error, InvalidInput)
    assert error.field == "page_token"


async def test_the_role_use_reads_and_searches_only(service: Service) -> None:
    manage, use = "m" * 16, "u" * 16
    tokens = Tokens(((manage.encode(), "manage"), (use.encode(), "use")))
    async with serving(service, tokens=tokens) as target:
        async with connect(target, services=SERVICES, token=manage) as channel:
            await fill(retriever_pb2_grpc.RetrieverServiceStub(channel))
        async with connect(target, services=SERVICES, token=use) as channel:
            stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
            found = await stub.Search(pb.SearchRequest(corpus="birches", query="Birch 3"))
            assert found.passages
            for call in (
                stub.CreateCorpus(pb.CreateCorpusRequest(name="c")),
                stub.IngestDocuments(messages("birches", DOCUMENTS)),
                stub.FreezeCorpus(pb.FreezeCorpusRequest(name="birches")),
                stub.DeleteCorpus(pb.DeleteCorpusRequest(name="birches")),
            ):
                assert isinstance(await refusal(call), Forbidden)
