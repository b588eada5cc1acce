"""The contract's calls: each translates and delegates."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import structlog
from google.rpc import status_pb2

from tuneproof.retriever.v1 import retriever_pb2 as pb
from tuneproof.retriever.v1 import retriever_pb2_grpc
from tuneproof.servicekit.batch import answer_each
from tuneproof.servicekit.errors import InvalidInput, NotFound
from tuneproof.servicekit.paging import page
from tuneproof.servicekit.timing import Stages
from tuneproof_retriever.corpora import Corpora
from tuneproof_retriever.corpus import Document, EmbedderIdentity, Hit
from tuneproof_retriever.ingestion import Ingestion
from tuneproof_retriever.limits import (
    MAX_DOCUMENTS_PER_MESSAGE,
    check_entries,
    check_name,
    check_request_id,
)
from tuneproof_retriever.messages import (
    chunking_of,
    corpus_message,
    document_of,
    ingest_response,
    passage_message,
    query_of,
)
from tuneproof_retriever.searching import Searcher

Context = grpc.aio.ServicerContext[Any, Any]

_log = structlog.get_logger(__name__)


class RetrieverServicer(retriever_pb2_grpc.RetrieverServiceServicer):
    """tuneproof.retriever.v1.RetrieverService."""

    def __init__(
        self,
        corpora: Corpora,
        ingestion: Ingestion,
        searcher: Searcher,
        embedder: EmbedderIdentity,
        *,
        search_concurrency: int,
    ) -> None:
        """
        Args:
            search_concurrency: searches of one stream that are under way at once.
        """
        self._corpora = corpora
        self._ingestion = ingestion
        self._searcher = searcher
        self._embedder = embedder
        self._search_concurrency = search_concurrency

    async def CreateCorpus(
        self, request: pb.CreateCorpusRequest, _context: Context
    ) -> pb.CreateCorpusResponse:
        """See the contract."""
        name = check_name(request.name, "name")
        chunking = chunking_of(request.chunking, self._embedder.max_tokens)
        labels = check_entries(request.labels, "labels")
        request_id = check_request_id(request.request_id)
        corpus = await self._corpora.create(name, chunking, labels)
        _log.info("corpus created", corpus=name, request_id=request_id)
        return pb.CreateCorpusResponse(corpus=corpus_message(corpus))

    async def IngestDocuments(
        self, request: AsyncIterator[pb.IngestDocumentsRequest], _context: Context
    ) -> pb.IngestDocumentsResponse:
        """See the contract."""
        first = await anext(aiter(request), None)
        if first is None:
            raise InvalidInput(
                "the stream is empty; its first message names the corpus", field="corpus"
            )
        name = check_name(first.corpus, "corpus")
        stages = Stages("retriever")
        report = await self._ingestion.run(name, _documents(first, request), stages)
        response = ingest_response(report)
        stages.fill(response.stage_times)
        _log.info(
            "documents ingested",
            corpus=name,
            added=report.documents_added,
            unchanged=report.documents_unchanged,
            rejected=report.documents_rejected,
        )
        return response

    async def FreezeCorpus(
        self, request: pb.FreezeCorpusRequest, _context: Context
    ) -> pb.FreezeCorpusResponse:
        """See the contract."""
        corpus = await self._corpora.freeze(check_name(request.name, "name"))
        _log.info("corpus frozen", corpus=corpus.name, digest=corpus.digest)
        return pb.FreezeCorpusResponse(corpus=corpus_message(corpus))

    async def GetCorpus(
        self, request: pb.GetCorpusRequest, _context: Context
    ) -> pb.GetCorpusResponse:
        """See the contract."""
        corpus = await self._corpora.get(check_name(request.name, "name"))
        return pb.GetCorpusResponse(corpus=corpus_message(corpus))

    async def ListCorpora(
        self, request: pb.ListCorporaRequest, _context: Context
    ) -> pb.ListCorporaResponse:
        """See the contract."""
        names = await self._corpora.names()
        chosen, token = page(names, request.page_size, request.page_token, key=str)
        response = pb.ListCorporaResponse(next_page_token=token)
        for name in chosen:
            try:
                response.corpora.append(corpus_message(await self._corpora.get(name)))
            except NotFound:  # deleted since the names were read
                continue
        return response

    async def DeleteCorpus(
        self, request: pb.DeleteCorpusRequest, _context: Context
    ) -> pb.DeleteCorpusResponse:
        """See the contract."""
        name = check_name(request.name, "name")
        await self._corpora.delete(name)
        _log.info("corpus deleted", corpus=name)
        return pb.DeleteCorpusResponse()

    async def ExportPassages(
        self, request: pb.ExportPassagesRequest, _context: Context
    ) -> AsyncIterator[pb.ExportPassagesResponse]:
        """See the contract."""
        async for passages in self._searcher.export(check_name(request.corpus, "corpus")):
            hits = [Hit(passage, 0.0) for passage in passages]
            yield pb.ExportPassagesResponse(passages=[passage_message(hit) for hit in hits])

    async def Search(self, request: pb.SearchRequest, _context: Context) -> pb.SearchResponse:
        """See the contract."""
        return await self._search(request)

    async def SearchBatch(
        self, request: AsyncIterator[pb.SearchBatchRequest], _context: Context
    ) -> AsyncIterator[pb.SearchBatchResponse]:
        """See the contract."""
        seen: set[str] = set()

        async def answer(item: pb.SearchBatchRequest) -> pb.SearchBatchResponse:
            if not item.id or item.id in seen:
                raise InvalidInput(
                    f"id is {item.id!r}; every search of a stream has one of its own", field="id"
                )
            seen.add(item.id)
            return pb.SearchBatchResponse(id=item.id, result=await self._search(item.search))

        def refuse(
            item: pb.SearchBatchRequest, status: status_pb2.Status
        ) -> pb.SearchBatchResponse:
            return pb.SearchBatchResponse(id=item.id, error=status)

        async for response in answer_each(
            request, answer, refuse, concurrency=self._search_concurrency
        ):
            yield response

    async def _search(self, request: pb.SearchRequest) -> pb.SearchResponse:
        stages = Stages("retriever")
        found = await self._searcher.search(query_of(request), stages)
        response = pb.SearchResponse(
            passages=[passage_message(hit) for hit in found.hits],
            corpus_digest=found.corpus_digest,
        )
        stages.fill(response.stage_times)
        return response


async def _documents(
    first: pb.IngestDocumentsRequest, rest: AsyncIterator[pb.IngestDocumentsRequest]
) -> AsyncIterator[Sequence[Document]]:
    yield _documents_of(first)
    async for message in rest:
        yield _documents_of(message)


def _documents_of(message: pb.IngestDocumentsRequest) -> list[Document]:
    if len(message.documents) > MAX_DOCUMENTS_PER_MESSAGE:
        raise InvalidInput(
            f"a message has {len(message.documents)} documents, more than"
            f" {MAX_DOCUMENTS_PER_MESSAGE}; send them in several",
            field="documents",
        )
    return [document_of(document) for document in message.documents]
