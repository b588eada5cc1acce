"""How well retrieval brought the evidence.

What counts as gold. A passage is gold for an item when it comes from one of the item's gold
documents (where these are known) and shows the item's evidence: it contains the evidence text,
or, since chunking may cut evidence, the passage ends with the evidence's beginning, begins with
its end, or lies within it, by at least half the words of the shorter of the two, and by 5 words
or the whole evidence. Likeness elsewhere does not count: two sentences of one document may differ
in a number only. White space and case do not count. Where an item has no evidence texts, every
passage of a gold document is gold.

One passage counts for one piece of evidence, and one piece for one passage (a maximum matching in
order of rank), so that several passages around one piece earn no more than one, and so that
recall among the first five cannot exceed five over the number of pieces, its ceiling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from tuneproof.data.items import Item
from tuneproof.results import RetrievalQuality

_LEAST_SHARE = 0.5
_LEAST_RUN = 5


class Found(Protocol):
    """A retrieved passage."""

    @property
    def document_id(self) -> str:
        """The document from which it comes."""

    @property
    def text(self) -> str:
        """Its whole text."""


def is_gold(passage_text: str, document_id: str, item: Item) -> bool:
    """Whether a passage is gold for an item, as the module says."""
    if item.gold_documents and document_id not in item.gold_documents:
        return False
    if not item.gold_texts:
        return bool(item.gold_documents)
    return any(shows_text(passage_text, evidence) for evidence in item.gold_texts)


def has_gold(item: Item) -> bool:
    """Whether it is known what holds the item's evidence."""
    return bool(item.gold_texts or item.gold_documents)


def retrieval_quality(
    items: Sequence[Item], retrieved: Mapping[str, Sequence[Found]], *, k: int
) -> RetrievalQuality | None:
    """Success, nDCG and recall over the items that were searched and whose evidence is known.

    nDCG@10 has gain 1 for a passage that brings a further piece of evidence, and discount
    log2(rank + 1); the ideal has all pieces first (Järvelin and Kekäläinen, 2002).

    Args:
        retrieved: passages by item id, best first; items that are missing do not count.
        k: how many passages were asked for.

    Returns:
        None when no item counts. The unit is `passage` where every item that counts has evidence
        texts, else `document` for all.
    """
    counted = [item for item in items if item.id in retrieved and has_gold(item)]
    if not counted:
        return None
    by_text = all(item.gold_texts for item in counted)
    success = recall = ndcg = ceiling = 0.0
    for item in counted:
        pieces = _evidence(item) if by_text else list(dict.fromkeys(item.gold_documents))
        shows = _shows_piece(item) if by_text else _is_of_document
        gains = _gains(retrieved[item.id][:10], pieces, shows)
        success += any(gains[:5])
        recall += sum(gains[:5]) / len(pieces)
        ceiling += min(5, len(pieces)) / len(pieces)
        ndcg += _dcg(gains) / _dcg([True] * min(10, len(pieces)))
    n = len(counted)
    return RetrievalQuality(
        k=k,
        items=n,
        success_at_5=success / n,
        ndcg_at_10=ndcg / n,
        recall_at_5=recall / n,
        recall_ceiling_at_5=ceiling / n,
        unit="passage" if by_text else "document",
    )


def _gains(
    passages: Sequence[Found], pieces: Sequence[str], shows: Callable[[Found, str], bool]
) -> list[bool]:
    """For each passage whether it brings a piece that those before it leave over."""
    shown = [[p for p, piece in enumerate(pieces) if shows(found, piece)] for found in passages]
    return [piece is not None for piece in pieces_brought(shown)]


def pieces_brought(shown: Sequence[Sequence[int]]) -> list[int | None]:
    """For each passage the piece by which it extends the matching of those before it, or None.

    Args:
        shown: numbers of the pieces that each passage shows, by rank.
    """
    taker: dict[int, int] = {}

    def take(passage: int, seen: set[int]) -> int | None:
        """The piece that is taken now and was free before."""
        for piece in shown[passage]:
            if piece in seen:
                continue
            seen.add(piece)
            free = take(taker[piece], seen) if piece in taker else piece
            if free is not None:
                taker[piece] = passage
                return free
        return None

    return [take(passage, set()) for passage in range(len(shown))]


def _dcg(gains: Sequence[bool]) -> float:
    return sum(1 / math.log2(rank + 1) for rank, gain in enumerate(gains, 1) if gain)


def _evidence(item: Item) -> list[str]:
    return list({_normal(text): text for text in item.gold_texts}.values())


def _shows_piece(item: Item) -> Callable[[Found, str], bool]:
    def shows(found: Found, evidence: str) -> bool:
        known = item.gold_documents
        return (not known or found.document_id in known) and shows_text(found.text, evidence)

    return shows


def _is_of_document(found: Found, document_id: str) -> bool:
    return found.document_id == document_id


def shows_text(passage: str, evidence: str) -> bool:
    """Whether a passage shows a piece of evidence, as the module says."""
    here, there = _normal(passage), _normal(evidence)
    if not there:
        return False
    if there in here:
        return True
    words, wanted = here.split(), there.split()
    least = max(_LEAST_SHARE * min(len(words), len(wanted)), min(_LEAST_RUN, len(wanted)))
    if here in there:
        return len(words) >= least
    return any(
        words[-run:] == wanted[:run] or words[:run] == wanted[-run:]
        for run in range(math.ceil(least), min(len(words), len(wanted)) + 1)
    )


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())
