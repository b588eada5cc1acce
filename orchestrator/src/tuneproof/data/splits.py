"""Dividing items into tuning and test, so that the test asks only what tuning has not seen."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest

from tuneproof.data.components import components
from tuneproof.data.items import Dataset, Item
from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.servicekit.errors import InvalidInput

_MOST_LISTED = 20
_Keys = Callable[[Item], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Split:
    """A data set's items, divided."""

    tuning: tuple[Item, ...]
    test: tuple[Item, ...]
    clusters: Mapping[str, str] = field(default_factory=dict)
    """By id of an item, tuning and test: what it was divided with. The name is the first of the
    data set's clusters that a question or a document's text joins."""


def split(dataset: Dataset, *, seed: int, test_share: float, test_items: int | None) -> Split:
    """Divides items by cluster.

    Clusters that share a question or a document's whole text are kept together too. The order of
    clusters depends on their names and the seed only, so that a longer data set keeps most of a
    shorter one's division. Test items are taken from the test clusters in turn, one of each
    before a second of any; those beyond `test_items` are left out, not tuned on.

    Args:
        test_share: share of the clusters that are for testing, between 0 and 1.
        test_items: how many items to test; None: all of the test clusters.

    Raises:
        InvalidInput: for a share out of range, or when there are too few clusters or items.
    """
    if not 0 < test_share < 1:
        raise InvalidInput(f"test_share is {test_share}, not between 0 and 1", field="test_share")
    if test_items is not None and test_items < 1:
        raise InvalidInput(f"test_items is {test_items}, not 1 or more", field="test_items")
    groups = _groups(dataset)
    if len(groups) < 2:
        raise InvalidInput(
            f"the data set {dataset.name} has {len(dataset.items)} items in {len(groups)} cluster"
            f"{'' if len(groups) == 1 else 's'}; a split by document needs 2 clusters or more"
        )
    names = sorted(groups, key=lambda name: _rank(seed, name))
    for_test = min(max(1, round(test_share * len(names))), len(names) - 1)
    ordered = [sorted(groups[name], key=lambda item: _rank(seed, item.id)) for name in names]
    candidates = list(_in_turn(ordered[:for_test]))
    wanted = len(candidates) if test_items is None else test_items
    if wanted > len(candidates):
        raise InvalidInput(
            f"{wanted} test items are wanted, but the {for_test} of {len(names)} clusters that"
            f" test_share {test_share} gives hold {len(candidates)}; raise test_share or lower"
            " test_items",
            field="test_items",
        )
    return Split(
        tuple(chain.from_iterable(ordered[for_test:])),
        tuple(candidates[:wanted]),
        _names_of(groups),
    )


def check_leakage(divided: Split, dataset: Dataset) -> None:
    """Makes sure that no test item asks what tuning has seen.

    Raises:
        InvalidInput: with the items, questions (compared without case and punctuation) and
            documents (by id, and by text) that tuning and test share.
    """
    texts = {document.id: words_of(document.text) for document in dataset.documents}
    found = [
        *_shared("item", divided, lambda item: {item.id: item.id}),
        *_shared("question", divided, lambda item: {words_of(item.question): item.question}),
        *_shared("document", divided, lambda item: {name: name for name in item.gold_documents}),
        *_shared(
            "document text",
            divided,
            lambda item: {
                texts[name]: f"of {name}" for name in item.gold_documents if texts.get(name)
            },
        ),
    ]
    if found:
        listed = found[:_MOST_LISTED]
        more = len(found) - len(listed)
        raise InvalidInput(
            f"test and tuning items of {dataset.name} share {len(found)} things, so the test would"
            " reward memory:\n"
            + "\n".join(f"  {line}" for line in listed)
            + (f"\n  and {more} more" if more else "")
        )


def nested_subsets(
    items: Sequence[Item], sizes: Iterable[int], seed: int
) -> dict[int, tuple[Item, ...]]:
    """Random subsets, each holding all the smaller ones.

    Returns:
        Items by size, in an order that depends on ids and the seed only.

    Raises:
        InvalidInput: for a size below 1 or above the number of items.
    """
    wanted = sorted(set(sizes))
    wrong = [size for size in wanted if not 1 <= size <= len(items)]
    if wrong:
        raise InvalidInput(
            f"tuning sizes {', '.join(map(str, wrong))} cannot be drawn from {len(items)} tuning"
            f" items; give sizes from 1 to {len(items)}, or more documents",
            field="sizes",
        )
    ordered = sorted(items, key=lambda item: _rank(seed, item.id))
    return {size: tuple(ordered[:size]) for size in wanted}


def _groups(dataset: Dataset) -> dict[str, list[Item]]:
    """Items by cluster, clusters joined that a question or a document's text connects."""
    texts = {document.id: words_of(document.text) for document in dataset.documents}
    links = {
        item.id: [
            ("cluster", item.cluster),
            ("question", words_of(item.question)),
            *(("document", name) for name in item.gold_documents),
            *(("text", texts[name]) for name in item.gold_documents if texts.get(name)),
        ]
        for item in dataset.items
    }
    component = components(links)
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in dataset.items:
        groups[component[item.id]].append(item)
    return groups


def _names_of(groups: Mapping[str, Sequence[Item]]) -> dict[str, str]:
    """By item id: the first of the clusters that its group joins."""
    found: dict[str, str] = {}
    for members in groups.values():
        name = min(item.cluster for item in members)
        found |= dict.fromkeys((item.id for item in members), name)
    return found


def _shared(kind: str, divided: Split, keys: _Keys) -> Iterator[str]:
    tuning: dict[str, str] = {}
    for item in divided.tuning:
        for key in keys(item):
            tuning.setdefault(key, item.id)
    for item in divided.test:
        for key, shown in keys(item).items():
            if key in tuning:
                yield f"{kind} {shown}: test item {item.id}, tuning item {tuning[key]}"


def _in_turn(groups: Sequence[Sequence[Item]]) -> Iterator[Item]:
    for round_of_items in zip_longest(*groups):
        yield from (item for item in round_of_items if item is not None)


def _rank(seed: int, name: str) -> str:
    return sha256_of_json([seed, name])


def words_of(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded))
