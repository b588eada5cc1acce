"""Texts of millions of tokens: the tokenizer gets them in parts, and the windows stay the same."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tuneproof_retriever import ingestion, token_offsets
from tuneproof_retriever.chunking import cut
from tuneproof_retriever.corpus import Chunking, ChunkingStrategy, Document
from tuneproof_retriever.embedders.model_folder import PACKAGED_MODEL, find_model
from tuneproof_retriever.embedders.protocol import Offsets
from tuneproof_retriever.stores.lance_store import LanceStore
from tuneproof_retriever.token_offsets import AT_ONCE, LongOffsets, offsets_of

from .house import HashEmbedder, HashHouse

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]


class Counting(HashEmbedder):
    """A token for each word; keeps how many characters each call brought."""

    def __init__(self) -> None:
        super().__init__()
        self.characters: list[int] = []

    async def offsets(
        self, texts: Sequence[str], *, deadline: float | None = None
    ) -> list[Offsets]:
        self.characters.append(sum(map(len, texts)))
        return await super().offsets(texts, deadline=deadline)


class Words:
    def offsets(self, text: str) -> Offsets:
        return [match.span() for match in re.finditer(r"\S+", text)]


class WordPieces(HashEmbedder):
    """The tokenizer of the packaged model."""

    def __init__(self) -> None:
        super().__init__()
        self._tokenizer = Tokenizer.from_file(str(find_model(PACKAGED_MODEL) / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    async def offsets(
        self, texts: Sequence[str], *, deadline: float | None = None
    ) -> list[Offsets]:
        del deadline
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.offsets for encoding in encodings]


PIECES = WordPieces()


@pytest.mark.parametrize("by", ChunkingStrategy)
async def test_the_tokenizer_never_gets_a_long_text_as_a_whole(
    lance_store: LanceStore, by: ChunkingStrategy
) -> None:
    embedder = Counting()
    house = HashHouse(lance_store, embedder=embedder, write_passages=1000)
    chunking = Chunking(90, 5, by)
    await house.corpora.create("c", chunking, {})
    paragraph = "x " * 20_000 + "x.\n\n"
    long = Document("long", paragraph * 12)
    report = await house.ingest("c", [Document("short", "x y"), long, Document("last", "z")])
    assert report.documents_added == 3
    assert max(embedder.characters) <= AT_ONCE < len(long.text)
    spans = [
        (each.passage.start, each.passage.end)
        async for batch in lance_store.scan("c")
        for each in batch
        if each.passage.document_id == "long"
    ]
    whole = cut(long.text, Words(), chunking)
    assert sorted(spans) == [(span.start, span.end) for span in whole]


async def test_a_document_makes_so_many_passages_and_no_more(
    lance_store: LanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingestion, "MAX_PASSAGES_PER_DOCUMENT", 3)
    house = HashHouse(lance_store)
    await house.corpora.create("c", Chunking(8, 0, ChunkingStrategy.SENTENCES), {})
    report = await house.ingest("c", [Document("few", "A. " * 3), Document("many", "A. " * 4)])
    [(rejected, error)] = report.rejected
    assert (rejected, report.passages_added) == ("many", 3)
    assert "document 'many' makes more than 3 passages; divide it" in str(error)


@given(
    text=st.lists(
        st.sampled_from(
            ["Radios", "3.5", "dBm,", "e.g.", "electro", "\u65e5\u672c", "a\n\nb", "  "]
        )
    ).map(" ".join)
)
@settings(max_examples=200)
def test_parts_have_the_tokens_of_the_whole(text: str) -> None:
    whole, short = asyncio.run(PIECES.offsets([text, "a short one"]))
    with patch.object(token_offsets, "AT_ONCE", 40):
        found = asyncio.run(offsets_of(PIECES, [text, "a short one"], deadline=None))
    assert [list(each) for each in found] == [list(whole), list(short)]


def test_a_text_without_white_space_is_cut_where_a_part_is_full() -> None:
    text = "\u65e5\u672c" * 100
    with patch.object(token_offsets, "AT_ONCE", 64):
        [found] = asyncio.run(offsets_of(PIECES, [text], deadline=None))
    assert list(found) == [(place, place + 1) for place in range(200)]


def test_offsets_of_a_long_text_are_a_sequence() -> None:
    found = LongOffsets()
    found.extend([(0, 2), (3, 4)], 0)
    found.extend([(0, 1)], 10)
    assert len(found) == 3
    assert (found[-1], found[:2]) == ((10, 11), [(0, 2), (3, 4)])
