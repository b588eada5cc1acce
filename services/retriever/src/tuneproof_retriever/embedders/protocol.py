"""What turns text into vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tuneproof_retriever.chunking import Tokens
from tuneproof_retriever.corpus import EmbedderIdentity, Vector, Vectors


class Embedder(Tokens, Protocol):
    """An embedding model with its tokenizer.

    Vectors have length 1, so that their dot product is their cosine. Nothing is truncated: the
    caller keeps to `identity.max_tokens`, and counts by `offsets`.
    """

    @property
    def identity(self) -> EmbedderIdentity:
        """What distinguishes this embedder from others."""

    async def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Vectors of passages, shape [len(texts), dimension].

        Raises:
            Unavailable: when the model does not answer.
        """

    async def embed_query(self, text: str) -> Vector:
        """Vector of a query, shape [dimension].

        Raises:
            Unavailable: when the model does not answer.
        """

    async def check_ready(self) -> None:
        """Returns when texts can be embedded.

        Raises:
            Unavailable: with the reason, while they cannot.
        """
