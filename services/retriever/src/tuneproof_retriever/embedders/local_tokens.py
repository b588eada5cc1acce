"""A tokenizer in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.servicekit.errors import InvalidInput
from tuneproof_retriever.embedders.model_folder import find_model
from tuneproof_retriever.embedders.protocol import Offsets

_AT_ONCE = 8_000
"""Characters that cost less time than a thread's turn."""


class LocalTokens:
    """A `tokenizers.Tokenizer` on a thread of its own."""

    def __init__(self, tokenizer: Any) -> None:
        """
        Args:
            tokenizer: is made to neither truncate nor pad.
        """
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")

    @classmethod
    def load(cls, model: str) -> LocalTokens:
        """The tokenizer of a model.

        Args:
            model: see `find_model`; its weights are not needed.

        Raises:
            InvalidInput: when there is no tokenizer.json, or the library is missing.
        """
        try:
            from tokenizers import Tokenizer  # noqa: PLC0415 - an extra
        except ImportError:
            raise InvalidInput(
                "an OpenAI-compatible embedder needs tokenizers:"
                " pip install tuneproof-retriever[openai]",
                field="embedder_tokenizer",
            ) from None
        file = find_model(model, setting="embedder-tokenizer", needs="tokenizer.json")
        try:
            return cls(Tokenizer.from_file(str(file / "tokenizer.json")))
        except Exception as error:  # noqa: BLE001 - the library raises plain Exceptions
            raise InvalidInput(
                f"embedder-tokenizer {model!r} cannot be loaded: {error}",
                field="embedder_tokenizer",
            ) from None

    @property
    def special(self) -> int:
        """Special tokens that a text gets."""
        return int(self._tokenizer.num_special_tokens_to_add(False))

    @property
    def digest(self) -> str:
        """`sha256:<hex>` over vocabulary and rules."""
        return sha256_of_json(self._tokenizer.to_str())

    def count(self, text: str) -> int:
        """Tokens of a short text, special ones left out."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    async def offsets(self, texts: Sequence[str]) -> list[Offsets]:
        if sum(map(len, texts)) <= _AT_ONCE:
            return self._offsets(texts)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._offsets, texts)

    def close(self) -> None:
        """Ends the thread after what it works on."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _offsets(self, texts: Sequence[str]) -> list[Offsets]:
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.offsets for encoding in encodings]
