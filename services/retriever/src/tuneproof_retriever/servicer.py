"""The contract's calls: each translates and delegates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import grpc
import structlog
from google.rpc import status_pb2

from tuneproof.retriever.v1 import retriever_pb2 as pb
from tuneproof.retriever.v1 import retriever_pb2_grpc
from tuneproof.servicekit.batch import answer_each
from tuneproof.servicekit.errors import Corrupted, InvalidInput, NotFound
from tuneproof.servicekit.messages import message_of, value_from
from tuneproof.servicekit.paging import page
from tuneproof.servicekit.status import status_of
from tuneproof.servicekit.timing import Stages
from tuneproof_retriever.corpora import Corpora
from tuneproof_retriever.corpus import Document, EmbedderIdentity
from tuneproof_retriever.ingestion import Ingestion
from tuneproof_retriever.limits import (
    MAX_DOCUMENTS_PER_MESSAGE,
    check_entries,
    check_name,
    check_request_id,
)
from tuneproof_retriever.messages import (
    chunking_of,
    export_responses,
    ingest_response,
    query_of,
)
from tuneproof_retriever.searching import Searcher

_ANSWER_SECONDS = 0.2
"""Kept of a caller's time for the answer's way back; a tenth of it where that is less."""

Context = grpc.aio.ServicerContext[Any, Any]

_log = structlog.get_logger(__name__)


class RetrieverServicer(retriever_pb2_grpc.RetrieverServiceServicer):
    """tuneproof.retriever.v1.RetrieverService.

    Args:
        search_concurrency: searches of one stream that are under way at once.
    """

    def __init__(
        self,
        corpora: Corpora,
        ingestion: Ingestion,
        searcher: Searcher,
        embedder: EmbedderIdentity,
        *,
        search_concurrency: int,
    ) -> None:
        self._corpora = corpora
        self._ingestion = ingestion
        self._searcher = searcher
        self._embedder = embedder
        self._search_concurrency = search_concurrency

    async def CreateCorpus(
        self, request: pb.CreateCorpusRequest, _context: Context
    ) -> pb.CreateCorpusResponse:
        name = check_name(request.name, "name")
        chunking = chunking_of(request.chunking, self._embedder.max_tokens)
        labels = check_entries(request.labels, "labels")
        request_id = check_request_id(request.request_id)
        corpus = await self._corpora.create(name, chunking, labels)
        _log.info("corpus created", corpus=name, request_id=request_id)
        return pb.CreateCorpusResponse(corpus=message_of(pb.Corpus, corpus))

    async def IngestDocuments(
        self, request: AsyncIterator[pb.IngestDocumentsRequest], context: Context
    ) -> pb.IngestDocumentsResponse:
        first = await anext(aiter(request), None)
        if first is None:
            raise InvalidInput(
                "the stream is empty; its first message names the corpus", field="corpus"
            )
        name = check_name(first.corpus, "corpus")
        stages = Stages("retriever")
        report = await self._ingestion.run(
            name, _documents(first, request), stages, deadline=_deadline(context)
        )
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
        corpus = await self._corpora.freeze(check_name(request.name, "name"))
        _log.info("corpus frozen", corpus=corpus.name, digest=corpus.digest)
        return pb.FreezeCorpusResponse(corpus=message_of(pb.Corpus, corpus))

    async def GetCorpus(
        self, request: pb.GetCorpusRequest, _context: Context
    ) -> pb.GetCorpusResponse:
        corpus = await self._corpora.get(check_name(request.name, "name"))
        return pb.GetCorpusResponse(corpus=message_of(pb.Corpus, corpus))

    async def ListCorpora(
        self, request: pb.ListCorporaRequest, _context: Context
    ) -> pb.ListCorporaResponse:
        names = await self._corpora.names()
        chosen, token = page(names, request.page_size, request.page_token, key=str)
        response = pb.ListCorporaResponse(next_page_token=token)
        for name in chosen:
            try:
                response.corpora.append(message_of(pb.Corpus, await self._corpora.get(name)))
            except NotFound:  # deleted since the names were read
                continue
            except Corrupted as error:
                response.damaged.add(name=name, status=status_of(error))
        return response

    async def DeleteCorpus(
        self, request: pb.DeleteCorpusRequest, _context: Context
    ) -> pb.DeleteCorpusResponse:
        name = check_name(request.name, "name")
        await self._corpora.delete(name)
        _log.info("corpus deleted", corpus=name)
        return pb.DeleteCorpusResponse()

    async def ExportPassages(
        self, request: pb.ExportPassagesRequest, _context: Context
    ) -> AsyncIterator[pb.ExportPassagesResponse]:
        async for passages in self._searcher.export(check_name(request.corpus, "corpus")):
            for response in export_responses(passages):
                yield response

    async def Search(self, request: pb.SearchRequest, context: Context) -> pb.SearchResponse:
        return await self._search(request, _deadline(context))

    async def SearchBatch(
        self, request: AsyncIterator[pb.SearchBatchRequest], context: Context
    ) -> AsyncIterator[pb.SearchBatchResponse]:
        deadline = _deadline(context)
        seen: set[str] = set()

        async def answer(item: pb.SearchBatchRequest) -> pb.SearchBatchResponse:
            if not item.id or item.id in seen:
                raise InvalidInput(
                    f"id is {item.id!r}; every search of a stream has one of its own", field="id"
                )
            seen.add(item.id)
            result = await self._search(item.search, deadline)
            return pb.SearchBatchResponse(id=item.id, result=result)

        def refuse(
            item: pb.SearchBatchRequest, status: status_pb2.Status
        ) -> pb.SearchBatchResponse:
            return pb.SearchBatchResponse(id=item.id, error=status)

        async for response in answer_each(
            request, answer, refuse, concurrency=self._search_concurrency
        ):
            yield response

    async def _search(self, request: pb.SearchRequest, deadline: float | None) -> pb.SearchResponse:
        stages = Stages("retriever")
        found = await self._searcher.search(query_of(request), stages, deadline=deadline)
        response = pb.SearchResponse(
            passages=[
                message_of(pb.Passage, hit.passage, score=hit.score, first_score=hit.first_score)
                for hit in found.hits
            ],
            corpus_digest=found.corpus_digest,
            reranker=message_of(pb.Reranker, found.reranker) if found.reranker else None,
        )
        stages.fill(response.stage_times)
        return response


def _deadline(context: Context) -> float | None:
    """The event loop's time shortly before the caller's time is over, so that it is told why."""
    remaining = cast("float | None", context.time_remaining())
    if remaining is None:
        return None
    kept = min(_ANSWER_SECONDS, remaining / 10)
    return asyncio.get_running_loop().time() + remaining - kept


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
    return [value_from(Document, document) for document in message.documents]
