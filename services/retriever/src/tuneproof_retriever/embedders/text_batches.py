"""Divides texts into the requests of an embedding server, and brings the vectors together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tuneproof.servicekit.errors import Internal
from tuneproof_retriever.corpus import EmbedderIdentity, Vectors
from tuneproof_retriever.embedders.protocol import check_vectors
from tuneproof_retriever.endpoint import all_of


@dataclass(frozen=True)
class BatchLimits:
    """What fits into one request."""

    texts: int
    tokens: int
    """Most tokens over all texts; one longer text goes alone."""
    tokens_of_text: int
    """Most tokens of one text."""
    size: int = 1_000_000
    """Most bytes of UTF-8 over all texts. Servers count the bytes of the JSON, which may be twice
    as many; TEI takes 2,000,000."""


def batches(texts: Sequence[str], limits: BatchLimits) -> Iterator[list[int]]:
    """Numbers of the texts in each request, texts of like length together.

    Tokens are counted by their bound: the bytes of a text, or the most that one may have.
    """
    sizes = [len(text.encode()) for text in texts]
    batch: list[int] = []
    tokens = size = 0
    for number in sorted(range(len(texts)), key=sizes.__getitem__):
        bound = min(sizes[number], limits.tokens_of_text)
        if batch and (
            len(batch) == limits.texts
            or tokens + bound > limits.tokens
            or size + sizes[number] > limits.size
        ):
            yield batch
            batch, tokens, size = [], 0, 0
        batch.append(number)
        tokens += bound
        size += sizes[number]
    if batch:
        yield batch


async def embed_in_batches(
    texts: Sequence[str],
    limits: BatchLimits,
    identity: EmbedderIdentity,
    embed: Callable[[list[str]], Awaitable[Vectors]],
) -> Vectors:
    """Vectors of length 1 in the order of the texts, shape [len(texts), dimension].

    Args:
        embed: gives a row per text of one request.
    """
    vectors = np.empty((len(texts), identity.dimension), dtype=np.float32)

    async def fill(numbers: list[int]) -> None:
        rows = await embed([texts[number] for number in numbers])
        vectors[numbers] = unit_rows(rows, identity, len(numbers))

    await all_of([fill(batch) for batch in batches(texts, limits)])
    return vectors


def unit_rows(rows: Vectors, identity: EmbedderIdentity, count: int) -> Vectors:
    """A server's vectors of so many texts, scaled to length 1.

    Raises:
        Internal: when they have another shape or no direction.
    """
    check_vectors(rows, identity, count)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (lengths > 0).all():
        raise Internal(f"embedder {identity.id} gave vectors of length 0")
    return np.asarray(rows / lengths, dtype=np.float32)
