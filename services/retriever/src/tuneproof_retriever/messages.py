"""Between the contract's messages and the domain's values, where their fields differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tuneproof.retriever.v1 import retriever_pb2 as pb
from tuneproof.servicekit.messages import message_of, values_of
from tuneproof.servicekit.status import status_of
from tuneproof_retriever.corpus import Chunking, ChunkingStrategy, Passage
from tuneproof_retriever.ingestion import IngestReport
from tuneproof_retriever.limits import (
    DEFAULT_ALPHA,
    check_alpha,
    check_chunking,
    check_entries,
    check_k,
    check_name,
    check_query,
    check_rerank_depth,
)
from tuneproof_retriever.searching import Query, Rerank, SearchMode

_EXPORTED_BYTES = 4 * 2**20


def chunking_of(message: pb.Chunking, embedder_max_tokens: int) -> Chunking:
    """Chunking that the embedder can read.

    Raises:
        InvalidInput: naming the field that is wrong.
    """
    by = ChunkingStrategy(values_of(message).get("by", ChunkingStrategy.TOKENS))
    return check_chunking(message.max_tokens, message.overlap_tokens, embedder_max_tokens, by)


def ingest_response(report: IngestReport) -> pb.IngestDocumentsResponse:
    """What became of a stream of documents."""
    return message_of(
        pb.IngestDocumentsResponse,
        report,
        rejected=[
            pb.RejectedDocument(document_id=id_, status=status_of(error))
            for id_, error in report.rejected
        ],
    )


def export_responses(passages: Sequence[Passage]) -> Iterator[pb.ExportPassagesResponse]:
    """Passages in replies that a client's limit (16 MiB) lets through."""
    response, size = pb.ExportPassagesResponse(), 0
    for passage in passages:
        message = message_of(pb.Passage, passage)
        if response.passages and size + message.ByteSize() > _EXPORTED_BYTES:
            yield response
            response, size = pb.ExportPassagesResponse(), 0
        response.passages.append(message)
        size += message.ByteSize()
    if response.passages:
        yield response


def query_of(request: pb.SearchRequest) -> Query:
    """A search within the limits.

    Raises:
        InvalidInput: naming the field that is not.
    """
    given = values_of(request)
    k = check_k(request.k)
    rerank = None
    if request.HasField("rerank"):
        depth = check_rerank_depth(request.rerank.depth, k)
        rerank = Rerank(depth, request.rerank.expected_reranker)
    return Query(
        corpus=check_name(request.corpus, "corpus"),
        text=check_query(request.query),
        mode=SearchMode(given.get("mode", SearchMode.HYBRID)),
        k=k,
        alpha=check_alpha(given.get("alpha", DEFAULT_ALPHA)),
        where=check_entries(request.filter, "filter"),
        expected_digest=request.expected_digest,
        rerank=rerank,
    )
