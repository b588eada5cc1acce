"""Filling, freezing and searching, with the real store and the real embedder."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from tuneproof.servicekit.errors import Corrupted, NotFound, Unavailable, WrongState
from tuneproof.servicekit.timing import Stages
from tuneproof_retriever.corpora import Corpora
from tuneproof_retriever.corpus import (
    Chunking,
    ChunkingStrategy,
    Corpus,
    Document,
    PreparedDocument,
    passage_of,
)
from tuneproof_retriever.embedders.sentence_embedder import SentenceEmbedder
from tuneproof_retriever.freezing import read_content
from tuneproof_retriever.ingestion import Ingestion, IngestReport
from tuneproof_retriever.searching import Query, Searcher, SearchMode
from tuneproof_retriever.stores.lance_store import LanceStore
from tuneproof_retriever.stores.protocol import StoredPassage, VectorStore

pytestmark = pytest.mark.long

DOCUMENTS = [
    Document(
        f"doc-{number}",
        f"The Alder {number} transmits {number + 20} dBm. It weighs {number} kg. " * 4,
        title=f"Alder {number}",
        metadata={"series": "Alder", "even": str(number % 2 == 0)},
    )
    for number in range(12)
]


class House:
    """The domain's parts on one store."""

    def __init__(self, store: VectorStore, embedder: SentenceEmbedder) -> None:
        self.store = store
        self.embedder = embedder
        self.corpora = Corpora(store, embedder.identity)
        self.ingestion = Ingestion(self.corpora, store, embedder, write_passages=5)
        self.searcher = Searcher(self.corpora, store, embedder)

    async def ingest(self, name: str, documents: Sequence[Document]) -> IngestReport:
        async def stream() -> AsyncIterator[Sequence[Document]]:
            for first in range(0, len(documents), 3):
                yield documents[first : first + 3]

        return await self.ingestion.run(name, stream(), Stages())

    async def make(self, name: str, documents: Sequence[Document] = DOCUMENTS) -> Corpus:
        await self.corpora.create(name, Chunking(24, 4), {})
        await self.ingest(name, documents)
        return await self.corpora.freeze(name)

    async def find(self, name: str, text: str, mode: SearchMode, k: int = 5) -> list[str]:
        query = Query(name, text, mode, k, 0.5)
        found = await self.searcher.search(query, Stages())
        return [hit.passage.document_id for hit in found.hits]


@pytest.fixture
def house(store: LanceStore, embedder: SentenceEmbedder) -> House:
    return House(store, embedder)


async def test_the_digest_is_of_the_content_not_of_the_way(house: House) -> None:
    whole = await house.make("whole")
    assert whole.document_count == 12
    assert whole.passage_count == (await house.store.counts("whole")).passages > 24
    await house.corpora.create("parts", Chunking(24, 4), {})
    await house.ingest("parts", DOCUMENTS[7:])
    await house.ingest("parts", DOCUMENTS[::-1])
    assert (await house.corpora.freeze("parts")).digest == whole.digest
    assert (await house.make("less", DOCUMENTS[:-1])).digest != whole.digest
    other = replace(DOCUMENTS[0], metadata={})
    assert (await house.make("other", [other, *DOCUMENTS[1:]])).digest != whole.digest
    await house.corpora.create("coarse", Chunking(200), {})
    await house.ingest("coarse", DOCUMENTS)
    assert (await house.corpora.freeze("coarse")).digest != whole.digest


async def test_the_digest_holds_embedder_and_chunking(tiny_corpus: Corpus) -> None:
    document = Document("d", "word " * 30)

    async def passages() -> AsyncIterator[list[StoredPassage]]:
        yield [StoredPassage(passage_of(document, 0, 9), 0, 1)]

    identity = replace(tiny_corpus.embedder, digest="sha256:" + "1" * 64)
    variants = [
        tiny_corpus,
        replace(tiny_corpus, embedder=identity),
        replace(tiny_corpus, chunking=Chunking(100, 1)),
        replace(tiny_corpus, chunking=Chunking(100, 0, ChunkingStrategy.SENTENCES)),
    ]
    digests = {(await read_content(variant, passages())).digest for variant in variants}
    assert len(digests) == 4
    renamed = replace(tiny_corpus, name="x", labels={}, embedder=replace(identity, id="elsewhere"))
    assert (await read_content(renamed, passages())).digest in digests


async def test_the_digest_is_made_as_its_documentation_says(tiny_corpus: Corpus) -> None:
    document = Document("d", 'Gr\u00fc\u00dfe, "you"', title="T", metadata={"b": "2", "a": "1"})
    passage = passage_of(document, 0, 5)
    assert passage.id == "e4467dee-6645-5eff-919e-a09d64cb1764"

    async def passages() -> AsyncIterator[list[StoredPassage]]:
        yield [StoredPassage(passage, 0, 1)]

    lines = (
        f'["tuneproof corpus 1","{tiny_corpus.embedder.digest}",'
        '{"max_tokens":100,"overlap_tokens":0}]\n'
        f'["{passage.id}","d",0,5,"T","Gr\u00fc\u00dfe",{{"a":"1","b":"2"}}]\n'
    )
    # Corpora that exist must keep their digests in every later version.
    expected = f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
    assert (await read_content(tiny_corpus, passages())).digest == expected


@pytest.mark.parametrize(
    ("places", "message"),
    [([(0, 2)], "lacks passages"), ([(1, 2)], "lacks passages"), ([(0, 1), (0, 1)], "twice")],
)
async def test_a_corpus_that_is_not_whole_is_not_frozen(
    tiny_corpus: Corpus, places: list[tuple[int, int]], message: str
) -> None:
    passage = passage_of(Document("d", "some text"), 0, 9)

    async def passages() -> AsyncIterator[list[StoredPassage]]:
        yield [StoredPassage(passage, ordinal, siblings) for ordinal, siblings in places]

    with pytest.raises(Corrupted, match=message):
        await read_content(tiny_corpus, passages())


async def test_sent_again_stores_nothing_and_changed_content_is_refused(house: House) -> None:
    await house.corpora.create("c", Chunking(24), {})
    first = await house.ingest("c", DOCUMENTS)
    assert (first.documents_added, first.documents_unchanged) == (12, 0)
    assert first.passages_added == (await house.store.counts("c")).passages
    changed = replace(DOCUMENTS[3], title="Birch")
    twice = Document("new", "Once. Twice.")
    report = await house.ingest("c", [*DOCUMENTS[:3], changed, twice, twice])
    assert (report.documents_added, report.documents_unchanged) == (1, 4)
    assert [(id_, type(error).__name__) for id_, error in report.rejected] == [
        ("doc-3", "AlreadyExists")
    ]
    assert (await house.store.counts("c")).documents == 13


async def test_passages_keep_offsets_title_and_metadata(house: House) -> None:
    await house.corpora.create("c", Chunking(24, 4), {})
    await house.ingest("c", DOCUMENTS)
    texts = {document.id: document for document in DOCUMENTS}
    async for batch in house.store.scan("c"):
        for stored in batch:
            passage, document = stored.passage, texts[stored.passage.document_id]
            assert passage.text == document.text[passage.start : passage.end]
            assert passage.title == document.title
            assert passage.metadata == document.metadata
            [tokens] = await house.embedder.offsets([passage.text])
            assert len(tokens) <= 24


async def test_a_long_title_takes_room_and_a_longer_one_is_rejected(house: House) -> None:
    await house.corpora.create("c", Chunking(254), {})
    text = "word " * 400
    long = Document("long", text, title="title " * 200)
    longer = Document("longer", text, title="title " * 260)
    report = await house.ingest("c", [long, longer])
    assert report.documents_added == 1
    assert [(id_, error.field) for id_, error in report.rejected] == [("longer", "documents.title")]
    async for batch in house.store.scan("c"):
        for stored in batch:
            [tokens] = await house.embedder.offsets([stored.passage.embedded_text])
            assert len(tokens) <= house.embedder.identity.max_tokens


class Growing:
    """The real embedder, but a part has thrice the tokens alone that it has in its text."""

    def __init__(self, embedder: SentenceEmbedder) -> None:
        self.identity = replace(embedder.identity, max_tokens=20)
        self._embedder = embedder

    async def offsets(
        self, texts: Sequence[str], *, deadline: float | None = None
    ) -> list[list[tuple[int, int]]]:
        found = zip(texts, await self._embedder.offsets(texts, deadline=deadline), strict=True)
        return [
            [each for each in offsets for _ in range(1 if len(text) > 200 else 3)]
            for text, offsets in found
        ]


async def test_a_passage_that_outgrows_the_embedder_is_rejected_not_truncated(
    house: House,
) -> None:
    await house.corpora.create("c", Chunking(20), {})
    growing = Growing(house.embedder)
    house.ingestion = Ingestion(house.corpora, house.store, growing, write_passages=5)
    report = await house.ingest("c", [Document("d", "word " * 60)])
    assert report.documents_added == 0
    assert "60 tokens at offset 0" in report.rejected[0][1].message


async def test_a_write_under_way_ends_though_its_caller_has_gone(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = await house.make("whole")
    await house.corpora.create("c", Chunking(24, 4), {})
    write, begun, gate = house.store.add, asyncio.Event(), asyncio.Event()

    async def slow(name: str, documents: Sequence[PreparedDocument]) -> None:
        begun.set()
        await gate.wait()
        await write(name, documents)

    with monkeypatch.context() as patch:
        patch.setattr(house.store, "add", slow)
        gone = asyncio.create_task(house.ingest("c", DOCUMENTS))
        await begun.wait()
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        again = asyncio.create_task(house.ingest("c", DOCUMENTS))
        gate.set()
        report = await again
    await house.corpora.close()
    assert report.documents_unchanged > 0, "the first write was done"
    assert report.documents_added + report.documents_unchanged == len(DOCUMENTS)
    assert (await house.corpora.freeze("c")).digest == whole.digest


async def test_a_failed_write_is_told_and_the_stream_can_be_sent_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = await house.make("whole")
    await house.corpora.create("c", Chunking(24, 4), {})
    write, calls = house.store.add, []

    async def stored_but_failed(name: str, documents: object) -> None:
        calls.append(name)
        await write(name, documents)
        if len(calls) == 2:
            raise Unavailable("the answer was lost")

    monkeypatch.setattr(house.store, "add", stored_but_failed)
    with pytest.raises(Unavailable, match="lost"):
        await house.ingest("c", DOCUMENTS)
    await house.ingest("c", DOCUMENTS)
    assert (await house.corpora.freeze("c")).digest == whole.digest


async def test_a_freeze_that_fails_at_its_end_leaves_an_open_corpus(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = await house.make("whole")
    await house.corpora.create("c", Chunking(24, 4), {})
    await house.ingest("c", DOCUMENTS[:6])

    async def full(corpus: Corpus) -> None:
        raise Unavailable("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(house.store, "save", full)
        with pytest.raises(Unavailable, match="full"):
            await house.corpora.freeze("c")
    with pytest.raises(WrongState, match="freeze it"):
        await house.find("c", "Alder", SearchMode.KEYWORD)
    await house.ingest("c", DOCUMENTS)
    frozen = await house.corpora.freeze("c")
    assert frozen.digest == whole.digest
    assert await house.corpora.freeze("c") == frozen
    assert "doc-11" in await house.find("c", "Alder 11", SearchMode.KEYWORD)


async def test_a_frozen_or_deleted_corpus_ends_a_running_stream(house: House) -> None:
    for name, end, error in (
        ("frozen", house.corpora.freeze, WrongState),
        ("deleted", house.corpora.delete, NotFound),
    ):
        await house.corpora.create(name, Chunking(24), {})

        async def stream(name: str = name, end: object = end) -> AsyncIterator[list[Document]]:
            yield DOCUMENTS[:6]
            await end(name)
            yield DOCUMENTS[6:]

        with pytest.raises(error, match=name):
            await house.ingestion.run(name, stream(), Stages())
    assert (await house.corpora.get("frozen")).document_count == 6


async def test_documents_of_a_running_stream_do_not_enter_a_namesake(house: House) -> None:
    await house.corpora.create("c", Chunking(24), {})

    async def stream() -> AsyncIterator[list[Document]]:
        yield DOCUMENTS[:6]
        await house.corpora.delete("c")
        await house.corpora.create("c", Chunking(24), {})
        yield DOCUMENTS[6:]

    with pytest.raises(WrongState, match="another call"):
        await house.ingestion.run("c", stream(), Stages())
    assert (await house.corpora.get("c")).document_count == 0


async def test_two_streams_at_once_store_each_document_once(house: House) -> None:
    await house.corpora.create("c", Chunking(24), {})
    reports = await asyncio.gather(*(house.ingest("c", DOCUMENTS) for _ in range(3)))
    assert sum(report.documents_added for report in reports) == 12
    assert sum(report.documents_unchanged for report in reports) == 24
    frozen = await house.corpora.freeze("c")
    assert frozen.document_count == 12


async def test_another_embedder_neither_fills_nor_searches(house: House) -> None:
    await house.make("c")
    await house.corpora.create("open", Chunking(24), {})
    other = replace(house.embedder.identity, id="other", digest="sha256:" + "f" * 64)
    house.corpora = Corpora(house.store, other)
    house.ingestion = Ingestion(house.corpora, house.store, house.embedder, write_passages=5)
    house.searcher = Searcher(house.corpora, house.store, house.embedder)
    with pytest.raises(WrongState, match="embedder"):
        await house.ingest("open", DOCUMENTS)
    for mode in (SearchMode.DENSE, SearchMode.HYBRID):
        with pytest.raises(WrongState, match="embedder"):
            await house.find("c", "Alder", mode)
    assert await house.find("c", "Alder 3", SearchMode.KEYWORD)


async def test_searches_find_by_meaning_by_words_and_by_both(house: House) -> None:
    facts = {
        "heart": "The cardiac muscle pumps blood through the arteries of the body.",
        "radio": "The transmitter XK-4471 sends at forty watts.",
        "bread": "Dough rises because yeast makes carbon dioxide.",
        "law": "The contract ends when either party gives notice in writing.",
        "river": "Water flows downhill from the springs to the sea.",
    }
    await house.make("facts", [Document(id_, text) for id_, text in facts.items()])
    meaning = "Which organ moves fluid in people's veins?"
    assert (await house.find("facts", meaning, SearchMode.DENSE))[0] == "heart"
    assert await house.find("facts", "XK-4471?", SearchMode.KEYWORD) == ["radio"]
    for text, wanted in ((meaning, "heart"), ("power of XK-4471", "radio"), ("yeast", "bread")):
        assert (await house.find("facts", text, SearchMode.HYBRID))[0] == wanted


async def test_fewer_results_change_neither_scores_nor_order(house: House) -> None:
    await house.make("c")
    for mode in SearchMode:
        results = []
        for k in (3, 12):
            query = Query("c", "weight of the Alder 7 in kg", mode, k, 0.3)
            hits = (await house.searcher.search(query, Stages())).hits
            results.append([(hit.passage.id, hit.score) for hit in hits])
        assert len(results[1]) == 12
        assert results[0] == results[1][:3]
