"""The pairs of a cell: what it is tuned on, or what its prompt shows as examples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from tuneproof.data.evaluation import is_gold
from tuneproof.data.items import Item
from tuneproof.prompts import Pair, conversation
from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.study.design.arms import RaftSpec
from tuneproof.study.design.plan import PlannedCell
from tuneproof.study.state.codec import StoredPassage

Found = Mapping[str, Sequence[StoredPassage]]
"""Passages by item id, best first, as deep as retrieval is measured."""


def tuning_pairs(cell: PlannedCell, found: Found, k: int) -> list[Pair] | None:
    """What a cell is tuned on; None while searches are missing.

    Args:
        k: passages of a prompt.
    """
    tune = cell.tune
    if tune is None:
        return None
    return _pairs(cell.items, tune.references, found if cell.shows_passages else None, k, cell)


def training_data(pairs: Sequence[Pair], passage_words: int | None) -> bytes:
    """Conversations as JSON Lines."""
    lines = [
        json.dumps({"messages": conversation(pair, passage_words)}, ensure_ascii=False)
        for pair in pairs
    ]
    return ("\n".join(lines) + "\n").encode()


def example_pairs(
    cell: PlannedCell, near: Sequence[str] | None, found: Found, k: int
) -> list[Pair] | None:
    """The examples in a cell's prompt; None while searches are missing.

    Args:
        near: ids of the cell's items, the nearest to the question first; None: not searched for.
        k: passages of a prompt.
    """
    examples = cell.arm.examples
    if examples is None:
        return []
    items: Sequence[Item] = cell.items
    if examples.choose == "nearest":
        if near is None:
            return None
        by_id = {item.id: item for item in cell.items}
        # A search by keywords may find fewer than k: the draw's order fills them up.
        names = list(dict.fromkeys([*near, *by_id]))[: examples.k]
        # The nearest stands last, beside the question.
        items = [by_id[name] for name in reversed(names)]
    return _pairs(items, examples.references, found if cell.shows_passages else None, k, cell)


def _pairs(
    items: Sequence[Item], style: str, found: Found | None, k: int, cell: PlannedCell
) -> list[Pair] | None:
    """Pairs of items; None where one lacks its passages."""
    raft = cell.tune.raft if cell.tune is not None else None
    pairs = []
    for item in items:
        passages = None
        if found is not None:
            if item.id not in found:
                return None
            passages = tuple(each.text for each in found[item.id][:k])
            if raft is not None:
                passages = raft_passages(item, found[item.id], raft, k=k, seed=cell.seed)
        pairs.append(Pair(item.question, item.references[style][0], passages))
    return pairs


def raft_passages(
    item: Item, found: Sequence[StoredPassage], raft: RaftSpec, *, k: int, seed: int
) -> tuple[str, ...]:
    """k passages: with probability `gold_share` a gold one among distractors, else distractors.

    The gold one is the best that retrieval found, or, where it found none, the evidence itself.
    The distractors are the best of the others that were found, fewer where these are fewer. What a
    question gets depends on its id and the seed only, so larger sets repeat the smaller ones.
    """
    judged = [(each.text, is_gold(each.text, each.document_id, item)) for each in found]
    gold = [text for text, is_one in judged if is_one] or list(item.gold_texts)
    others = [text for text, is_one in judged if not is_one]
    shown = gold[:1] if _chance(seed, item.id, "gold") < raft.gold_share else []
    passages = [*shown, *others[: k - len(shown)]]
    places = [(_chance(seed, item.id, place), text) for place, text in enumerate(passages)]
    return tuple(text for _, text in sorted(places))


def _chance(seed: int, name: str, purpose: str | int) -> float:
    """A number from 0 to below 1, the same at every call."""
    return int(sha256_of_json([seed, name, purpose])[-13:], 16) / 16**13
