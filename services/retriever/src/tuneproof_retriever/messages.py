"""The contract's messages and the domain's values, each as the other."""

from __future__ import annotations

from tuneproof.retriever.v1 import retriever_pb2 as pb
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.messages import message_of
from tuneproof.servicekit.status import status_of
from tuneproof_retriever.corpus import Corpus, Document, Hit
from tuneproof_retriever.ingestion import IngestReport
from tuneproof_retriever.limits import (
    DEFAULT_ALPHA,
    check_alpha,
    check_entries,
    check_k,
    check_name,
    check_query,
    check_rerank_depth,
)
from tuneproof_retriever.searching import Query, Rerank, SearchMode

_MODES = {
    pb.SEARCH_MODE_UNSPECIFIED: SearchMode.HYBRID,
    pb.SEARCH_MODE_HYBRID: SearchMode.HYBRID,
    pb.SEARCH_MODE_DENSE: SearchMode.DENSE,
    pb.SEARCH_MODE_KEYWORD: SearchMode.KEYWORD,
}


def corpus_message(corpus: Corpus) -> pb.Corpus:
    """A corpus as the contract says it."""
    return message_of(pb.Corpus, corpus)


def document_of(message: pb.Document) -> Document:
    """A document as the caller gave it, unchecked."""
    return Document(
        id=message.id, text=message.text, title=message.title, metadata=dict(message.metadata)
    )


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


def query_of(request: pb.SearchRequest) -> Query:
    """A search within the limits.

    Raises:
        InvalidInput: naming the field that is not.
    """
    if request.mode not in _MODES:
        raise InvalidInput(f"mode is {request.mode}, which is not a SearchMode", field="mode")
    k = check_k(request.k)
    rerank = None
    if request.HasField("rerank"):
        depth = check_rerank_depth(request.rerank.depth, k)
        rerank = Rerank(depth, request.rerank.expected_reranker)
    return Query(
        corpus=check_name(request.corpus, "corpus"),
        text=check_query(request.query),
        mode=_MODES[request.mode],
        k=k,
        alpha=check_alpha(request.alpha) if request.HasField("alpha") else DEFAULT_ALPHA,
        where=check_entries(request.filter, "filter"),
        expected_digest=request.expected_digest,
        rerank=rerank,
    )


def passage_message(hit: Hit) -> pb.Passage:
    """A passage with its score."""
    passage = hit.passage
    return pb.Passage(
        id=passage.id,
        document_id=passage.document_id,
        text=passage.text,
        start=passage.start,
        end=passage.end,
        score=hit.score,
        first_score=hit.first_score,
        metadata=dict(passage.metadata),
    )
