"""The retriever's client, against a small retriever in this process."""

from __future__ import annotations

import pytest

from tuneproof.data import Document
from tuneproof.retriever.v1 import retriever_pb2 as pb
from tuneproof.retriever.v1 import retriever_pb2_grpc as stubs
from tuneproof.sdk import Chunking, Rerank, RetrieverClient
from tuneproof.servicekit.errors import (
    AlreadyExists,
    Corrupted,
    InvalidInput,
    NotFound,
    Unavailable,
    WrongState,
)
from tuneproof.servicekit.paging import page
from tuneproof.servicekit.server import Service
from tuneproof.servicekit.status import status_of
from tuneproof.servicekit.testing import serving

pytestmark = [pytest.mark.long, pytest.mark.timeout(20)]


class _Retriever(stubs.RetrieverServiceServicer):
    """Finds the documents that hold the query; refuses those named `bad…`."""

    def __init__(self) -> None:
        self.corpora: dict[str, pb.Corpus] = {}
        self.documents: dict[str, pb.Document] = {}
        self.groups: list[int] = []
        self.failures = 0
        self.searches: list[pb.SearchRequest] = []

    async def CreateCorpus(self, request, context):
        known = self.corpora.get(request.name)
        if known and known.chunking != request.chunking:
            raise AlreadyExists(f"corpus {request.name} has other settings")
        corpus = pb.Corpus(
            name=request.name,
            state=pb.CORPUS_STATE_OPEN,
            chunking=request.chunking,
            labels=request.labels,
            embedder=pb.Embedder(id="mini", digest="sha256:e", dimension=384),
        )
        return pb.CreateCorpusResponse(corpus=self.corpora.setdefault(request.name, corpus))

    async def IngestDocuments(self, request_iterator, context):
        documents = [document async for r in request_iterator for document in r.documents]
        if self.failures:
            self.failures -= 1
            raise Unavailable("the store restarts", retry_after=0.01)
        self.groups.append(len(documents))
        reply = pb.IngestDocumentsResponse()
        for document in documents:
            if document.id.startswith("bad"):
                reply.documents_rejected += 1
                reply.rejected.add(
                    document_id=document.id, status=status_of(InvalidInput("its text is blank"))
                )
            elif document.id in self.documents:
                reply.documents_unchanged += 1
            else:
                self.documents[document.id] = document
                reply.documents_added += 1
                reply.passages_added += 2
        return reply

    async def FreezeCorpus(self, request, context):
        corpus = self._corpus(request.name)
        corpus.state = pb.CORPUS_STATE_FROZEN
        corpus.digest = "sha256:d"
        corpus.document_count = len(self.documents)
        return pb.FreezeCorpusResponse(corpus=corpus)

    async def GetCorpus(self, request, context):
        return pb.GetCorpusResponse(corpus=self._corpus(request.name))

    async def ListCorpora(self, request, context):
        corpora = sorted(self.corpora.values(), key=lambda corpus: corpus.name)
        some, token = page(corpora, 2, request.page_token, lambda corpus: corpus.name)
        reply = pb.ListCorporaResponse(next_page_token=token)
        for corpus in some:
            if "damaged" in corpus.labels:
                reply.damaged.add(name=corpus.name, status=status_of(Corrupted("no record")))
            else:
                reply.corpora.append(corpus)
        return reply

    async def DeleteCorpus(self, request, context):
        del self.corpora[self._corpus(request.name).name]
        return pb.DeleteCorpusResponse()

    async def Search(self, request, context):
        return self._search(request)

    async def SearchBatch(self, request_iterator, context):
        async for request in request_iterator:
            try:
                yield pb.SearchBatchResponse(id=request.id, result=self._search(request.search))
            except InvalidInput as error:
                yield pb.SearchBatchResponse(id=request.id, error=status_of(error))

    def _search(self, request: pb.SearchRequest) -> pb.SearchResponse:
        self.searches.append(request)
        if not request.query:
            raise InvalidInput("the query is blank")
        corpus = self._corpus(request.corpus)
        if request.expected_digest not in {"", corpus.digest}:
            raise WrongState(f"corpus {corpus.name} has the digest {corpus.digest}")
        passages = [
            pb.Passage(id=f"p-{d.id}", document_id=d.id, text=d.text, end=len(d.text), score=0.5)
            for d in self.documents.values()
            if request.query in d.text
        ]
        if request.HasField("rerank"):
            for passage in passages:
                passage.score, passage.first_score = 2.5, passage.score
        return pb.SearchResponse(passages=passages[: request.k])

    def _corpus(self, name: str) -> pb.Corpus:
        if name not in self.corpora:
            raise NotFound(f"there is no corpus {name}")
        return self.corpora[name]


@pytest.fixture
def fake() -> _Retriever:
    return _Retriever()


@pytest.fixture
async def client(fake):
    async def ready() -> None: ...

    service = Service(
        register=lambda server: stubs.add_RetrieverServiceServicer_to_server(fake, server),
        descriptors=[pb.DESCRIPTOR.services_by_name["RetrieverService"]],
        check_ready=ready,
    )
    async with serving(service) as target, RetrieverClient(target) as found:
        yield found


def _documents(n: int) -> list[Document]:
    return [Document(f"d{i}", f"text number {i} .", title="t") for i in range(n)]


async def test_a_corpus_from_creation_to_deletion(client, fake):
    corpus = await client.ensure_corpus("manual", Chunking(64, 8), {"made": "here"})
    assert (corpus.state, corpus.frozen, corpus.digest) == ("open", False, "")
    assert corpus.chunking == Chunking(64, 8)
    assert corpus.labels == {"made": "here"}
    assert (corpus.embedder, corpus.dimension) == ("mini", 384)
    assert await client.ensure_corpus("manual", Chunking(64, 8)) == corpus
    with pytest.raises(AlreadyExists, match="other settings"):
        await client.ensure_corpus("manual", Chunking(32, 8))

    await client.ingest("manual", _documents(3))
    frozen = await client.freeze("manual")
    assert (frozen.frozen, frozen.digest, frozen.documents) == (True, "sha256:d", 3)
    assert await client.get("manual") == frozen
    await client.delete("manual")
    with pytest.raises(NotFound, match="no corpus manual"):
        await client.get("manual")


async def test_lists_are_read_to_their_last_page(client):
    for name in "edcba":
        await client.ensure_corpus(name)
    assert [corpus.name for corpus in await client.list()] == list("abcde")


async def test_damaged_corpora_of_all_pages_are_told_beside_the_list(client):
    for name in "abcde":
        await client.ensure_corpus(name, labels={"damaged": "yes"} if name in "bd" else None)
    told = []
    assert [corpus.name for corpus in await client.list(on_damaged=told.append)] == list("ace")
    assert [(each.name, type(each.error), each.error.message) for each in told] == [
        ("b", Corrupted, "no record"),
        ("d", Corrupted, "no record"),
    ]
    assert [corpus.name for corpus in await client.list()] == list("ace")


async def test_documents_go_in_groups_and_are_counted(client, fake):
    told: list[tuple[int, int | None]] = []
    documents = [*_documents(600), Document("bad1", " ")]
    result = await client.ingest(
        "manual", documents, on_progress=lambda *progress: told.append(progress)
    )
    assert (result.added, result.passages_added, result.unchanged) == (600, 1200, 0)
    assert [(r.id, r.error.message) for r in result.rejected] == [("bad1", "its text is blank")]
    assert result.rejected_count == 1
    assert sum(fake.groups) == 601
    assert len(fake.groups) == 3
    assert told[-1] == (601, 601)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert fake.documents["d7"].title == "t"

    again = await client.ingest("manual", iter(_documents(600)))
    assert (again.added, again.unchanged) == (0, 600)


async def test_groups_stay_small_in_bytes(client, fake):
    await client.ingest("manual", [Document(f"d{i}", "x" * 3_000_000) for i in range(3)])
    assert fake.groups == [1, 1, 1]


async def test_a_document_for_which_no_message_is_large_enough_is_rejected(client, fake):
    documents = [Document("huge", "x" * 16_000_000), *_documents(1)]
    result = await client.ingest("manual", documents)
    assert result.added == 1
    assert [r.id for r in result.rejected] == ["huge"]
    assert "split it" in result.rejected[0].error.message


async def test_a_group_is_sent_again_while_the_service_is_away(client, fake):
    fake.failures = 4
    result = await client.ingest("manual", _documents(5))
    assert result.added == 5
    assert fake.failures == 0


async def test_a_service_that_stays_away_is_an_error(client, fake):
    fake.failures = 1000
    with pytest.raises(Unavailable, match="the store restarts"):
        await client.ingest("manual", _documents(5))


async def test_a_search_says_all_that_was_asked(client, fake):
    await client.ensure_corpus("manual")
    await client.ingest("manual", _documents(12))
    [first, second] = await client.search("manual", "number 1", k=2, mode="dense", alpha=0.0)
    assert (first.document_id, first.text, first.score) == ("d1", "text number 1 .", 0.5)
    assert second.document_id == "d10"
    [request] = fake.searches
    assert (request.mode, request.k) == (pb.SEARCH_MODE_DENSE, 2)
    assert request.HasField("alpha")
    assert request.alpha == 0
    with pytest.raises(WrongState, match="has the digest"):
        await client.search("manual", "number", expected_digest="sha256:other")
    await client.search("manual", "number", filter={"kind": "fact"})
    assert not fake.searches[-1].HasField("alpha")
    assert fake.searches[-1].filter == {"kind": "fact"}
    assert not fake.searches[-1].HasField("rerank")
    assert first.first_score is None


async def test_a_search_can_be_reranked(client, fake):
    await client.ensure_corpus("manual")
    await client.ingest("manual", _documents(12))
    [found] = await client.search("manual", "number 7", rerank=Rerank(50, "org/reranker"))
    assert (found.score, found.first_score) == (2.5, 0.5)
    assert fake.searches[-1].rerank == pb.Rerank(depth=50, expected_reranker="org/reranker")
    outcomes = client.search_many("manual", {"q": "number 7"}, rerank=Rerank())
    assert [passages[0].first_score async for _, passages in outcomes] == [0.5]
    assert fake.searches[-1].HasField("rerank")


async def test_an_unknown_mode_is_named_with_the_known_ones(client):
    with pytest.raises(
        InvalidInput, match=r"mode 'fuzzy' is not known; known: hybrid, dense, keyword"
    ):
        await client.search("manual", "x", mode="fuzzy")


async def test_many_searches_over_one_stream(client, fake):
    await client.ensure_corpus("manual")
    await client.ingest("manual", _documents(30))
    queries = {f"q{n}": f"number {n} ." for n in range(30)} | {"blank": ""}
    outcomes = client.search_many("manual", queries, k=3, mode="keyword")
    found = {name: outcome async for name, outcome in outcomes}
    assert isinstance(found.pop("blank"), InvalidInput)
    assert {name: [p.document_id for p in passages] for name, passages in found.items()} == {
        f"q{n}": [f"d{n}"] for n in range(30)
    }
    assert {request.mode for request in fake.searches} == {pb.SEARCH_MODE_KEYWORD}
