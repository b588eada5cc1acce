"""A reranker in this process: a cross-encoder, by sentence-transformers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tuneproof.servicekit.errors import InvalidInput
from tuneproof_retriever.embedders.model_folder import (
    digest_of_model,
    find_model,
    load_model,
    name_of_model,
)
from tuneproof_retriever.reranking.protocol import RerankerIdentity


class CrossEncoderReranker:
    """See `Reranker`: a model on one thread of its own."""

    def __init__(self, model: Any, identity: RerankerIdentity, *, batch_size: int) -> None:
        """
        Args:
            model: a CrossEncoder with one label.
            batch_size: most pairs in one forward pass.
        """
        self._model = model
        self._identity = identity
        self._batch_size = batch_size
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reranker")

    @property
    def identity(self) -> RerankerIdentity:
        return self._identity

    async def scores(
        self,
        query: str,
        texts: Sequence[str],
        *,
        deadline: float | None = None,  # noqa: ARG002 - see `Reranker`
    ) -> list[float]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._scores, query, texts)

    async def check_ready(self) -> None:
        """A model in this process is always ready."""

    async def close(self) -> None:
        """Waits for the passages that the thread works on."""
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)

    def _scores(self, query: str, texts: Sequence[str]) -> list[float]:
        from torch.nn import Identity  # noqa: PLC0415 - see `load_cross_encoder`

        pairs = [(query, text) for text in texts]
        # The model's own tokenizer would truncate without a word.
        lengths = map(len, self._model.tokenizer(pairs, truncation=False)["input_ids"])
        longest, limit = max(lengths), self._model.max_seq_length
        if longest > limit:
            raise InvalidInput(
                f"the query and a passage have {longest} tokens, more than the {limit} that the"
                f" reranker {self._identity.id} reads; shorten the query, or make the corpus with a"
                " smaller chunking.max_tokens",
                field="rerank",
            )
        found = self._model.predict(
            pairs,
            batch_size=self._batch_size,
            # Logits: some models squash them by their own configuration, others do not.
            activation_fn=Identity(),
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return [float(score) for score in found]


def load_cross_encoder(
    model: str, *, device: str, batch_size: int, revision: str = ""
) -> CrossEncoderReranker:
    """Loads a model; takes seconds.

    Args:
        model: a folder or a model id; see `find_model`, as for `revision`.
        device: torch's name of a device; empty takes a GPU where there is one.
        batch_size: most pairs in one forward pass.

    Raises:
        InvalidInput: when the model, the library or the device cannot be used.
        Unavailable: when the model must be downloaded and cannot.
    """
    folder = find_model(model, revision, setting="reranker")
    loaded = load_model("CrossEncoder", model, folder, device=device, setting="reranker")
    if loaded.num_labels != 1:
        raise InvalidInput(
            f"reranker {model!r} gives {loaded.num_labels} scores for a passage; choose a model"
            " that gives one",
            field="reranker",
        )
    return CrossEncoderReranker(
        loaded,
        RerankerIdentity(name_of_model(model), digest_of_model(folder)),
        batch_size=batch_size,
    )
