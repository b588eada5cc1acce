"""Orders and fuses candidates, the same way in every store and every run.

**Order.** Candidates are compared by score at six decimals, then by passage id. Batching moves the
last digits of a float32 similarity; six decimals do not see it.

**Fusion** is weighted reciprocal-rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009):

    score(p) = alpha / (60 + rank in the dense list) + (1 - alpha) / (60 + rank in the keyword list)

with ranks from 1 within the first `depth_for(k)` of each list; a list that lacks p adds 0.
Passages with score 0 are left out. The depth is 50 for every k up to 12, so that asking for fewer
passages changes neither a score nor the order. Passages that tie for a list's last place with
others beyond it are not in the list, unless it were shorter than half of that depth: reading whole
ties, which BM25 makes often, costs more than the rest of a search, and adds next to nothing there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from tuneproof_retriever.corpus import Candidate

_RRF_CONSTANT = 60
_DECIMALS = 6
_LEAST_DEPTH = 50
_DEPTH_PER_RESULT = 4
_LONGEST = 10_000


def depth_for(k: int) -> int:
    """How many of each list are candidates for k results."""
    return max(_LEAST_DEPTH, _DEPTH_PER_RESULT * k)


def rounded(score: float) -> float:
    """A score as it is compared."""
    return round(score, _DECIMALS)


def ranked(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Best first, scores rounded, ties by passage id."""
    comparable = [
        Candidate(each.id, rounded(each.score), each.passage, each.place) for each in candidates
    ]
    return sorted(comparable, key=lambda each: (-each.score, each.id))


async def best(
    fetch: Callable[[int], Awaitable[list[Candidate]]], depth: int, *, least: int | None = None
) -> list[Candidate]:
    """The first `depth` candidates, the same ones every time.

    A store that is asked for n of them chooses freely among those that tie for the last place.
    Where `least` are better than that tie, they are the answer. Else more are fetched until the tie
    is complete, and the ids decide. Of a tie of thousands the store chooses.

    Args:
        fetch: gives at most that many hits, best first.
        least: how many suffice where the last place is tied; None means all.
    """
    limit = depth + 1
    while True:
        found = ranked(await fetch(limit))
        complete = len(found) < limit or found[-1].score < found[depth - 1].score
        if complete or limit >= _LONGEST:
            return found[:depth]
        sure = [each for each in found if each.score > found[-1].score]
        if least is not None and len(sure) >= least:
            return sure
        limit *= 4


def fuse(dense: Sequence[Candidate], keyword: Sequence[Candidate], alpha: float) -> list[Candidate]:
    """Candidates of both lists by weighted reciprocal rank, best first.

    Args:
        dense: ranked.
        keyword: ranked.
        alpha: weight of the dense list, 0 to 1.
    """
    scores: dict[str, float] = {}
    known = {each.id: each for each in (*dense, *keyword)}
    for candidates, weight in ((dense, alpha), (keyword, 1 - alpha)):
        for rank, each in enumerate(candidates, start=1):
            scores[each.id] = scores.get(each.id, 0.0) + weight / (_RRF_CONSTANT + rank)
    fused = [replace(known[id_], score=score) for id_, score in scores.items() if score > 0]
    return sorted(fused, key=lambda each: (-each.score, each.id))
