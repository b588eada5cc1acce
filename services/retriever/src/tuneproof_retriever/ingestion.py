"""Documents on their way into a corpus: cut, embedded, stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from prometheus_client import Counter

from tuneproof.servicekit.errors import AlreadyExists, InvalidInput, TuneproofError
from tuneproof.servicekit.timing import Stages
from tuneproof_retriever.chunking import Tokens, cut
from tuneproof_retriever.corpora import Corpora, Ledger
from tuneproof_retriever.corpus import (
    Chunking,
    Document,
    Passage,
    PreparedDocument,
    passage_of,
)
from tuneproof_retriever.embedders.protocol import Embedder, Offsets, check_vectors
from tuneproof_retriever.limits import (
    MAX_PASSAGES_PER_DOCUMENT,
    MAX_REJECTED_LISTED,
    check_document,
)
from tuneproof_retriever.stores.protocol import VectorStore
from tuneproof_retriever.token_offsets import groups, offsets_of

_MOST_OF_AN_ID = 1024
"""Characters of a rejected document's id that the report keeps."""
_PASSAGES = Counter("tuneproof_retriever_passages_added", "Passages that were stored.")


@dataclass
class IngestReport:
    """What became of the documents of one stream."""

    documents_added: int = 0
    documents_unchanged: int = 0
    passages_added: int = 0
    documents_rejected: int = 0
    rejected: list[tuple[str, TuneproofError]] = field(default_factory=list)
    """The first ones, each with the reason."""

    def reject(self, document_id: str, error: TuneproofError) -> None:
        """Counts a document that cannot be stored."""
        self.documents_rejected += 1
        if len(self.rejected) < MAX_REJECTED_LISTED:
            self.rejected.append((document_id[:_MOST_OF_AN_ID], error))


@dataclass(frozen=True)
class _Cut:
    id: str
    digest: str
    passages: tuple[Passage, ...]


class _Tokens:
    """`Tokens` of an embedder, for code that runs on a thread.

    Args:
        known: offsets by text; the embedder is asked for other texts, as parts of an overlong word.
    """

    def __init__(
        self, known: Mapping[str, Offsets], embedder: Embedder, deadline: float | None
    ) -> None:
        self._known = known
        self._embedder = embedder
        self._deadline = deadline
        self._loop = asyncio.get_running_loop()

    def offsets(self, text: str) -> Offsets:
        if text in self._known:
            return self._known[text]
        asked = self._embedder.offsets([text], deadline=self._deadline)
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result()[0]


class Ingestion:
    """Takes documents into open corpora."""

    def __init__(
        self, corpora: Corpora, store: VectorStore, embedder: Embedder, *, write_passages: int
    ) -> None:
        """
        Args:
            write_passages: passages that are gathered before they are written, in whole documents.
        """
        self._corpora = corpora
        self._store = store
        self._embedder = embedder
        self._write_passages = write_passages

    async def run(
        self,
        name: str,
        batches: AsyncIterator[Sequence[Document]],
        stages: Stages,
        *,
        deadline: float | None = None,
    ) -> IngestReport:
        """Stores what a stream of documents brings.

        A document that cannot be stored is rejected by itself. When the stream breaks, whole
        documents are stored or not, and the same stream may be sent again.

        Args:
            deadline: of the embedder's attempts; see `Embedder`.

        Raises:
            NotFound: when there is no such corpus.
            WrongState: when the corpus is frozen, or was made with another embedder.
            Unavailable: while another retriever fills it.
        """
        async with self._corpora.taking(name) as ledger:
            return await self._take(ledger, batches, stages, deadline)

    async def _take(
        self,
        ledger: Ledger,
        batches: AsyncIterator[Sequence[Document]],
        stages: Stages,
        deadline: float | None,
    ) -> IngestReport:
        report = IngestReport()
        taken: dict[str, str] = {}
        waiting: list[_Cut] = []
        passages = 0
        async for documents in batches:
            with stages.measure("chunk"):
                new = self._unknown(documents, ledger, taken, report)
                cuts = await self._cut_all(new, ledger.corpus.chunking, deadline)
            for document, outcome in zip(new, cuts, strict=True):
                if isinstance(outcome, TuneproofError):
                    taken.pop(document.id, None)
                    report.reject(document.id, outcome)
                    continue
                waiting.append(outcome)
                passages += len(outcome.passages)
                if passages >= self._write_passages:
                    await self._write(waiting, ledger, report, stages, deadline)
                    waiting, passages = [], 0
        if waiting:
            await self._write(waiting, ledger, report, stages, deadline)
        return report

    def _unknown(
        self,
        documents: Sequence[Document],
        ledger: Ledger,
        taken: dict[str, str],
        report: IngestReport,
    ) -> list[Document]:
        """Documents that neither the corpus nor this stream has; they become taken.

        Those that break a limit are rejected before they cost a digest or a tokenizer's work: a
        server may refuse a request that has one, and all documents with it.
        """
        new = []
        for document in documents:
            try:
                check_document(document)
            except InvalidInput as error:
                report.reject(document.id, error)
                continue
            held = taken.get(document.id) or ledger.documents.get(document.id)
            if held is None:
                taken[document.id] = document.digest
                new.append(document)
            else:
                _count_known(document.id, held, document.digest, report)
        return new

    async def _cut_all(
        self, documents: Sequence[Document], chunking: Chunking, deadline: float | None
    ) -> list[_Cut | TuneproofError]:
        outcomes: list[_Cut | TuneproofError] = []
        for group in groups(documents, lambda each: len(each.text) + len(each.title)):
            texts = [text for each in group for text in (each.text, _title_line(each)) if text]
            known = await offsets_of(self._embedder, texts, deadline=deadline)
            tokens = _Tokens(dict(zip(texts, known, strict=True)), self._embedder, deadline)
            cuts = await asyncio.to_thread(self._cut_group, group, chunking, tokens)
            outcomes += await self._refuse_too_long(cuts, deadline)
        return outcomes

    def _cut_group(
        self, documents: Sequence[Document], chunking: Chunking, tokens: Tokens
    ) -> list[_Cut | TuneproofError]:
        outcomes: list[_Cut | TuneproofError] = []
        for document in documents:
            try:
                passages = tuple(self._passages(document, chunking, tokens))
            except TuneproofError as error:
                outcomes.append(error)
            else:
                outcomes.append(_Cut(document.id, document.digest, passages))
        return outcomes

    def _passages(self, document: Document, chunking: Chunking, tokens: Tokens) -> list[Passage]:
        limit = self._embedder.identity.max_tokens
        title_tokens = len(tokens.offsets(_title_line(document))) if document.title else 0
        # The title is embedded with every passage, so it takes its room from the window.
        room = min(chunking.max_tokens, limit - title_tokens)
        if room <= chunking.overlap_tokens or room < 1:
            raise InvalidInput(
                f"document {document.id!r} has a title of {title_tokens} tokens, which leaves no"
                f" room for text in the {limit} that the embedder reads; shorten the title",
                field="documents.title",
            )
        most = MAX_PASSAGES_PER_DOCUMENT
        spans = cut(document.text, tokens, replace(chunking, max_tokens=room), most + 1)
        if len(spans) > most:
            raise InvalidInput(
                f"document {document.id!r} makes more than {most:,} passages; divide it, or cut it"
                " by tokens",
                field="documents.text",
            )
        if not spans:
            raise InvalidInput(
                f"document {document.id!r} has no character that the embedder reads; leave it out",
                field="documents.text",
            )
        return [passage_of(document, span.start, span.end) for span in spans]

    async def _refuse_too_long(
        self, cuts: Sequence[_Cut | TuneproofError], deadline: float | None
    ) -> list[_Cut | TuneproofError]:
        """The same, with an error for each document that the embedder cannot read whole."""
        limit = self._embedder.identity.max_tokens
        whole = [each for each in cuts if isinstance(each, _Cut)]
        texts = (passage.embedded_text for each in whole for passage in each.passages)
        counts: list[int] = []
        for group in groups(texts, len):
            found = await offsets_of(self._embedder, group, deadline=deadline)
            counts += map(len, found)
        numbers = iter(counts)
        outcomes = list(cuts)
        for place, each in enumerate(cuts):
            if isinstance(each, TuneproofError):
                continue
            for passage in each.passages:
                # A piece of an overlong word may have more tokens than any rule foretells.
                tokens = next(numbers)
                if tokens > limit and isinstance(outcomes[place], _Cut):
                    outcomes[place] = InvalidInput(
                        f"document {each.id!r} has {tokens} tokens at offset {passage.start},"
                        f" more than the {limit} that the embedder reads; set a smaller"
                        " chunking.max_tokens or break the long word there",
                        field="documents.text",
                    )
        return outcomes

    async def _write(
        self,
        cuts: Sequence[_Cut],
        ledger: Ledger,
        report: IngestReport,
        stages: Stages,
        deadline: float | None,
    ) -> None:
        with stages.measure("embed"):
            prepared = await self._embed(cuts, report, deadline)
        with stages.measure("store"):
            await self._corpora.to_the_end(self._store_new(prepared, ledger, report))

    async def _embed(
        self, cuts: Sequence[_Cut], report: IngestReport, deadline: float | None
    ) -> list[PreparedDocument]:
        texts = [passage.embedded_text for each in cuts for passage in each.passages]
        try:
            vectors = await self._embedder.embed_passages(texts, deadline=deadline)
        except InvalidInput as error:
            if len(cuts) == 1:
                report.reject(cuts[0].id, error)
                return []
            # A server refuses all texts for the sake of one; halves find its document.
            middle = len(cuts) // 2
            before = await self._embed(cuts[:middle], report, deadline)
            return before + await self._embed(cuts[middle:], report, deadline)
        check_vectors(vectors, self._embedder.identity, len(texts))
        prepared, row = [], 0
        for each in cuts:
            rows = vectors[row : row + len(each.passages)]
            prepared.append(PreparedDocument(each.id, each.digest, each.passages, rows))
            row += len(each.passages)
        return prepared

    async def _store_new(
        self, prepared: Sequence[PreparedDocument], ledger: Ledger, report: IngestReport
    ) -> None:
        async with self._corpora.filling(ledger):
            new = []
            for document in prepared:
                # Another stream may have brought it meanwhile.
                held = ledger.documents.get(document.id)
                if held is None:
                    new.append(document)
                else:
                    _count_known(document.id, held, document.digest, report)
            if not new:
                return
            await self._store.add(ledger.corpus.name, new)
            ledger.documents.update({document.id: document.digest for document in new})
        passages = sum(len(document.passages) for document in new)
        report.documents_added += len(new)
        report.passages_added += passages
        _PASSAGES.inc(passages)


def _title_line(document: Document) -> str:
    return f"{document.title}\n" if document.title else ""


def _count_known(document_id: str, held: str, offered: str, report: IngestReport) -> None:
    if held == offered:
        report.documents_unchanged += 1
        return
    report.reject(
        document_id,
        AlreadyExists(
            f"document {document_id!r} is in the corpus with other content; give it another id, or"
            " create a new corpus",
            document_id=document_id,
        ),
    )
