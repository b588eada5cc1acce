"""A reranker on a server of Text Embeddings Inference."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.servicekit.retries import Sleep
from tuneproof_retriever.embedders.text_batches import BatchLimits, batches
from tuneproof_retriever.endpoint import Endpoint, all_of
from tuneproof_retriever.reranking.protocol import RerankerIdentity
from tuneproof_retriever.tei import TeiServer, open_tei


class TeiReranker:
    """See `Reranker`. Use `open_tei_reranker` to get one."""

    def __init__(self, server: TeiServer) -> None:
        self._server = server
        info = server.info
        self._limits = BatchLimits(
            info.texts_per_request, info.max_batch_tokens, info.max_input_length
        )
        self._identity = RerankerIdentity(
            info.model_id, sha256_of_json(["tei reranker", *info.model])
        )

    @property
    def identity(self) -> RerankerIdentity:
        return self._identity

    async def scores(
        self, query: str, texts: Sequence[str], *, deadline: float | None = None
    ) -> list[float]:
        scores = np.empty(len(texts))

        async def fill(numbers: list[int]) -> None:
            batch = [texts[number] for number in numbers]
            scores[numbers] = await self._server.rerank(query, batch, deadline=deadline)

        # Each text is read with the query.
        pairs = [f"{query} {text}" for text in texts]
        await all_of([fill(batch) for batch in batches(pairs, self._limits)])
        return scores.tolist()

    async def check_ready(self) -> None:
        await self._server.check_ready()

    async def close(self) -> None:
        await self._server.close()


async def open_tei_reranker(
    endpoint: Endpoint, *, patience: float = 120.0, sleep: Sleep = asyncio.sleep
) -> TeiReranker:
    """The reranker that a server serves; see `open_tei` for the errors."""
    return TeiReranker(await open_tei(endpoint, "reranker", patience=patience, sleep=sleep))
