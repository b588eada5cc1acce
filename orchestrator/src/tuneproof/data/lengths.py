"""How many tokens of a model texts have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuneproof.servicekit.errors import InvalidInput

_CONTEXT = ("max_position_embeddings", "n_positions", "max_sequence_length")
"""Under which names configurations give the model's context."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of some texts, without the special ones."""

    texts: int
    median: int
    p95: int
    longest: int
    longest_id: str


@dataclass(frozen=True)
class Tokenizer:
    """The tokenizer of a model."""

    model: str
    context: int
    """Tokens that the model can read; 0: unknown."""
    config: Mapping[str, Any]
    """The model's config.json."""
    _tokenizer: Any

    def lengths(self, texts: Mapping[str, str]) -> Lengths:
        """Of one text or more, by id."""
        encoded = self._tokenizer.encode_batch(list(texts.values()), add_special_tokens=False)
        counts = np.array([len(each.ids) for each in encoded])
        median, p95 = np.quantile(counts, [0.5, 0.95], method="higher")
        longest = int(counts.argmax())
        return Lengths(
            len(counts), int(median), int(p95), int(counts[longest]), list(texts)[longest]
        )

    def ids(self, text: str) -> tuple[int, ...]:
        """The token ids of a text that holds its special tokens itself."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)


def open_tokenizer(model: str) -> Tokenizer:
    """The tokenizer of a model folder, or of a model id of the Hugging Face hub.

    Raises:
        InvalidInput: it is neither, its tokenizer cannot be read, or the library is missing.
    """
    try:
        import tokenizers  # noqa: PLC0415 - an extra
    except ImportError:
        raise InvalidInput(
            "counting tokens needs a library: install it with `pip install 'tuneproof[tokens]'`"
        ) from None
    found = {name: model_file(model, name) for name in ("tokenizer.json", "config.json")}
    try:
        config = json.loads(found["config.json"].read_bytes())
        tokenizer = tokenizers.Tokenizer.from_file(str(found["tokenizer.json"]))
    except Exception as error:  # noqa: BLE001 - tokenizers raises plain Exception
        raise InvalidInput(f"cannot read the tokenizer of {model}: {error}") from None
    tokenizer.no_truncation()
    contexts = [config.get(name) for name in _CONTEXT]
    context = next((each for each in contexts if isinstance(each, int)), 0)
    return Tokenizer(model, context, config, tokenizer)


def model_file(model: str, name: str) -> Path:
    """A file of a model folder, which may be absent, or of a model id of the hub.

    Raises:
        InvalidInput: the hub does not give it.
    """
    if Path(model).is_dir():
        return Path(model) / name
    try:
        from huggingface_hub import hf_hub_download  # noqa: PLC0415 - an extra

        return Path(hf_hub_download(model, name))
    except Exception as error:  # noqa: BLE001 - what it raises depends on hub and network
        raise InvalidInput(
            f"{model} is not a folder here, and the hub does not give its {name}: {error}"
        ) from None
