"""The contract's messages and the domain's values, each as the other."""

from __future__ import annotations

from tuneproof.retriever.v1 import retriever_pb2 as pb
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.messages import message_of
from tuneproof.servicekit.status import status_of
from tuneproof_retriever.corpus import Chunking, ChunkingStrategy, Corpus, Document, Hit
from tuneproof_retriever.ingestion import IngestReport
from tuneproof_retriever.limits import (
    DEFAULT_ALPHA,
    check_alpha,
    check_chunking,
    check_entries,
    check_k,
    check_name,
    check_query,
)
from tuneproof_retriever.searching import Query, SearchMode

_MODES = {
    pb.SEARCH_MODE_UNSPECIFIED: SearchMode.HYBRID,
    pb.SEARCH_MODE_HYBRID: SearchMode.HYBRID,
    pb.SEARCH_MODE_DENSE: SearchMode.DENSE,
    pb.SEARCH_MODE_KEYWORD: SearchMode.KEYWORD,
}
_STRATEGIES = {
    pb.CHUNKING_STRATEGY_UNSPECIFIED: ChunkingStrategy.TOKENS,
    pb.CHUNKING_STRATEGY_TOKENS: ChunkingStrategy.TOKENS,
    pb.CHUNKING_STRATEGY_SENTENCES: ChunkingStrategy.SENTENCES,
    pb.CHUNKING_STRATEGY_STRUCTURE: ChunkingStrategy.STRUCTURE,
}


def chunking_of(message: pb.Chunking, embedder_max_tokens: int) -> Chunking:
    """Chunking that the embedder can read.

    Raises:
        InvalidInput: naming the field that is wrong.
    """
    if message.by not in _STRATEGIES:
        raise InvalidInput(
            f"chunking.by is {message.by}, which is not a ChunkingStrategy", field="chunking.by"
        )
    return check_chunking(
        message.max_tokens, message.overlap_tokens, embedder_max_tokens, _STRATEGIES[message.by]
    )


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
    return Query(
        corpus=check_name(request.corpus, "corpus"),
        text=check_query(request.query),
        mode=_MODES[request.mode],
        k=check_k(request.k),
        alpha=check_alpha(request.alpha) if request.HasField("alpha") else DEFAULT_ALPHA,
        where=check_entries(request.filter, "filter"),
        expected_digest=request.expected_digest,
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
        metadata=dict(passage.metadata),
        title=passage.title,
    )
