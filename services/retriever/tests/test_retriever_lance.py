"""LanceDB's folders: crashes, damage, two processes, large corpora."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tuneproof.servicekit.errors import Corrupted, InvalidInput, NotFound, Unavailable
from tuneproof_retriever.corpus import Corpus, Document, PreparedDocument, passage_of
from tuneproof_retriever.stores import lance_memory
from tuneproof_retriever.stores.lance_store import LanceStore, open_lance_store


def one_passage_each(vectors: np.ndarray) -> list[PreparedDocument]:
    documents = []
    for number, vector in enumerate(vectors):
        document = Document(f"d{number}", f"text {number}")
        passage = passage_of(document, 0, len(document.text))
        documents.append(
            PreparedDocument(document.id, document.digest, (passage,), vector[np.newaxis])
        )
    return documents


async def test_a_folder_opened_again_has_what_it_had(tmp_path: Path, tiny_corpus: Corpus) -> None:
    documents = one_passage_each(np.eye(4, dtype=np.float32))
    async with open_lance_store(tmp_path / "s", ann_min_passages=1000) as store:
        await store.create(tiny_corpus)
        await store.add("tiny", documents)
        await store.build_indexes("tiny")
    async with open_lance_store(tmp_path / "s", ann_min_passages=1000) as store:
        assert await store.load("tiny") == tiny_corpus
        assert set(await store.documents("tiny")) == {"d0", "d1", "d2", "d3"}
        hits = await store.keyword("tiny", "2", 5, {}, whole=True)
        assert [hit.passage.document_id for hit in hits] == ["d2"]


async def test_what_interrupted_calls_left_is_no_corpus_and_goes(
    tmp_path: Path, tiny_corpus: Corpus
) -> None:
    root = tmp_path / "s"
    async with open_lance_store(root, ann_min_passages=1000) as store:
        await store.create(tiny_corpus)
    # As a process leaves them that dies while it creates or deletes.
    shutil.copytree(root / "tiny", root / ".new-1")
    shutil.copytree(root / "tiny", root / ".gone-1" / "other")
    async with open_lance_store(root, ann_min_passages=1000) as store:
        assert await store.names() == ["tiny"]
        assert sorted(path.name for path in root.iterdir()) == [".lock", "tiny"]


async def test_deleting_leaves_nothing_on_the_disk(
    lance_store: LanceStore, tiny_corpus: Corpus, tmp_path: Path
) -> None:
    await lance_store.create(tiny_corpus)
    await lance_store.add("tiny", one_passage_each(np.eye(4, dtype=np.float32)))
    await lance_store.delete("tiny")
    assert [path.name for path in (tmp_path / "corpora").iterdir()] == [".lock"]


async def test_a_folder_serves_one_retriever_at_a_time(
    lance_store: LanceStore, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="in use by another retriever"):
        async with open_lance_store(tmp_path / "corpora", ann_min_passages=1000):
            pass


async def test_a_file_in_the_folders_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="store_dir"):
        async with open_lance_store(tmp_path / "file", ann_min_passages=1000):
            pass


async def test_a_damaged_record_is_corrupted_and_no_other_corpus_suffers(
    lance_store: LanceStore, tiny_corpus: Corpus, tmp_path: Path
) -> None:
    await lance_store.create(tiny_corpus)
    await lance_store.create(replace(tiny_corpus, name="well"))
    (tmp_path / "corpora" / "tiny" / "corpus.json").write_text('{"name": "tiny"')
    with pytest.raises(Corrupted, match="tiny"):
        await lance_store.load("tiny")
    assert (await lance_store.load("well")).name == "well"


async def test_lost_data_files_are_corrupted_not_an_empty_answer(
    tmp_path: Path, tiny_corpus: Corpus
) -> None:
    root = tmp_path / "s"
    async with open_lance_store(root, ann_min_passages=1000) as store:
        await store.create(tiny_corpus)
        await store.add("tiny", one_passage_each(np.eye(4, dtype=np.float32)))
        await store.build_indexes("tiny")
    for file in (root / "tiny").rglob("*.lance"):
        if file.is_file() and file.parent.name == "data":
            file.unlink()
    async with open_lance_store(root, ann_min_passages=1000) as store:
        with pytest.raises(Corrupted, match="tiny"):
            await store.dense("tiny", np.eye(4, dtype=np.float32)[0], 3, {}, whole=True)


async def test_a_corpus_removed_behind_an_open_table_is_not_found(
    lance_store: LanceStore, tiny_corpus: Corpus, tmp_path: Path
) -> None:
    await lance_store.create(tiny_corpus)
    await lance_store.add("tiny", one_passage_each(np.eye(4, dtype=np.float32)))
    shutil.rmtree(tmp_path / "corpora" / "tiny")
    with pytest.raises(NotFound):
        await lance_store.documents("tiny")


async def test_a_store_whose_folder_is_gone_is_not_ready(
    lance_store: LanceStore, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "corpora")
    with pytest.raises(Unavailable, match="gone"):
        await lance_store.check_ready()


async def test_a_large_corpus_gets_a_vector_index_that_finds_the_neighbours(
    lance_store: LanceStore, tiny_corpus: Corpus, tmp_path: Path
) -> None:
    random = np.random.default_rng(5)
    vectors = random.normal(size=(1200, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    wide = replace(tiny_corpus, embedder=replace(tiny_corpus.embedder, dimension=16))
    for name, rows in (("large", 1200), ("small", 900)):
        await lance_store.create(replace(wide, name=name))
        await lance_store.add(name, one_passage_each(vectors[:rows]))
        await lance_store.build_indexes(name)
    assert _indexes(tmp_path / "corpora" / "large") == 2
    assert _indexes(tmp_path / "corpora" / "small") == 1
    found = wanted = 0
    for query in vectors[:50]:
        exact = {f"d{row}" for row in np.argsort(-(vectors @ query))[:10]}
        hits = await lance_store.dense("large", query, 10, {}, whole=True)
        found += len(exact & {hit.passage.document_id for hit in hits})
        wanted += 10
        assert hits[0].score == pytest.approx(1, abs=1e-5)
    assert found / wanted > 0.8


async def test_a_search_is_exact_or_not_by_the_index_that_the_corpus_has(
    tmp_path: Path, tiny_corpus: Corpus
) -> None:
    """It followed the setting, so a proof passed over an index that lacked passages."""
    vectors = np.random.default_rng(5).normal(size=(1200, 4)).astype(np.float32)
    for name, rows, smallest in (("indexed", 1200, 1000), ("flat", 1200, 2000)):
        async with open_lance_store(tmp_path / "s", ann_min_passages=smallest) as store:
            await store.create(replace(tiny_corpus, name=name))
            await store.add(name, one_passage_each(vectors[:rows]))
            await store.build_indexes(name)
    for smallest in (1000, 2000):
        async with open_lance_store(tmp_path / "s", ann_min_passages=smallest) as store:
            exact = {name: await store.searches_exactly(name) for name in ("indexed", "flat")}
            assert exact == {"indexed": False, "flat": True}


def _indexes(folder: Path) -> int:
    return len(list(folder.glob("*.lance/_indices/*")))


@pytest.mark.parametrize("memory_bytes", [0, 300, 2**20])
async def test_a_corpus_is_read_into_memory_once_or_not_at_all(
    tmp_path: Path, tiny_corpus: Corpus, memory_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    loaded = lance_memory._loaded
    monkeypatch.setattr(lance_memory, "_loaded", lambda *of: reads.append(of) or loaded(*of))
    root = tmp_path / "s"
    async with open_lance_store(root, ann_min_passages=1000, memory_bytes=memory_bytes) as store:
        await store.create(tiny_corpus)
        await store.add("tiny", one_passage_each(np.eye(4, dtype=np.float32)))
        await store.build_indexes("tiny")
        for _ in range(3):
            slim = await store.dense("tiny", np.eye(4, dtype=np.float32)[2], 2, {})
            assert (await store.passages("tiny", slim))[0].document_id == "d2"
    assert len(reads) == (memory_bytes > 0)


async def test_corpora_that_do_not_fit_together_do_not_displace_each_other(
    tmp_path: Path, tiny_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each search of the one read the other anew."""
    reads: list[int] = []
    loaded, now = lance_memory._loaded, 0.0
    monkeypatch.setattr(lance_memory, "_loaded", lambda *of: reads.append(1) or loaded(*of))
    monkeypatch.setattr(lance_memory, "monotonic", lambda: now)
    eye = np.eye(4, dtype=np.float32)
    async with open_lance_store(tmp_path / "s", ann_min_passages=1000) as store:
        for name in ("a", "b"):
            await store.create(replace(tiny_corpus, name=name))
            await store.add(name, one_passage_each(eye))
            await store.build_indexes(name)
        first = await store._loaded.get("a", await store._table("a"))
        assert first is not None
        store._loaded._most_bytes = first.bytes + first.bytes // 2
        reads.clear()

        async def find(name: str) -> None:
            hits = await store.dense(name, eye[2], 2, {}, whole=True)
            assert hits[0].passage.document_id == "d2"
            words = await store.keyword(name, "3", 2, {})
            assert (await store.passages(name, words))[0].document_id == "d3"

        for _ in range(4):
            await find("a")
            await find("b")
        assert len(reads) == 1, "b was read once, to learn its size; a stayed"
        assert list(store._loaded._kept) == ["a"]
        now += 60
        for _ in range(3):
            await find("b")
        assert len(reads) == 2, "a was not searched for a while, and made room"
        assert list(store._loaded._kept) == ["b"]
        await find("a")
        assert len(reads) == 2, "its size is known"
        assert list(store._loaded._kept) == ["b"]
