"""Rare cases: hostile input, slow neighbours, damaged records, callers that have gone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError

from tuneproof.servicekit.errors import (
    InvalidInput,
    NotFound,
    Overloaded,
    Unavailable,
    WrongState,
)
from tuneproof_retriever import corpora as corpora_module
from tuneproof_retriever.chunking import cut
from tuneproof_retriever.corpus import Chunking, Corpus, Document, Hit, Vectors
from tuneproof_retriever.embedders.protocol import Offsets
from tuneproof_retriever.endpoint import Endpoint, Requests
from tuneproof_retriever.servicer import _deadline
from tuneproof_retriever.settings import RetrieverSettings
from tuneproof_retriever.stores.lance_store import LanceStore
from tuneproof_retriever.stores.protocol import Counts, VectorStore
from tuneproof_retriever.stores.word_stems import _stem, word_stems

from .house import CHUNKING, HashEmbedder, HashHouse, documents


class Recording(HashEmbedder):
    """Keeps the texts of which it was asked for the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def offsets(
        self, texts: Sequence[str], *, deadline: float | None = None
    ) -> list[Offsets]:
        self.asked += texts
        return await super().offsets(texts, deadline=deadline)


class Wrapped:
    """A real store of which a test replaces some calls."""

    def __init__(self, store: VectorStore) -> None:
        self.store = store
        self.outages = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.store, name)


async def test_documents_that_break_a_limit_are_rejected_before_their_tokens_are_asked_for(
    lance_store: LanceStore,
) -> None:
    embedder = Recording()
    house = HashHouse(lance_store, embedder=embedder)
    await house.corpora.create("c", CHUNKING, {})
    bad = [
        Document("blank", " \n"),
        Document("long", "x" * 10_000_001),
        Document("title", "text", title="t" * 4097),
        Document("i" * 100_000, "text"),
    ]
    report = await house.ingest("c", [*bad, Document("good", "a good text", title="t" * 4096)])
    assert (report.documents_added, report.documents_rejected) == (1, 4)
    fields = [error.field for _, error in report.rejected]
    assert fields == ["documents.text", "documents.text", "documents.title", "documents.id"]
    assert {"a good text", "t" * 4096 + "\n"} <= set(embedder.asked)
    assert not {" \n", "x" * 10_000_001, "text"} & set(embedder.asked)
    assert len(report.rejected[-1][0]) == 1024, "the report stays small"


async def test_a_document_that_the_model_s_server_refuses_is_rejected_by_itself(
    lance_store: LanceStore,
) -> None:
    class Refusing(HashEmbedder):
        async def embed_passages(
            self, texts: Sequence[str], *, deadline: float | None = None
        ) -> Vectors:
            if any("refused" in text for text in texts):
                raise InvalidInput("HTTP 413")
            return await super().embed_passages(texts, deadline=deadline)

    house = HashHouse(lance_store, embedder=Refusing())
    await house.corpora.create("c", CHUNKING, {})
    bad = [Document(f"bad-{number}", f"refused {number}") for number in range(2)]
    report = await house.ingest("c", [bad[0], *documents(9), bad[1]])
    assert report.documents_added == 9
    assert [(id_, error.message) for id_, error in report.rejected] == [
        ("bad-0", "HTTP 413"),
        ("bad-1", "HTTP 413"),
    ]
    only = await house.ingest("c", bad)
    assert (only.documents_added, only.documents_rejected) == (0, 2)
    assert (await house.corpora.freeze("c")).document_count == 9


async def test_a_corpus_whose_record_is_damaged_can_be_deleted(
    lance_store: LanceStore, tmp_path: Path
) -> None:
    """The message of a damaged record says so."""
    house = HashHouse(lance_store)
    await house.make("c", documents(3))
    (tmp_path / "corpora/c/corpus.json").write_text("{}")
    await house.corpora.delete("c")
    assert await house.corpora.names() == []
    with pytest.raises(NotFound):
        await house.corpora.delete("c")


async def test_a_change_that_fails_after_its_caller_has_gone_is_logged(
    lance_store: LanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[str] = []

    class Log:
        def error(self, _event: str, *, error: str) -> None:
            logged.append(error)

    monkeypatch.setattr(corpora_module, "_log", Log())
    house = HashHouse(lance_store)
    await house.corpora.create("c", CHUNKING, {})
    await house.ingest("c", documents(3))
    begun, gate = asyncio.Event(), asyncio.Event()

    async def full(corpus: Corpus) -> None:
        begun.set()
        await gate.wait()
        raise Unavailable("the disk is full")

    monkeypatch.setattr(lance_store, "save", full)
    freezing = asyncio.create_task(house.corpora.freeze("c"))
    await begun.wait()
    freezing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await freezing
    gate.set()
    await house.corpora.close()
    assert logged == ["the disk is full"]


async def test_a_corpus_that_another_process_took_meanwhile_is_not_frozen(
    lance_store: LanceStore,
) -> None:
    class Taken(Wrapped):
        turn = "first"

        async def claim(self, _name: str) -> str:
            return self.turn

        async def build_indexes(self, name: str) -> None:
            await self.store.build_indexes(name)
            self.turn = "second"

    house = HashHouse(Taken(lance_store))
    await house.corpora.create("c", CHUNKING, {})
    await house.ingest("c", documents(3))
    with pytest.raises(WrongState, match="another process while it was frozen"):
        await house.corpora.freeze("c")
    assert (await house.corpora.get("c")).state == "open"
    assert (await house.corpora.freeze("c")).document_count == 3


async def test_a_first_look_that_is_slow_does_not_hold_up_other_corpora(
    lance_store: LanceStore,
) -> None:
    for name in ("slow", "c"):
        await HashHouse(lance_store).make(name, documents(5))
    begun, gate = asyncio.Event(), asyncio.Event()

    class Slow(Wrapped):
        async def counts(self, name: str) -> Counts:
            if name == "slow":
                begun.set()
                await gate.wait()
            return await self.store.counts(name)

    house = HashHouse(Slow(lance_store))
    waiting = asyncio.create_task(house.find("slow", "own00003"))
    await begun.wait()
    async with asyncio.timeout(10):
        assert (await house.find("c", "own00003"))[0] == "doc-3"
    gate.set()
    assert (await waiting)[0] == "doc-3"


async def test_a_first_look_that_fails_in_an_unknown_way_is_repeated(
    lance_store: LanceStore,
) -> None:
    await HashHouse(lance_store).make("c", documents(5))

    class Failing(Wrapped):
        failures = 1

        async def searches_exactly(self, name: str) -> bool:
            if self.failures:
                self.failures -= 1
                raise KeyError("a library's own error")
            return bool(await self.store.searches_exactly(name))

    house = HashHouse(Failing(lance_store))
    with pytest.raises(KeyError):
        await house.find("c", "own00003")
    assert (await house.find("c", "own00003"))[0] == "doc-3"


async def test_a_request_that_finds_no_slot_is_refused_at_its_deadline() -> None:
    requests = Requests(Endpoint("TEI", "http://tei", concurrency=1), lambda error: error)
    begun, gate = asyncio.Event(), asyncio.Event()

    async def answer() -> bool:
        begun.set()
        return await gate.wait()

    first = asyncio.create_task(requests.send(answer))
    await begun.wait()
    clock = asyncio.get_running_loop().time
    async with asyncio.timeout(10):
        with pytest.raises(Overloaded, match="busy with 1 other requests"):
            await requests.send(answer, deadline=clock() + 0.05)
    gate.set()
    assert await first
    assert await requests.send(answer), "the slot is free again"


@pytest.mark.parametrize(("seconds", "left"), [(10.0, 9.8), (0.1, 0.09)])
async def test_a_short_deadline_leaves_time_for_a_search(seconds: float, left: float) -> None:
    class Context:
        def time_remaining(self) -> float:
            return seconds

    deadline = _deadline(Context())
    assert deadline is not None
    assert deadline - asyncio.get_running_loop().time() == pytest.approx(left, abs=0.005)


class Words:
    """A tokenizer with a token for each word."""

    def offsets(self, text: str) -> Offsets:
        return [match.span() for match in re.finditer(r"\S+", text)]


def test_a_long_row_of_marks_is_cut_in_linear_time() -> None:
    """Looking for sentence ends held the interpreter for hours: the test's time limit notices."""
    rows = ["." * 1_000_000 + "x", "?!" * 500_000 + "x", ".'" * 500_000 + "x"]
    text = "A start. " + " ".join(rows) + ' "It ends?!" Then more.'
    spans = cut(text, Words(), Chunking(4))
    assert [text[span.start : span.end][-9:] for span in spans][-1] == "hen more."
    assert text[spans[0].start : spans[0].end] == "A start."


async def test_lookups_end_with_the_proof_that_fails(lance_store: LanceStore) -> None:
    asked = 0

    class Away(Wrapped):
        async def keyword(
            self, name: str, words: str, limit: int, where: Mapping[str, str]
        ) -> list[Hit]:
            nonlocal asked
            asked += 1
            await asyncio.sleep(0)
            raise Unavailable("the store is away")

    house = HashHouse(Away(lance_store), proof_passages=100)
    await house.corpora.create("c", CHUNKING, {})
    await house.ingest("c", documents(60))
    with pytest.raises(Unavailable, match="the store is away"):
        await house.corpora.freeze("c")
    before = asked
    for _ in range(100):
        await asyncio.sleep(0)
    assert asked == before < 60


def test_words_that_no_index_holds_do_not_fill_the_cache() -> None:
    word_stems("relay")
    before = _stem.cache_info().currsize
    assert word_stems(" ".join(letter * 100_000 for letter in "abcdef")) == ""
    assert _stem.cache_info().currsize == before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"reranker_url": "http://a"}, "reranker_url is for the reranker tei"),
        ({"reranker": "m/x", "reranker_url": "http://a"}, "reranker_url is for the reranker tei"),
        ({"embedder_model": "a"}, "embedder_model is for the embedder tei or openai"),
        ({"embedder_query_prompt": "query: "}, "embedder_query_prompt is for"),
        (
            {"embedder": "tei", "embedder_url": "http://a", "embedder_tokenizer": "./a"},
            "embedder_tokenizer is for the embedder openai",
        ),
        ({"embedder_max_tokens": 512}, "embedder_max_tokens is for the embedder openai"),
        (
            {"embedder": "tei"},
            r"needs embedder_url, an http:// or https:// URL; the folder is ./tei",
        ),
        ({"weaviate_url": "http://user:secret@weaviate:8080"}, "it must be http://host:port"),
        ({"weaviate_url": "http://weaviate:8080?key=1"}, "it must be http://host:port"),
        ({"weaviate_url": "http://weaviate:99999"}, "it must be http://host:port"),
    ],
)
def test_settings_that_would_be_ignored_or_shown_are_refused(
    settings: dict[str, object], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tei").mkdir()
    with pytest.raises(ValidationError, match=words):
        RetrieverSettings(**settings)
