"""Client of the retriever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence, Sized
from uuid import uuid4

from tuneproof.data.items import Document
from tuneproof.retriever.v1 import retriever_pb2 as pb
from tuneproof.retriever.v1.retriever_pb2_grpc import RetrieverServiceStub
from tuneproof.sdk.client import Client, all_pages
from tuneproof.sdk.streams import Inputs
from tuneproof.sdk.values import (
    Chunking,
    CorpusInfo,
    DamagedCorpus,
    IngestResult,
    Passage,
    RejectedDocument,
    Rerank,
)
from tuneproof.servicekit.errors import InvalidInput, TuneproofError
from tuneproof.servicekit.messages import message_of, value_from
from tuneproof.servicekit.retries import Retries
from tuneproof.servicekit.status import error_of

_INGESTION = Retries(first=0.1, longest=10.0, factor=3.0, attempts=6)
_DEFAULT_CHUNKING = Chunking()
_DOCUMENTS_PER_STREAM = 256
_BYTES_PER_STREAM = 4 * 2**20
_MOST_BYTES = 15 * 2**20
"""A larger document does not fit into a message of 16 MiB."""

Passages = list[Passage]
"""What a search found, best first."""


class RetrieverClient(Client):
    """Keeps corpora and searches them; see `Client` for the errors."""

    service, contract, stubs = "retriever", pb.DESCRIPTOR, (RetrieverServiceStub,)

    async def ensure_corpus(
        self,
        name: str,
        chunking: Chunking = _DEFAULT_CHUNKING,
        labels: Mapping[str, str] | None = None,
        *,
        timeout: float = 60.0,
    ) -> CorpusInfo:
        """Creates a corpus, or gives the one that exists with these settings.

        Raises:
            AlreadyExists: when it exists with others.
        """
        request = message_of(
            pb.CreateCorpusRequest,
            name=name,
            chunking=chunking,
            labels=labels,
            request_id=uuid4().hex,
        )
        return _corpus((await self._call(request, timeout)).corpus)

    async def ingest(
        self,
        name: str,
        documents: Iterable[Document],
        *,
        on_progress: Callable[[int, int | None], None] | None = None,
        streams: int = 2,
        timeout: float = 600.0,
    ) -> IngestResult:
        """Stores the documents that a corpus does not hold yet.

        Sends them in groups, each in its own stream, and sends a group again while the service is
        unavailable or overloaded, so that a restart of the service costs one group.

        Args:
            on_progress: gets the number of finished documents, and of all where it is known.
            streams: how many groups are under way at once.
            timeout: seconds for one group.
        """
        total = len(documents) if isinstance(documents, Sized) else None
        too_large: list[RejectedDocument] = []
        groups = _groups(documents, too_large)
        replies: list[pb.IngestDocumentsResponse] = []
        done = 0

        async def work() -> None:
            nonlocal done
            for group in groups:
                replies.append(await self._ingest_group(name, group, timeout))
                done += len(group)
                if on_progress:
                    on_progress(done + len(too_large), total)

        workers = [asyncio.create_task(work()) for _ in range(max(1, streams))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return _ingested(replies, too_large)

    async def _ingest_group(
        self, name: str, group: list[pb.Document], timeout: float
    ) -> pb.IngestDocumentsResponse:
        async def messages() -> AsyncIterator[pb.IngestDocumentsRequest]:
            yield pb.IngestDocumentsRequest(corpus=name, documents=group)

        return await _INGESTION.call(
            lambda: self._call(messages(), timeout, kind=pb.IngestDocumentsRequest)
        )

    async def freeze(self, name: str, *, timeout: float = 1800.0) -> CorpusInfo:
        """Ends ingestion, builds the indexes and computes the digest."""
        return _corpus((await self._call(pb.FreezeCorpusRequest(name=name), timeout)).corpus)

    async def get(self, name: str, *, timeout: float = 30.0) -> CorpusInfo:
        """A corpus by name."""
        return _corpus((await self._call(pb.GetCorpusRequest(name=name), timeout)).corpus)

    async def list(
        self,
        *,
        on_damaged: Callable[[DamagedCorpus], None] | None = None,
        timeout: float = 30.0,
    ) -> list[CorpusInfo]:
        """All corpora that the service can read, by name.

        Args:
            on_damaged: gets the others.
        """

        async def read(token: str) -> tuple[Sequence[pb.Corpus], str]:
            reply = await self._call(pb.ListCorporaRequest(page_token=token), timeout)
            if on_damaged:
                for each in reply.damaged:
                    on_damaged(DamagedCorpus(each.name, error_of(each.status)))
            return reply.corpora, reply.next_page_token

        return [_corpus(each) for each in await all_pages(read)]

    async def delete(self, name: str, *, timeout: float = 120.0) -> None:
        """Deletes a corpus and its passages."""
        await self._call(pb.DeleteCorpusRequest(name=name), timeout)

    async def export(self, name: str, *, timeout: float = 3600.0) -> AsyncIterator[Passage]:
        """All passages of a frozen corpus, by ascending id."""
        async for reply in self._replies(pb.ExportPassagesRequest(corpus=name), timeout):
            for passage in _passages(reply):
                yield passage

    async def search(
        self,
        corpus: str,
        query: str,
        *,
        k: int = 5,
        mode: str = "hybrid",
        alpha: float | None = None,
        expected_digest: str = "",
        filter: Mapping[str, str] | None = None,  # noqa: A002 - the contract's word
        rerank: Rerank | None = None,
        timeout: float = 60.0,
    ) -> Passages:
        """The k passages nearest to a query, best first.

        Args:
            mode: `hybrid`, `dense` or `keyword`.
            alpha: weight of the dense list in a hybrid search, 0 to 1; None: 0.5.
            expected_digest: a corpus with another digest is refused (`WrongState`).
            filter: only passages whose metadata equals every entry.
            rerank: how the retriever's reranker orders them anew; None: it does not.

        Raises:
            WrongState: also when there is no such reranker.
        """
        request = message_of(
            pb.SearchRequest,
            corpus=corpus,
            query=query,
            k=k,
            mode=mode,
            alpha=alpha,
            expected_digest=expected_digest,
            filter=filter,
            rerank=rerank,
        )
        return _passages(await self._call(request, timeout))

    def search_many(
        self,
        corpus: str,
        queries: Inputs[str],
        *,
        k: int = 5,
        mode: str = "hybrid",
        alpha: float | None = None,
        expected_digest: str = "",
        rerank: Rerank | None = None,
        in_flight: int = 32,
        timeout: float = 6 * 3600.0,
        stall: float = 300.0,
    ) -> AsyncIterator[tuple[str, Passages | TuneproofError]]:
        """Answers many queries over one stream, in any order; see `Exchange` for the limits.

        Args:
            queries: by id of the caller's.
        """
        asked = {
            "k": k,
            "mode": mode,
            "alpha": alpha,
            "expected_digest": expected_digest,
            "rerank": rerank,
        }
        return self._outcomes(
            pb.SearchBatchRequest,
            queries,
            lambda query: {
                "search": message_of(pb.SearchRequest, corpus=corpus, query=query, **asked)
            },
            _passages,
            in_flight=in_flight,
            timeout=timeout,
            stall=stall,
        )


def _groups(
    documents: Iterable[Document], too_large: list[RejectedDocument]
) -> Iterator[list[pb.Document]]:
    """Documents in groups that fit into a message; those that never fit go to `too_large`."""
    group: list[pb.Document] = []
    size = 0
    for document in documents:
        message = message_of(pb.Document, document)
        its_size = message.ByteSize()
        if its_size > _MOST_BYTES:
            error = InvalidInput(
                f"document {document.id} has {its_size:,} bytes, too many for one message; split it"
            )
            too_large.append(RejectedDocument(document.id, error))
            continue
        if group and (len(group) == _DOCUMENTS_PER_STREAM or size + its_size > _BYTES_PER_STREAM):
            yield group
            group, size = [], 0
        group.append(message)
        size += its_size
    if group:
        yield group


def _ingested(
    replies: Sequence[pb.IngestDocumentsResponse], too_large: Sequence[RejectedDocument]
) -> IngestResult:
    """What the replies to all groups say together."""
    refused = [each for reply in replies for each in reply.rejected]
    rejected = [RejectedDocument(each.document_id, error_of(each.status)) for each in refused]
    return IngestResult(
        added=sum(reply.documents_added for reply in replies),
        unchanged=sum(reply.documents_unchanged for reply in replies),
        passages_added=sum(reply.passages_added for reply in replies),
        rejected=(*too_large, *rejected),
        rejected_count=len(too_large) + sum(reply.documents_rejected for reply in replies),
    )


def _passages(reply: pb.SearchResponse | pb.ExportPassagesResponse) -> Passages:
    return [value_from(Passage, passage) for passage in reply.passages]


def _corpus(message: pb.Corpus) -> CorpusInfo:
    return value_from(
        CorpusInfo,
        message,
        embedder=message.embedder.id,
        embedder_digest=message.embedder.digest,
        dimension=message.embedder.dimension,
        documents=message.document_count,
        passages=message.passage_count,
    )
