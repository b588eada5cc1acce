"""What turns text into vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tuneproof.servicekit.errors import Internal, InvalidInput
from tuneproof_retriever.corpus import EmbedderIdentity, Vector, Vectors

Offsets = Sequence[tuple[int, int]]
"""Start and end in code points of every token of a text, special tokens left out."""


class Embedder(Protocol):
    """An embedding model with its tokenizer.

    Vectors have length 1, so that their dot product is their cosine. Nothing is truncated: the
    caller keeps passages to `identity.max_tokens`, and counts by `offsets`.

    Each `deadline` is the event loop's time after which no further attempt begins; None leaves it
    to the embedder. All calls raise `Unavailable` or `Overloaded` when the model does not answer
    until then.
    """

    @property
    def identity(self) -> EmbedderIdentity:
        """What distinguishes this embedder from others."""

    async def offsets(
        self, texts: Sequence[str], *, deadline: float | None = None
    ) -> list[Offsets]:
        """The tokens of each text."""

    async def embed_passages(
        self, texts: Sequence[str], *, deadline: float | None = None
    ) -> Vectors:
        """Vectors of passages, shape [len(texts), dimension]."""

    async def embed_query(self, text: str, *, deadline: float | None = None) -> Vector:
        """Vector of a query, shape [dimension].

        Raises:
            InvalidInput: when the query is longer than the embedder reads.
        """

    async def check_ready(self) -> None:
        """Returns when texts can be embedded.

        Raises:
            Unavailable: with the reason, while they cannot.
        """

    async def close(self) -> None:
        """Gives up what the embedder holds; no call follows."""


def check_query_length(tokens: int, identity: EmbedderIdentity) -> None:
    """Raises `InvalidInput` for a query that the embedder cannot read whole."""
    if tokens > identity.max_tokens:
        raise InvalidInput(
            f"query has {tokens} tokens, more than the {identity.max_tokens} that the embedder"
            " reads; shorten it, or search by keyword",
            field="query",
        )


def check_vectors(vectors: Vectors, identity: EmbedderIdentity, count: int) -> None:
    """Raises `Internal` for vectors of so many texts that must not be stored or searched by."""
    shape = (count, identity.dimension)
    if vectors.shape != shape:
        raise Internal(
            f"embedder {identity.id} gave vectors of shape {list(vectors.shape)}, not {list(shape)}"
        )
    if not np.isfinite(vectors).all():
        raise Internal(f"embedder {identity.id} gave vectors that are not finite")
