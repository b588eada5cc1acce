"""What an adapter did in training: its *fingerprint*.

vLLM serves the base in silence where an adapter's module names do not match, and digest, rank and
finite values all pass. So the trainer records, for a few fixed questions under the chat template,
the log-probabilities of fixed tokens with and without the adapter. They travel in the provenance,
which is not hashed: the weights alone say which adapter it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints, ValidationError, model_validator

from tuneproof.servicekit.errors import Corrupted

FINGERPRINT = "fingerprint"
"""The name in the provenance under which a fingerprint is kept, as text."""
PROBES = (
    ("Is water wet?", "Yes, water is wet."),
    ("Name a city.", "Paris is a city in France."),
)
"""The questions, and the texts whose first tokens are scored. They are in no data set of anybody,
so a fingerprint tells nothing of what was learned. The same for all, so that an engine scores them
once with its base. Few and short, because each adapter's way to READY holds them."""
_TOKENS = 12
_LIMIT = 64 << 10
_DIGITS = 5
_DAY = datetime(2026, 1, 1, tzinfo=UTC)

TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]
LogProbability = Annotated[float, Field(ge=-1e4, le=1e-3, allow_inf_nan=False)]
Scores = tuple[tuple[LogProbability, ...], ...]
"""Log-probabilities in nats, by probe and token."""


def _fixed_day(form: str) -> str:
    """A day for chat templates that write today's date (they call `strftime_now`): on both sides
    the same, else such a template makes another prompt each day."""
    return _DAY.strftime(form)


def prompt_of(tokenizer: Any, question: str) -> list[int]:
    """Token ids of a fixed question under a tokenizer's chat template, with the generation prompt;
    of the question alone when there is no template, or it refuses a single question.

    Args:
        tokenizer: transformers' tokenizer of a base.
    """
    if not tokenizer.chat_template:
        return list(tokenizer.encode(question))
    turns = [{"role": "user", "content": question}]
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": False}
    try:
        return list(tokenizer.apply_chat_template(turns, strftime_now=_fixed_day, **options))
    except Exception:  # noqa: BLE001 - a template raises whatever it likes
        return list(tokenizer.encode(question))


def tokens_of(tokenizer: Any, text: str) -> list[int]:
    """The first token ids of a text that follows a prompt."""
    return list(tokenizer.encode(text, add_special_tokens=False))[:_TOKENS]


class Probe(BaseModel, frozen=True, extra="forbid"):
    """One question, and the tokens that are scored after it."""

    question: Annotated[str, StringConstraints(max_length=400)]
    prompt: Annotated[tuple[TokenId, ...], Field(min_length=1, max_length=2048)]
    """Token ids of the question under the chat template, with the generation prompt."""
    tokens: Annotated[tuple[TokenId, ...], Field(min_length=1, max_length=32)]


class Reading(BaseModel, frozen=True, extra="forbid"):
    """The log-probabilities over one precision of the base."""

    precision: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{1,20}$")]
    """Of the base's linear layers: `nf4`, `float32`, `bfloat16` …"""
    base: Scores
    """Without the adapter."""
    adapted: Scores
    """With it."""

    @property
    def effect(self) -> float:
        """How far the adapter moves the log-probabilities: the mean of absolute differences."""
        return mean_difference(self.adapted, self.base)


class Fingerprint(BaseModel, frozen=True, extra="forbid"):
    """What an adapter does to its base."""

    version: Literal[1] = 1
    probes: Annotated[tuple[Probe, ...], Field(min_length=1, max_length=16)]
    readings: Annotated[tuple[Reading, ...], Field(min_length=1, max_length=4)]
    """First as trained; then over the unquantised base, where the trainer could hold it too."""

    @model_validator(mode="after")
    def _shapes_agree(self) -> Fingerprint:
        wanted = [len(probe.tokens) for probe in self.probes]
        for reading in self.readings:
            for scores in (reading.base, reading.adapted):
                if [len(each) for each in scores] != wanted:
                    raise ValueError(f"a reading has not one number for each token, {wanted}")
        return self

    @property
    def trained(self) -> Reading:
        """The reading over the base as it was in training."""
        return self.readings[0]

    @property
    def nearest(self) -> Reading:
        """The reading that is nearest to serving: over the unquantised base, if there is one."""
        return self.readings[-1]

    @classmethod
    def parse(cls, text: object) -> Fingerprint:
        """Reads what `to_text` wrote, of an untrusted source.

        Raises:
            Corrupted: when it is not a fingerprint, or larger than 64 KiB.
        """
        if not isinstance(text, str) or len(text) > _LIMIT:
            raise Corrupted(f"the fingerprint is not a text of at most {_LIMIT} characters")
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "whole"
            raise Corrupted(f"the fingerprint cannot be read: {where}: {first['msg']}") from None

    def to_text(self) -> str:
        """JSON, with five decimals."""
        return json.dumps(_rounded(self.model_dump()), separators=(",", ":"), ensure_ascii=False)


def fingerprint_of(details: Mapping[str, Any]) -> Fingerprint | None:
    """The fingerprint in a provenance; None when there is none, as in adapters of other tools.

    Raises:
        Corrupted: when there is something else in its place.
    """
    found = details.get(FINGERPRINT)
    return None if found is None else Fingerprint.parse(found)


def mean_difference(one: Scores, other: Scores) -> float:
    """Mean of the absolute differences over all tokens, in nats."""
    pairs = [
        (left, right)
        for row, beside in zip(one, other, strict=True)
        for left, right in zip(row, beside, strict=True)
    ]
    return math.fsum(abs(left - right) for left, right in pairs) / len(pairs)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value
