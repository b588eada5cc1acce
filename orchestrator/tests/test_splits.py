"""Tuning and test share nothing; subsets are nested."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneproof.data import Dataset, Document, Item
from tuneproof.data.splits import Split, check_leakage, nested_subsets, split
from tuneproof.servicekit.errors import InvalidInput

pytestmark = pytest.mark.timeout(30)


def _item(name: str, cluster: str, question: str = "", document: str = "") -> Item:
    return Item(
        id=name,
        question=question or f"What is {name}?",
        references={"full": (name,)},
        gold_documents=(document or cluster,),
        gold_texts=(name,),
        cluster=cluster,
    )


def _world(*sizes: int) -> Dataset:
    items = [
        _item(f"i{cluster}.{n}", f"c{cluster}")
        for cluster, size in enumerate(sizes)
        for n in range(size)
    ]
    documents = tuple(Document(f"c{n}", f"text of {n}") for n in range(len(sizes)))
    return Dataset("world", documents, tuple(items))


_sizes = st.lists(st.integers(1, 6), min_size=2, max_size=12)


@settings(deadline=None)
@given(_sizes, st.integers(0, 99), st.floats(0.05, 0.95))
def test_a_split_divides_whole_clusters(sizes, seed, share):
    dataset = _world(*sizes)
    divided = split(dataset, seed=seed, test_share=share, test_items=None)
    check_leakage(divided, dataset)
    assert sorted(i.id for i in (*divided.tuning, *divided.test)) == sorted(
        i.id for i in dataset.items
    )
    assert divided.tuning
    assert divided.test
    for_test = len({item.cluster for item in divided.test})
    assert for_test == min(max(1, round(share * len(sizes))), len(sizes) - 1)


@settings(deadline=None)
@given(_sizes, st.integers(0, 99), st.data())
def test_test_items_spread_over_the_clusters(sizes, seed, data):
    dataset = _world(*sizes)
    whole = split(dataset, seed=seed, test_share=0.5, test_items=None)
    wanted = data.draw(st.integers(1, len(whole.test)))
    some = split(dataset, seed=seed, test_share=0.5, test_items=wanted)
    assert some.test == whole.test[:wanted]
    assert some.tuning == whole.tuning
    available = Counter(item.cluster for item in whole.test)
    taken = Counter(item.cluster for item in some.test)
    most = max(taken.values())
    assert all(taken[name] >= min(count, most - 1) for name, count in available.items())


@settings(deadline=None)
@given(_sizes, st.integers(0, 99), st.randoms())
def test_the_order_of_the_items_does_not_matter(sizes, seed, rng):
    dataset = _world(*sizes)
    shuffled = list(dataset.items)
    rng.shuffle(shuffled)
    other = dataclasses.replace(dataset, items=tuple(shuffled))
    assert split(dataset, seed=seed, test_share=0.4, test_items=1) == split(
        other, seed=seed, test_share=0.4, test_items=1
    )


def test_the_seed_matters():
    dataset = _world(*[1] * 30)
    divided = [split(dataset, seed=s, test_share=0.3, test_items=None) for s in range(4)]
    assert len({frozenset(item.id for item in parts.test) for parts in divided}) == 4


def test_clusters_with_one_question_or_one_text_stay_together():
    items = (
        _item("a", "c1", "What is the gain?"),
        _item("b", "c2", "what is  the GAIN"),
        _item("c", "c3"),
        _item("d", "c4"),
        _item("e", "c5", document="c1"),
    )
    documents = (
        Document("c1", "one"),
        Document("c2", "two"),
        Document("c3", "Same text."),
        Document("c4", "same  text"),
        Document("c5", "five"),
    )
    dataset = Dataset("world", documents, items)
    for seed in range(8):
        divided = split(dataset, seed=seed, test_share=0.5, test_items=None)
        check_leakage(divided, dataset)
        assert {frozenset(i.id for i in part) for part in (divided.tuning, divided.test)} == {
            frozenset("abe"),
            frozenset("cd"),
        }
        assert divided.clusters == {**dict.fromkeys("abe", "c1"), **dict.fromkeys("cd", "c3")}


@pytest.mark.parametrize(
    ("tuning", "test", "said"),
    [
        (_item("a", "x"), _item("b", "y", document="x"), "document x"),
        (
            _item("a", "x", "How much power?"),
            _item("b", "y", "how  much POWER"),
            "question how  much POWER",
        ),
        (_item("a", "x"), _item("a", "y"), "item a"),
        (_item("a", "twin1"), _item("b", "twin2"), "document text of twin2"),
    ],
)
def test_leakage_is_named(tuning, test, said):
    documents = tuple(Document(n, f"text {n}") for n in "xy")
    twins = (Document("twin1", "Word for word."), Document("twin2", "word for  word"))
    dataset = Dataset("world", documents + twins, (tuning, test))
    with pytest.raises(InvalidInput) as caught:
        check_leakage(Split((tuning,), (test,)), dataset)
    assert f"{said}: test item {test.id}, tuning item {tuning.id}" in caught.value.message


def test_much_leakage_is_counted_and_cut():
    dataset = _world(40)
    divided = Split(dataset.items[:1], dataset.items)
    with pytest.raises(InvalidInput) as caught:
        check_leakage(divided, dataset)
    assert "share 82 things" in caught.value.message
    assert "and 62 more" in caught.value.message


def test_too_few_items_are_told_with_the_numbers():
    with pytest.raises(InvalidInput, match="9 test items are wanted, but the 2 of 4 clusters"):
        split(_world(2, 2, 2, 2), seed=1, test_share=0.5, test_items=9)
    with pytest.raises(InvalidInput, match="5 items in 1 cluster;"):
        split(_world(5), seed=1, test_share=0.5, test_items=1)


@pytest.mark.parametrize("share", [0, 1, -0.5, 1.5, float("nan")])
def test_a_share_lies_between_0_and_1(share):
    with pytest.raises(InvalidInput, match="test_share"):
        split(_world(2, 2), seed=1, test_share=share, test_items=1)


def test_a_test_has_items():
    with pytest.raises(InvalidInput, match="test_items is 0"):
        split(_world(2, 2), seed=1, test_share=0.5, test_items=0)


@settings(deadline=None)
@given(st.sets(st.integers(1, 30), min_size=1), st.integers(0, 99), st.randoms())
def test_subsets_are_nested(sizes, seed, rng):
    items = list(_world(*[3] * 10).items)
    found = nested_subsets(items, sizes, seed)
    assert sorted(found) == sorted(sizes)
    for size, subset in found.items():
        assert len({i.id for i in subset}) == size
    for small, large in zip(sorted(sizes), sorted(sizes)[1:], strict=False):
        assert {i.id for i in found[small]} < {i.id for i in found[large]}
    rng.shuffle(items)
    assert nested_subsets(items, sizes, seed) == found


def test_subsets_differ_by_seed():
    items = _world(*[3] * 10).items
    drawn = [nested_subsets(items, [5], seed)[5] for seed in range(4)]
    assert len({frozenset(item.id for item in subset) for subset in drawn}) == 4


def test_sizes_that_cannot_be_drawn_are_named():
    items = _world(3, 3).items
    with pytest.raises(InvalidInput, match=r"sizes 0, 7, 500 cannot be drawn from 6"):
        nested_subsets(items, [500, 7, 6, 0], 1)
