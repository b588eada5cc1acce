"""Orders and fuses hits, the same way in every store and every run.

**Order.** Hits are compared by score at six decimals, then by passage id. Batching moves the last
digits of a float32 similarity; six decimals do not see it.

**Fusion** is weighted reciprocal-rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009):

    score(p) = alpha / (60 + rank in the dense list) + (1 - alpha) / (60 + rank in the keyword list)

with ranks from 1 within the first `depth_for(k)` hits of each list; a list that lacks p adds 0.
Passages with score 0 are left out. The depth is 50 for every k up to 12, so that asking for fewer
passages changes neither a score nor the order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from tuneproof_retriever.corpus import Hit

_RRF_CONSTANT = 60
_DECIMALS = 6
_LEAST_DEPTH = 50
_DEPTH_PER_RESULT = 4


def depth_for(k: int) -> int:
    """How many hits of each list are candidates for k results."""
    return max(_LEAST_DEPTH, _DEPTH_PER_RESULT * k)


def ranked(hits: Sequence[Hit]) -> list[Hit]:
    """Hits best first, scores rounded, ties by passage id."""
    rounded = [replace(hit, score=round(hit.score, _DECIMALS)) for hit in hits]
    return sorted(rounded, key=lambda hit: (-hit.score, hit.passage.id))


async def best(fetch: Callable[[int], Awaitable[list[Hit]]], depth: int) -> list[Hit]:
    """The first `depth` hits, the same ones every time.

    A store that is asked for n hits chooses freely among those that tie for the last place. So
    more are fetched until the tie is complete, and the ids decide.

    Args:
        fetch: gives at most that many hits, best first.
    """
    limit = depth + 1
    while True:
        hits = ranked(await fetch(limit))
        if len(hits) < limit or hits[-1].score < hits[depth - 1].score:
            return hits[:depth]
        limit *= 4


def fuse(dense: Sequence[Hit], keyword: Sequence[Hit], alpha: float) -> list[Hit]:
    """Hits of both lists by weighted reciprocal rank, best first.

    Args:
        dense: ranked.
        keyword: ranked.
        alpha: weight of the dense list, 0 to 1.
    """
    scores: dict[str, float] = {}
    passages = {hit.passage.id: hit.passage for hit in (*dense, *keyword)}
    for hits, weight in ((dense, alpha), (keyword, 1 - alpha)):
        for rank, hit in enumerate(hits, start=1):
            share = weight / (_RRF_CONSTANT + rank)
            scores[hit.passage.id] = scores.get(hit.passage.id, 0.0) + share
    fused = [Hit(passages[id_], score) for id_, score in scores.items() if score > 0]
    return sorted(fused, key=lambda hit: (-hit.score, hit.passage.id))
