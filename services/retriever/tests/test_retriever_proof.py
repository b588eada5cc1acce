"""What freezing proves, and what a first search notices."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tuneproof.servicekit.errors import Corrupted
from tuneproof_retriever.corpus import Candidate, Document, Proof, Vector
from tuneproof_retriever.own_words import WordCounts
from tuneproof_retriever.searching import SearchMode
from tuneproof_retriever.stores.lance_store import LanceStore
from tuneproof_retriever.stores.protocol import VectorStore

from .house import CHUNKING, HashHouse, documents

pytestmark = pytest.mark.long


class Holes:
    """A real store whose indexes lack some passages until they are mended."""

    def __init__(self, store: VectorStore, *, deaf: bool = False) -> None:
        self.store = store
        self.outages = 0
        self.by_vector: set[str] = set()
        self.by_words: set[str] = set()
        self.mended: list[str] = []
        self._deaf = deaf

    def __getattr__(self, name: str) -> object:
        return getattr(self.store, name)

    async def searches_exactly(self, name: str) -> bool:
        return False

    async def dense(
        self,
        name: str,
        vector: Vector,
        limit: int,
        where: Mapping[str, str],
        *,
        whole: bool = False,
    ) -> list[Candidate]:
        hits = await self.store.dense(name, vector, limit + len(self.by_vector), where, whole=whole)
        return [hit for hit in hits if hit.id not in self.by_vector][:limit]

    async def keyword(
        self,
        name: str,
        words: str,
        limit: int,
        where: Mapping[str, str],
        *,
        whole: bool = False,
    ) -> list[Candidate]:
        hits = await self.store.keyword(name, words, limit + len(self.by_words), where, whole=whole)
        return [hit for hit in hits if hit.id not in self.by_words][:limit]

    async def mend(self, name: str, ids: list[str]) -> None:
        self.mended += ids
        if not self._deaf:
            self.by_vector -= set(ids)
            self.by_words -= set(ids)


async def ids_of(store: VectorStore, name: str) -> list[str]:
    return [stored.passage.id async for batch in store.scan(name) for stored in batch]


async def test_an_undisturbed_import_is_proved_by_a_sample(store: VectorStore) -> None:
    house = HashHouse(store, proof_passages=7)
    frozen = await house.make("c", documents(40))
    assert frozen.proof == Proof(passages_checked=7, passages_mended=0)
    assert (await house.corpora.get("c")).proof == frozen.proof


async def test_an_import_that_another_process_began_is_proved_whole(store: VectorStore) -> None:
    house = HashHouse(store, proof_passages=7)
    await house.corpora.create("c", CHUNKING, {})
    await house.ingest("c", documents(20))
    await store.release("c")
    again = HashHouse(store, proof_passages=7)
    await again.ingest("c", documents(40))
    assert (await again.corpora.freeze("c")).proof == Proof(40, 0)


async def test_an_outage_during_an_import_makes_the_proof_whole(lance_store: LanceStore) -> None:
    holes = Holes(lance_store)
    house = HashHouse(holes, proof_passages=7)
    await house.corpora.create("c", CHUNKING, {})
    await house.ingest("c", documents(40))
    holes.outages += 1
    assert (await house.corpora.freeze("c")).proof == Proof(40, 0)


@pytest.mark.parametrize("index", ["by_vector", "by_words"])
async def test_passages_that_an_index_lacks_are_mended(lance_store: LanceStore, index: str) -> None:
    holes = Holes(lance_store)
    house = HashHouse(holes, proof_passages=40)
    await house.corpora.create("c", CHUNKING, {})
    await house.ingest("c", documents(40))
    lost = (await ids_of(lance_store, "c"))[3:6]
    getattr(holes, index).update(lost)
    frozen = await house.corpora.freeze("c")
    assert holes.mended == lost
    assert frozen.proof == Proof(40, 3)


async def test_a_hole_that_the_sample_meets_makes_the_proof_whole(lance_store: LanceStore) -> None:
    holes = Holes(lance_store)
    house = HashHouse(holes, proof_passages=10)
    await house.corpora.create("c", CHUNKING, {})
    await house.ingest("c", documents(40))
    lost = (await ids_of(lance_store, "c"))[:35]
    holes.by_vector.update(lost)
    frozen = await house.corpora.freeze("c")
    assert sorted(holes.mended) == lost
    assert frozen.proof == Proof(40, 35)


async def test_mending_that_takes_others_out_goes_on_while_they_become_fewer(
    lance_store: LanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    holes = Holes(lance_store)
    house = HashHouse(holes, proof_passages=40)
    await house.corpora.create("c", CHUNKING, {})
    await house.ingest("c", documents(40))
    ids = await ids_of(lance_store, "c")
    lost = iter((ids[9:20], ids[20:35], ids[:9], ids[:5], ids[1:4], ids[7:8]))
    holes.by_vector.update(next(lost))
    mend = holes.mend

    async def mend_and_take_out(name: str, some: list[str]) -> None:
        await mend(name, some)
        holes.by_vector.update(next(lost, ()))

    monkeypatch.setattr(holes, "mend", mend_and_take_out)
    frozen = await house.corpora.freeze("c")
    assert frozen.proof == Proof(40, 35)


async def test_what_cannot_be_mended_is_not_frozen(lance_store: LanceStore) -> None:
    holes = Holes(lance_store, deaf=True)
    house = HashHouse(holes, proof_passages=40)
    await house.corpora.create("c", CHUNKING, {})
    await house.ingest("c", documents(40))
    holes.by_words.add((await ids_of(lance_store, "c"))[0])
    with pytest.raises(Corrupted, match="1 passages of corpus 'c' cannot be found"):
        await house.corpora.freeze("c")
    assert (await house.corpora.get("c")).state == "open"


async def test_equal_texts_and_texts_without_words_of_their_own_are_proved(
    store: VectorStore,
) -> None:
    texts = ["gain gain"] * 30 + ["the", "?!", "\u65e5\u672c" * 9, "what is it", "being others"]
    same = [Document(f"d{number}", text) for number, text in enumerate(texts)]
    frozen = await HashHouse(store, proof_passages=100).make("c", same)
    assert frozen.proof == Proof(len(texts), 0)


async def test_the_rarest_words_are_a_passages_own(store: VectorStore) -> None:
    await HashHouse(store).make("c", documents(40))
    words = WordCounts()
    async for _ in words.counting(store.scan("c")):
        pass
    assert words.rarest("the relay own00007 holds 7 contacts").split()[0] == "own00007"
    assert words.rarest("is it the others being ?!") == ""


async def test_a_passage_that_vanished_is_noticed_at_the_first_search(store: VectorStore) -> None:
    await HashHouse(store).make("c", documents(30))
    await remove_one(store, (await ids_of(store, "c"))[4])
    house = HashHouse(store)
    for mode in SearchMode:
        with pytest.raises(Corrupted, match="29 passages, not 30 and 30"):
            await house.find("c", "relay", mode)


async def test_a_text_that_changed_is_noticed_at_the_first_search(lance_store: LanceStore) -> None:
    await HashHouse(lance_store).make("c", documents(30))
    table = await lance_store._table("c")
    await table.update({"title": "changed"}, where="document_id = 'doc-9'")
    with pytest.raises(Corrupted, match="digest"):
        await HashHouse(lance_store).find("c", "relay")


async def test_an_index_that_lost_passages_is_noticed_at_the_first_search(
    lance_store: LanceStore,
) -> None:
    await HashHouse(lance_store).make("c", documents(30))
    holes = Holes(lance_store)
    holes.by_words.update(await ids_of(lance_store, "c"))
    house = HashHouse(holes)
    with pytest.raises(Corrupted, match="not found by their own vector or words"):
        await house.find("c", "relay")
    holes.by_words.clear()
    assert await house.find("c", "own00003"), "what was restored is served again"


async def test_a_corpus_that_is_whole_is_read_once(
    store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await HashHouse(store).make("c", documents(30))
    house = HashHouse(store)
    assert (await house.find("c", "own00011"))[0] == "doc-11"

    def never(name: str) -> object:
        raise AssertionError("read again")

    monkeypatch.setattr(store, "scan", never)
    assert (await house.find("c", "own00012"))[0] == "doc-12"


async def remove_one(store: VectorStore, id_: str) -> None:
    """Behind the retriever's back."""
    if isinstance(store, LanceStore):
        await (await store._table("c")).delete(f"id = '{id_}'")
        return
    async with store._using("c") as collection:
        assert await collection.data.delete_by_id(id_)
