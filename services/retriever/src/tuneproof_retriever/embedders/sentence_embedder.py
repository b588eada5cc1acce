"""An embedder in this process, by sentence-transformers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from tuneproof.servicekit.errors import InvalidInput
from tuneproof_retriever.corpus import EmbedderIdentity, Vector, Vectors
from tuneproof_retriever.embedders.local_tokens import LocalTokens
from tuneproof_retriever.embedders.model_folder import (
    digest_of_model,
    find_model,
    load_model,
    name_of_model,
)
from tuneproof_retriever.embedders.protocol import Offsets, check_query_length
from tuneproof_retriever.embedders.query_batches import QueryBatches


class SentenceEmbedder:
    """A sentence-transformers model on one thread of its own.

    The thread takes passages in small batches, so that a query waits for one batch at most.

    Args:
        model: a SentenceTransformer.
        tokenizer: its `tokenizers.Tokenizer`, without truncation and padding.
        batch_size: most texts in one forward pass.
    """

    def __init__(
        self, model: Any, tokenizer: Any, identity: EmbedderIdentity, *, batch_size: int
    ) -> None:
        self._model = model
        self._tokens = LocalTokens(tokenizer)
        self._identity = identity
        self._batch_size = batch_size
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedder")
        self._queries = QueryBatches(partial(self._encode, model.encode_query), size=batch_size)

    @property
    def identity(self) -> EmbedderIdentity:
        return self._identity

    async def offsets(
        self,
        texts: Sequence[str],
        *,
        deadline: float | None = None,  # noqa: ARG002 - see `Embedder`
    ) -> list[Offsets]:
        return await self._tokens.offsets(texts)

    async def embed_passages(
        self,
        texts: Sequence[str],
        *,
        deadline: float | None = None,  # noqa: ARG002 - see `Embedder`
    ) -> Vectors:
        vectors = np.empty((len(texts), self._identity.dimension), dtype=np.float32)
        # Texts of like length share a batch: padding costs as much as text.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for first in range(0, len(order), self._batch_size):
            rows = order[first : first + self._batch_size]
            batch = [texts[row] for row in rows]
            vectors[rows] = await self._encode(self._model.encode_document, batch)
        return vectors

    async def embed_query(
        self,
        text: str,
        *,
        deadline: float | None = None,  # noqa: ARG002 - see `Embedder`
    ) -> Vector:
        [tokens] = await self._tokens.offsets([text])
        check_query_length(len(tokens), self._identity)
        return await self._queries.embed(text)

    async def check_ready(self) -> None:
        """See `Embedder`: a model in this process is always ready."""

    async def close(self) -> None:
        """See `Embedder`: waits for the batch that the thread works on."""
        self._tokens.close()
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)

    async def _encode(self, encode: Any, texts: list[str]) -> Vectors:
        work = partial(
            encode,
            texts,
            batch_size=self._batch_size,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        vectors = await asyncio.get_running_loop().run_in_executor(self._thread, work)
        return np.asarray(vectors, dtype=np.float32)


def load_sentence_embedder(
    embedder: str, *, device: str, threads: int, batch_size: int, revision: str = ""
) -> SentenceEmbedder:
    """Loads a model; takes seconds, most of them for torch's import.

    Args:
        embedder: see `find_model`, as for `revision`.
        device: torch's name of a device; empty takes a GPU where there is one.
        threads: torch's threads in this process; 0 leaves torch's own choice.
        batch_size: most texts in one forward pass.

    Raises:
        InvalidInput: when the model, the library or the device cannot be used.
        Unavailable: when the model must be downloaded and cannot.
    """
    folder = find_model(embedder, revision)
    try:
        # torch's import takes seconds, so it waits until a model is wanted.
        import torch  # noqa: PLC0415
        from tokenizers import Tokenizer  # noqa: PLC0415
        from transformers.utils import logging as transformers_logging  # noqa: PLC0415
    except ImportError as error:
        raise InvalidInput(
            f"embedder {embedder!r} needs {error.name}:"
            " pip install tuneproof-retriever[local-embed]",
            field="embedder",
        ) from None
    transformers_logging.disable_progress_bar()
    if threads:
        torch.set_num_threads(threads)
    model = load_model("SentenceTransformer", embedder, folder, device=device, setting="embedder")
    tokenizer = Tokenizer.from_str(model.tokenizer.backend_tokenizer.to_str())
    identity = EmbedderIdentity(
        id=name_of_model(embedder),
        digest=digest_of_model(folder),
        dimension=int(model.get_embedding_dimension()),
        max_tokens=_room(model, tokenizer),
    )
    return SentenceEmbedder(model, tokenizer, identity, batch_size=batch_size)


def _room(model: Any, tokenizer: Any) -> int:
    """Tokens that a text may have beside special tokens and the longest prompt."""
    prompts = [prompt for prompt in model.prompts.values() if prompt]
    longest = max(
        (len(tokenizer.encode(prompt, add_special_tokens=False).ids) for prompt in prompts),
        default=0,
    )
    return int(model.max_seq_length) - int(tokenizer.num_special_tokens_to_add(False)) - longest
