"""What every vector store must do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tuneproof.servicekit.errors import NotFound
from tuneproof_retriever.corpus import (
    Corpus,
    CorpusState,
    Document,
    Passage,
    PreparedDocument,
    passage_of,
)
from tuneproof_retriever.stores.protocol import Counts, VectorStore

pytestmark = pytest.mark.long

STRANGE = 'it\'s "q" \\ % _ ; -- \x01 \u65e5\u672c \U0001f389'


def prepared(
    id_: str,
    texts: list[str],
    vectors: list[list[float]] | None = None,
    metadata: dict[str, str] | None = None,
) -> PreparedDocument:
    text = "\n".join(texts)
    document = Document(id_, text, title="T", metadata=metadata or {})
    passages, start = [], 0
    for part in texts:
        passages.append(passage_of(document, start, start + len(part)))
        start += len(part) + 1
    rows = np.asarray(vectors or [[1, 0, 0, 0]] * len(texts), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return PreparedDocument(id_, document.digest, tuple(passages), rows)


async def everything(store: VectorStore, name: str) -> list[Passage]:
    return [stored.passage async for batch in store.scan(name) for stored in batch]


async def test_a_record_comes_back_as_it_was_saved(store: VectorStore, tiny_corpus: Corpus) -> None:
    assert await store.create(tiny_corpus)
    assert await store.load("tiny") == tiny_corpus
    frozen = replace(
        tiny_corpus,
        state=CorpusState.FROZEN,
        digest="sha256:1",
        document_count=2,
        passage_count=3,
        freeze_time=tiny_corpus.create_time,
        labels={STRANGE: STRANGE},
    )
    await store.save(frozen)
    assert await store.load("tiny") == frozen


async def test_a_name_is_taken_once(store: VectorStore, tiny_corpus: Corpus) -> None:
    assert await store.create(tiny_corpus)
    assert not await store.create(replace(tiny_corpus, labels={"other": "one"}))
    assert await store.load("tiny") == tiny_corpus
    assert await store.names() == ["tiny"]


async def test_what_is_added_is_counted_and_scanned_by_id(
    store: VectorStore, tiny_corpus: Corpus
) -> None:
    await store.create(tiny_corpus)
    one = prepared("one", ["alpha beta", "gamma"], metadata={STRANGE: STRANGE})
    two = prepared(STRANGE, [STRANGE])
    await store.add("tiny", [one])
    await store.add("tiny", [two])
    assert await store.counts("tiny") == Counts(documents=2, passages=3)
    assert await store.documents("tiny") == {"one": one.digest, STRANGE: two.digest}
    expected = sorted([*one.passages, *two.passages], key=lambda passage: passage.id)
    assert await everything(store, "tiny") == expected
    places = {
        stored.passage.id: (stored.ordinal, stored.siblings)
        async for batch in store.scan("tiny")
        for stored in batch
    }
    assert places == {
        one.passages[0].id: (0, 2),
        one.passages[1].id: (1, 2),
        two.passages[0].id: (0, 1),
    }


async def test_scan_gives_many_passages_once_each_in_order(
    store: VectorStore, tiny_corpus: Corpus
) -> None:
    await store.create(tiny_corpus)
    for part in range(5):
        await store.add(
            "tiny", [prepared(f"{part}-{number}", [f"text {number}"]) for number in range(600)]
        )
    found = [passage.id for passage in await everything(store, "tiny")]
    assert len(found) == 3000
    assert found == sorted(set(found))


async def test_dense_search_gives_cosines_best_first(
    store: VectorStore, tiny_corpus: Corpus
) -> None:
    await store.create(tiny_corpus)
    vectors = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [-1, 0, 0, 0]]
    await store.add("tiny", [prepared("d", ["same", "near", "far", "opposite"], vectors)])
    await store.build_indexes("tiny")
    hits = await store.dense("tiny", np.asarray([1, 0, 0, 0], np.float32), 3, {}, whole=True)
    assert [hit.passage.text for hit in hits] == ["same", "near", "far"]
    assert [hit.score for hit in hits] == pytest.approx([1, 0.5**0.5, 0], abs=1e-6)


async def test_keyword_search_prefers_rare_and_repeated_words(
    store: VectorStore, tiny_corpus: Corpus
) -> None:
    await store.create(tiny_corpus)
    texts = ["the antenna gain", "the antenna tower", "the antenna gain gain", "the cat"]
    await store.add("tiny", [prepared("d", texts)])
    await store.build_indexes("tiny")
    hits = await store.keyword("tiny", "antenna GAINS", 10, {}, whole=True)
    assert [hit.passage.text for hit in hits] == [
        "the antenna gain gain",
        "the antenna gain",
        "the antenna tower",
    ]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len(await store.keyword("tiny", "antenna", 2, {})) == 2
    assert await store.keyword("tiny", "zebra", 10, {}) == []


async def test_long_lists_bring_ids_and_the_passages_are_read_afterwards(
    store: VectorStore, tiny_corpus: Corpus
) -> None:
    await store.create(tiny_corpus)
    texts = ["the antenna gain", "the antenna tower", "the cat"]
    await store.add("tiny", [prepared("d", texts)])
    await store.build_indexes("tiny")
    whole = await store.keyword("tiny", "antenna GAINS", 10, {}, whole=True)
    slim = await store.keyword("tiny", "antenna GAINS", 10, {})
    assert [(each.id, each.score) for each in slim] == [(each.id, each.score) for each in whole]
    assert {each.passage for each in slim} == {None}
    assert await store.passages("tiny", slim[::-1]) == [each.passage for each in whole[::-1]]
    assert await store.passages("tiny", []) == []


@pytest.mark.parametrize(
    "words",
    [
        "gain AND NOT tower",
        'gain"',
        "text:gain^2",
        "(gain",
        "+gain -tower",
        "gain~2 *",
        "gain' OR '1'='1",
        "gain \\ \x00 [a TO z]",
        "{'match': 'gain'}",
    ],
)
async def test_no_character_of_a_query_is_an_operator(
    store: VectorStore, tiny_corpus: Corpus, words: str
) -> None:
    await store.create(tiny_corpus)
    await store.add("tiny", [prepared("d", ["gain of one", "tower", "rain"])])
    await store.build_indexes("tiny")
    found = {hit.passage.text for hit in await store.keyword("tiny", words, 10, {}, whole=True)}
    assert "gain of one" in found
    assert ("tower" in found) == ("tower" in words)
    assert "rain" not in found


@pytest.mark.parametrize("words", ["?!", "'", "\u65e5\u672c", "the"])
async def test_queries_without_a_known_word_find_nothing(
    store: VectorStore, tiny_corpus: Corpus, words: str
) -> None:
    await store.create(tiny_corpus)
    await store.add("tiny", [prepared("d", ["gain of one"])])
    await store.build_indexes("tiny")
    assert await store.keyword("tiny", words, 10, {}, whole=True) == []


async def test_a_filter_holds_for_both_searches_before_the_limit(
    store: VectorStore, tiny_corpus: Corpus
) -> None:
    await store.create(tiny_corpus)
    others = [prepared(f"other{n}", ["gain gain gain"], None, {"kind": "no"}) for n in range(60)]
    wanted = prepared("wanted", ["gain"], [[0, 1, 0, 0]], {"kind": STRANGE, "year": "2026"})
    await store.add("tiny", [*others, wanted])
    await store.build_indexes("tiny")
    vector = np.asarray([1, 0, 0, 0], np.float32)
    for where in ({"kind": STRANGE}, {"kind": STRANGE, "year": "2026"}):
        dense = await store.dense("tiny", vector, 5, where, whole=True)
        keyword = await store.keyword("tiny", "gain", 5, where, whole=True)
        assert [each.passage.document_id for each in (*dense, *keyword)] == ["wanted"] * 2
    for where in ({"kind": "yes"}, {"kind": STRANGE, "year": "1"}, {"nothing": "x"}):
        assert await store.dense("tiny", vector, 5, where) == []
        assert await store.keyword("tiny", "gain", 5, where) == []


async def test_indexes_built_again_hold_what_came_later(
    store: VectorStore, tiny_corpus: Corpus
) -> None:
    await store.create(tiny_corpus)
    await store.add("tiny", [prepared("first", ["gain"])])
    await store.build_indexes("tiny")
    await store.add("tiny", [prepared("second", ["gain"])])
    await store.build_indexes("tiny")
    found = {
        hit.passage.document_id for hit in await store.keyword("tiny", "gain", 5, {}, whole=True)
    }
    assert found == {"first", "second"}


async def test_keyword_scores_do_not_depend_on_how_passages_came(
    store: VectorStore, tiny_corpus: Corpus
) -> None:
    documents = [
        prepared(f"d{n}", [f"gain of band {n} is {n % 7} dB " + "very " * (n % 5)])
        for n in range(200)
    ]
    scores = []
    for name, parts in (("whole", 1), ("parts", 40)):
        await store.create(replace(tiny_corpus, name=name))
        arranged = documents if parts == 1 else documents[::-1]
        for first in range(0, 200, 200 // parts):
            await store.add(name, arranged[first : first + 200 // parts])
        await store.build_indexes(name)
        hits = await store.keyword(name, "gain band 7 very", 200, {}, whole=True)
        scores.append({hit.passage.id: round(hit.score, 6) for hit in hits})
    assert len(scores[0]) == 200
    assert scores[0] == scores[1]


async def test_corpora_side_by_side_do_not_see_each_other(
    store: VectorStore, tiny_corpus: Corpus
) -> None:
    await store.create(tiny_corpus)
    await store.create(replace(tiny_corpus, name="other"))
    await store.add("other", [prepared("d", ["gain"])])
    assert await store.names() == ["other", "tiny"]
    assert await store.counts("tiny") == Counts(0, 0)
    await store.delete("tiny")
    assert await store.names() == ["other"]
    assert await store.counts("other") == Counts(1, 1)


async def test_a_deleted_corpus_is_gone_and_its_name_free(
    store: VectorStore, tiny_corpus: Corpus
) -> None:
    await store.create(tiny_corpus)
    await store.add("tiny", [prepared("d", ["gain"])])
    await store.delete("tiny")
    assert await store.create(tiny_corpus)
    assert await store.documents("tiny") == {}
    assert await everything(store, "tiny") == []


async def test_a_corpus_that_is_not_there_is_not_found(
    store: VectorStore, tiny_corpus: Corpus
) -> None:
    vector = np.asarray([1, 0, 0, 0], np.float32)
    calls = [
        store.load("tiny"),
        store.save(tiny_corpus),
        store.delete("tiny"),
        store.documents("tiny"),
        store.add("tiny", [prepared("d", ["gain"])]),
        store.counts("tiny"),
        store.build_indexes("tiny"),
        store.dense("tiny", vector, 1, {}, whole=True),
        store.keyword("tiny", "gain", 1, {}, whole=True),
        everything(store, "tiny"),
    ]
    for call in calls:
        with pytest.raises(NotFound, match="tiny"):
            await call


async def test_a_store_in_use_is_ready(store: VectorStore) -> None:
    await store.check_ready()


async def test_vectors_come_back_for_those_that_are_there(
    store: VectorStore, tiny_corpus: Corpus
) -> None:
    await store.create(tiny_corpus)
    document = prepared("d", ["one", "two"], [[1, 0, 0, 0], [1, 1, 0, 0]])
    await store.add("tiny", [document])
    first, second = (passage.id for passage in document.passages)
    absent = prepared("other", ["three"]).passages[0].id
    found = await store.vectors("tiny", [second, absent, first])
    assert set(found) == {first, second}
    assert found[first] == pytest.approx([1, 0, 0, 0], abs=1e-6)
    assert found[second] == pytest.approx([0.5**0.5, 0.5**0.5, 0, 0], abs=1e-6)
    assert await store.vectors("tiny", []) == {}


async def test_mended_passages_are_found_as_before(store: VectorStore, tiny_corpus: Corpus) -> None:
    await store.create(tiny_corpus)
    document = prepared("d", ["gain", "tower"], [[1, 0, 0, 0], [0, 1, 0, 0]], {"a": "b"})
    await store.add("tiny", [document])
    await store.build_indexes("tiny")
    before = await everything(store, "tiny")
    await store.mend("tiny", [passage.id for passage in document.passages])
    assert await everything(store, "tiny") == before
    assert await store.counts("tiny") == Counts(1, 2)
    vector = np.asarray([0, 1, 0, 0], np.float32)
    found = await store.dense("tiny", vector, 2, {"a": "b"}, whole=True)
    assert [hit.passage.text for hit in found] == ["tower", "gain"]
    assert [
        hit.passage.text for hit in await store.keyword("tiny", "gains", 5, {}, whole=True)
    ] == ["gain"]


async def test_a_claim_stays_the_same_while_nobody_else_has_it(
    store: VectorStore, tiny_corpus: Corpus
) -> None:
    await store.create(tiny_corpus)
    turn = await store.claim("tiny")
    assert await store.claim("tiny") == turn
    await store.release("tiny")
    await store.release("tiny")
    assert await store.claim("tiny") == turn
    assert await store.load("tiny") == tiny_corpus


async def test_nothing_is_away(store: VectorStore) -> None:
    assert store.outages == 0
