"""Client of the retriever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sized
from uuid import uuid4

from tuneproof.data.items import Document
from tuneproof.retriever.v1 import retriever_pb2 as pb
from tuneproof.retriever.v1 import retriever_pb2_grpc
from tuneproof.sdk.connection import Client, Connection, all_pages
from tuneproof.sdk.retriever_messages import (
    corpus_of,
    groups_of,
    ingest_result,
    passages_of,
    search_message,
)
from tuneproof.sdk.streams import Exchange, Inputs
from tuneproof.sdk.values import Chunking, CorpusInfo, IngestResult, Passage, RejectedDocument
from tuneproof.servicekit.errors import TuneproofError
from tuneproof.servicekit.retries import Retries

_INGESTION = Retries(first=0.1, longest=10.0, factor=3.0, attempts=6)
_DEFAULT_CHUNKING = Chunking()
Passages = list[Passage]
"""What a search found, best first."""


class RetrieverClient(Client):
    """Keeps corpora and searches them; an asynchronous context manager.

    Every method raises the service's own error (`InvalidInput`, `NotFound` …), `Unavailable` when
    the service cannot be reached, and `DeadlineExceeded` after `timeout` seconds.
    """

    def __init__(self, target: str, *, token: str | None = None) -> None:
        services = pb.DESCRIPTOR.services_by_name.values()
        super().__init__(Connection("retriever", target, token=token, services=services))
        self._stub = retriever_pb2_grpc.RetrieverServiceStub(self._connection.channel)

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
        request = pb.CreateCorpusRequest(
            name=name,
            chunking=pb.Chunking(
                max_tokens=chunking.max_tokens, overlap_tokens=chunking.overlap_tokens
            ),
            labels=labels,
            request_id=uuid4().hex,
        )
        with self._connection.errors("CreateCorpus"):
            reply = await self._stub.CreateCorpus(request, timeout=timeout)
        return corpus_of(reply.corpus)

    async def ingest(
        self,
        name: str,
        documents: Iterable[Document],
        *,
        on_progress: Callable[[int, int | None], None] | None = None,
        streams: int = 2,
        timeout: float = 600.0,
    ) -> IngestResult:
        """Stores documents; what a corpus holds already is not stored again.

        Documents go in groups, each in a stream of its own that is sent again while the service
        is unavailable or overloaded, so that a restart of the service costs one group.

        Args:
            on_progress: is told how many documents are done, and how many there are where that
                is known.
            streams: how many groups are under way at once.
            timeout: seconds for one group.
        """
        total = len(documents) if isinstance(documents, Sized) else None
        too_large: list[RejectedDocument] = []
        groups = groups_of(documents, too_large)
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
        return ingest_result(replies, too_large)

    async def _ingest_group(
        self, name: str, group: list[pb.Document], timeout: float
    ) -> pb.IngestDocumentsResponse:
        async def messages() -> AsyncIterator[pb.IngestDocumentsRequest]:
            yield pb.IngestDocumentsRequest(corpus=name, documents=group)

        async def ingest() -> pb.IngestDocumentsResponse:
            with self._connection.errors("IngestDocuments"):
                return await self._stub.IngestDocuments(messages(), timeout=timeout)

        return await _INGESTION.call(ingest)

    async def freeze(self, name: str, *, timeout: float = 1800.0) -> CorpusInfo:
        """Ends ingestion, builds the indexes and computes the digest."""
        with self._connection.errors("FreezeCorpus"):
            reply = await self._stub.FreezeCorpus(
                pb.FreezeCorpusRequest(name=name), timeout=timeout
            )
        return corpus_of(reply.corpus)

    async def get(self, name: str, *, timeout: float = 30.0) -> CorpusInfo:
        """A corpus by name."""
        with self._connection.errors("GetCorpus"):
            reply = await self._stub.GetCorpus(pb.GetCorpusRequest(name=name), timeout=timeout)
        return corpus_of(reply.corpus)

    async def list(self, *, timeout: float = 30.0) -> list[CorpusInfo]:
        """All corpora by name."""

        async def read(token: str) -> tuple[list[CorpusInfo], str]:
            with self._connection.errors("ListCorpora"):
                reply = await self._stub.ListCorpora(
                    pb.ListCorporaRequest(page_token=token), timeout=timeout
                )
            return [corpus_of(corpus) for corpus in reply.corpora], reply.next_page_token

        return await all_pages(read)

    async def delete(self, name: str, *, timeout: float = 120.0) -> None:
        """Deletes a corpus and its passages."""
        with self._connection.errors("DeleteCorpus"):
            await self._stub.DeleteCorpus(pb.DeleteCorpusRequest(name=name), timeout=timeout)

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
        timeout: float = 60.0,
    ) -> Passages:
        """The k passages nearest to a query, best first.

        Args:
            mode: `hybrid`, `dense` or `keyword`.
            alpha: weight of the dense list in a hybrid search, 0 to 1; None: 0.5.
            expected_digest: a corpus with another digest is refused (`WrongState`).
            filter: only passages whose metadata equals every entry.
        """
        request = search_message(
            corpus, query, k=k, mode=mode, alpha=alpha, expected_digest=expected_digest, only=filter
        )
        with self._connection.errors("Search"):
            reply = await self._stub.Search(request, timeout=timeout)
        return passages_of(reply)

    def search_many(
        self,
        corpus: str,
        queries: Inputs[str],
        *,
        k: int = 5,
        mode: str = "hybrid",
        alpha: float | None = None,
        expected_digest: str = "",
        in_flight: int = 32,
        timeout: float = 6 * 3600.0,
        stall: float = 300.0,
    ) -> AsyncIterator[tuple[str, Passages | TuneproofError]]:
        """Answers many queries over one stream, in any order; see `Exchange` for the limits.

        Args:
            queries: by id of the caller's.
        """

        def pack(name: str, query: str) -> pb.SearchBatchRequest:
            search = search_message(
                corpus,
                query,
                k=k,
                mode=mode,
                alpha=alpha,
                expected_digest=expected_digest,
                only=None,
            )
            return pb.SearchBatchRequest(id=name, search=search)

        exchange = Exchange(
            *(self._connection, "SearchBatch", self._stub.SearchBatch, pack, passages_of),
            in_flight=in_flight,
            timeout=timeout,
            stall=stall,
        )
        return exchange.outcomes(queries)
