"""What reads passages together with a query."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from tuneproof.servicekit.errors import Internal
from tuneproof_retriever.corpus import Hit
from tuneproof_retriever.ranking import rounded


@dataclass(frozen=True)
class RerankerIdentity:
    """What read the passages again; two rerankers are the same when their digests are."""

    id: str
    """Model id or folder name."""
    digest: str
    """`sha256:<hex>` over the model, or what its server tells of it."""


class Reranker(Protocol):
    """A model that reads a query and a passage together.

    Nothing is truncated. A `deadline` is the event loop's time after which no further attempt
    begins; None leaves it to the reranker.
    """

    @property
    def identity(self) -> RerankerIdentity:
        """What distinguishes this reranker from others."""

    async def scores(
        self, query: str, texts: Sequence[str], *, deadline: float | None = None
    ) -> list[float]:
        """How well each text answers a query, in their order: the model's logits.

        Raises:
            InvalidInput: when the query and a text are longer than the model reads.
            Unavailable: when the model does not answer; `Overloaded` when it has too much to do.
        """

    async def check_ready(self) -> None:
        """Returns when texts can be scored.

        Raises:
            Unavailable: with the reason, while they cannot.
        """

    async def close(self) -> None:
        """Gives up what the reranker holds; no call follows."""


async def rerank(
    reranker: Reranker, query: str, hits: Sequence[Hit], *, deadline: float | None
) -> list[Hit]:
    """Hits in the order of a reranker's scores, which replace those of the search.

    Raises:
        Internal: when a score is not a number.
    """
    if not hits:
        return []
    texts = [hit.passage.embedded_text for hit in hits]
    scores = await reranker.scores(query, texts, deadline=deadline)
    if not all(map(math.isfinite, scores)):
        raise Internal(f"reranker {reranker.identity.id} gave scores that are not finite")
    read = [
        replace(hit, score=rounded(score), first_score=hit.score)
        for hit, score in zip(hits, scores, strict=True)
    ]
    return sorted(read, key=lambda hit: (-hit.score, hit.passage.id))
