"""The retriever's messages as values, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from tuneproof.data.items import Document
from tuneproof.retriever.v1 import retriever_pb2 as pb
from tuneproof.sdk.values import CorpusInfo, IngestResult, Passage, RejectedDocument
from tuneproof.servicekit.errors import InvalidInput
from tuneproof.servicekit.messages import value_from, value_of
from tuneproof.servicekit.status import error_of

_DOCUMENTS_PER_STREAM = 256
_BYTES_PER_STREAM = 4 * 2**20
_MOST_BYTES = 15 * 2**20
"""A document of more does not fit into a message of 16 MiB."""


def groups_of(
    documents: Iterable[Document], too_large: list[RejectedDocument]
) -> Iterator[list[pb.Document]]:
    """Documents in groups that fit into a message; what never can is put into `too_large`."""
    group: list[pb.Document] = []
    size = 0
    for document in documents:
        message = pb.Document(
            id=document.id, title=document.title, text=document.text, metadata=document.metadata
        )
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


def ingest_result(
    replies: Iterable[pb.IngestDocumentsResponse], too_large: Iterable[RejectedDocument]
) -> IngestResult:
    """What the replies to all groups say together."""
    replies, rejected = list(replies), list(too_large)
    rejected_count = len(rejected) + sum(reply.documents_rejected for reply in replies)
    for reply in replies:
        rejected += [RejectedDocument(r.document_id, error_of(r.status)) for r in reply.rejected]
    return IngestResult(
        added=sum(reply.documents_added for reply in replies),
        unchanged=sum(reply.documents_unchanged for reply in replies),
        passages_added=sum(reply.passages_added for reply in replies),
        rejected=tuple(rejected),
        rejected_count=rejected_count,
    )


def search_message(
    corpus: str,
    query: str,
    *,
    k: int,
    mode: str,
    alpha: float | None,
    expected_digest: str,
    only: Mapping[str, str] | None,
) -> pb.SearchRequest:
    """The message of a search.

    Raises:
        InvalidInput: for a mode that is not known.
    """
    return pb.SearchRequest(
        corpus=corpus,
        query=query,
        k=k,
        mode=value_of(pb.SearchMode, mode),
        alpha=alpha,
        expected_digest=expected_digest,
        filter=only,
    )


def passages_of(reply: pb.SearchResponse) -> list[Passage]:
    """What a search found, best first."""
    return [value_from(Passage, passage) for passage in reply.passages]


def corpus_of(corpus: pb.Corpus) -> CorpusInfo:
    """A corpus."""
    return value_from(
        CorpusInfo,
        corpus,
        embedder=corpus.embedder.id,
        embedder_digest=corpus.embedder.digest,
        dimension=corpus.embedder.dimension,
        documents=corpus.document_count,
        passages=corpus.passage_count,
    )
