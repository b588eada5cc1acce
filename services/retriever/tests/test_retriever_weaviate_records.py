"""Records on a real Weaviate server: renewals beside other changes, and other versions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tuneproof.servicekit.errors import Corrupted
from tuneproof_retriever.corpus import Corpus, CorpusState
from tuneproof_retriever.stores import weaviate_records
from tuneproof_retriever.stores.weaviate_records import Record
from tuneproof_retriever.stores.weaviate_store import WeaviateStore

WHILE_IT_WAITS = 0.5
"""Seconds in which a change would be written that does not wait for the renewal."""


@pytest.fixture
def renewing(
    weaviate_store: WeaviateStore, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], tuple[asyncio.Task[None], asyncio.Event, asyncio.Event]]:
    """Begins a renewal that has read the record and waits for a gate before it writes."""

    def begin() -> tuple[asyncio.Task[None], asyncio.Event, asyncio.Event]:
        records = weaviate_store._records
        get, read, gate = records.get, asyncio.Event(), asyncio.Event()

        async def slow(name: str) -> Record:
            record = await get(name)
            if not read.is_set():
                read.set()
                await gate.wait()
            return record

        monkeypatch.setattr(weaviate_records, "_RENEWAL", timedelta(0))  # each renewal writes
        monkeypatch.setattr(records, "get", slow)
        return asyncio.create_task(records._renew("tiny")), read, gate

    return begin


async def test_a_renewal_does_not_undo_a_freeze(
    weaviate_store: WeaviateStore, tiny_corpus: Corpus, renewing: Callable[[], object]
) -> None:
    """A renewal wrote the open record that it had read, after the frozen one was saved."""
    await weaviate_store.create(tiny_corpus)
    await weaviate_store.claim("tiny")
    renewal, read, gate = renewing()
    await read.wait()
    frozen = replace(tiny_corpus, state=CorpusState.FROZEN, digest="sha256:" + "1" * 64)
    saving = asyncio.create_task(weaviate_store.save(frozen))
    await asyncio.wait([saving], timeout=WHILE_IT_WAITS)
    gate.set()
    await asyncio.gather(renewal, saving)
    assert (await weaviate_store.load("tiny")).state is CorpusState.FROZEN


async def test_a_renewal_does_not_take_a_released_claim_again(
    weaviate_store: WeaviateStore, tiny_corpus: Corpus, renewing: Callable[[], object]
) -> None:
    """It did, and went on for as long as the process lived."""
    await weaviate_store.create(tiny_corpus)
    await weaviate_store.claim("tiny")
    records = weaviate_store._records
    renewal, read, gate = renewing()
    await read.wait()
    releasing = asyncio.create_task(weaviate_store.release("tiny"))
    await asyncio.wait([releasing], timeout=WHILE_IT_WAITS)
    gate.set()
    await asyncio.gather(renewal, releasing)
    await records._renew("tiny")
    filler = (await records.get("tiny")).filler
    assert filler is not None
    assert filler.until <= datetime.now(UTC)


async def test_a_record_of_another_version_is_told_and_its_collection_stays(
    weaviate_store: WeaviateStore, tiny_corpus: Corpus
) -> None:
    """Creating a corpus of that name removed the collection."""
    await weaviate_store.create(tiny_corpus)
    async with weaviate_store._using("tiny") as collection:
        await collection.data.insert({"text": "kept"}, vector=[1, 0, 0, 0])
        await collection.config.update(description='{"corpus": {"name": "tiny"}, "version": 9}')
    for call in (weaviate_store.create(tiny_corpus), weaviate_store.load("tiny")):
        with pytest.raises(Corrupted, match="another version"):
            await call
    async with weaviate_store._using("tiny") as collection:
        assert (await collection.aggregate.over_all(total_count=True)).total_count == 1
    assert await weaviate_store.names() == ["tiny"]
    await weaviate_store.delete("tiny")
    assert await weaviate_store.names() == []
