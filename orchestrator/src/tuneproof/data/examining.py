"""What a data set holds, and what could spoil a study on it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tuneproof.data.items import Dataset, Item
from tuneproof.data.near_duplicates import NearPair, near_pairs
from tuneproof.data.splits import Split, words_of

NEAR = 0.8
"""Similarity from which two texts count as nearly the same."""


@dataclass(frozen=True, slots=True)
class Examination:
    """Counts, and names of what to look at."""

    name: str
    documents: int
    items: int
    unanswerable: int
    clusters: int
    tuning: int
    """Items that the split gives to tuning; 0 without a split."""
    test: int
    styles: Mapping[str, int]
    """Items with a reference answer, by style."""
    gold_documents: int
    """Documents that are gold for an item."""
    without_gold: tuple[str, ...]
    """Answerable items whose evidence is unknown: retrieval is not measured with them."""
    lost_evidence: tuple[str, ...]
    """Items with evidence that none of their gold documents holds verbatim."""
    same_questions: tuple[tuple[str, ...], ...]
    """Items that ask the same, but for case and punctuation."""
    same_documents: tuple[tuple[str, ...], ...]
    """Documents with the same text, in the same sense."""
    near_questions: tuple[NearPair, ...]
    """A tuning item and a test item whose questions are nearly the same."""
    near_documents: tuple[NearPair, ...]
    """A gold document of tuning and one of testing that are nearly the same."""
    near_gold: tuple[NearPair, ...]
    """A document that is gold for no item, and a gold one that is nearly the same: retrieval that
    finds the former counts as a miss."""
    left_out: Mapping[str, int]
    notes: tuple[str, ...]


def examine(dataset: Dataset, parts: Split | None = None, *, near: float = NEAR) -> Examination:
    """Looks through a data set.

    Args:
        parts: how it is divided, where that is known.
        near: similarity from which texts count as nearly the same, .5 to 1.
    """
    tuning, test = (parts.tuning, parts.test) if parts else ((), ())
    texts = {document.id: document.text for document in dataset.documents}
    gold = {name for item in dataset.items for name in item.gold_documents}
    styles = Counter(style for item in dataset.items for style in item.references)
    of_tuning, of_test = _documents(tuning, texts), _documents(test, texts)
    return Examination(
        name=dataset.name,
        documents=len(dataset.documents),
        items=len(dataset.items),
        unanswerable=sum(not item.answerable for item in dataset.items),
        clusters=len({item.cluster for item in dataset.items}),
        tuning=len(tuning),
        test=len(test),
        styles=dict(styles.most_common()),
        gold_documents=len(gold),
        without_gold=tuple(
            item.id
            for item in dataset.items
            if item.answerable and not item.gold_documents and not item.gold_texts
        ),
        lost_evidence=tuple(item.id for item in dataset.items if _loses(item, texts)),
        same_questions=_same((item.id, item.question) for item in dataset.items),
        same_documents=_same(texts.items()),
        near_questions=tuple(near_pairs(_questions(tuning), _questions(test), threshold=near)),
        near_documents=tuple(near_pairs(of_tuning, of_test, threshold=near)),
        near_gold=tuple(
            near_pairs(
                {name: text for name, text in texts.items() if name not in gold},
                {name: texts[name] for name in sorted(gold)},
                threshold=near,
            )
            if gold
            else ()
        ),
        left_out=dataset.left_out,
        notes=dataset.notes,
    )


def _questions(items: Sequence[Item]) -> dict[str, str]:
    return {item.id: item.question for item in items}


def _documents(items: Sequence[Item], texts: Mapping[str, str]) -> dict[str, str]:
    return {name: texts[name] for item in items for name in item.gold_documents}


def _loses(item: Item, texts: Mapping[str, str]) -> bool:
    return bool(item.gold_documents) and not all(
        any(evidence in texts[name] for name in item.gold_documents) for evidence in item.gold_texts
    )


def _same(texts: Iterable[tuple[str, str]]) -> tuple[tuple[str, ...], ...]:
    names = defaultdict(list)
    for name, text in texts:
        names[words_of(text)].append(name)
    return tuple(tuple(group) for group in names.values() if len(group) > 1)
