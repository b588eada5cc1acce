"""What tokens cost: a file with the prices of models."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

from tuneproof.servicekit.yamlfile import FileKind
from tuneproof_judge.grade import Usage

_MILLION = 1_000_000


class ModelPrice(BaseModel):
    """Prices of a million tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)
    cached: float | None = Field(default=None, ge=0)
    """Of prompt tokens that the endpoint reports as cached; without it, that of the prompt."""

    def of(self, usage: Usage) -> float:
        """The price of what was asked."""
        cached = min(usage.cached_tokens, usage.prompt_tokens)
        spared = self.prompt if self.cached is None else self.cached
        return (
            (usage.prompt_tokens - cached) * self.prompt
            + cached * spared
            + usage.completion_tokens * self.completion
        ) / _MILLION


class Prices(BaseModel):
    """A table of prices."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    currency: str = Field(min_length=1, max_length=12)
    """As `USD`."""
    models: dict[str, ModelPrice]
    """By the model's name at its endpoint."""

    def of(self, parts: Iterable[tuple[str, Usage]]) -> float | None:
        """The price of what several models were asked; None where one of them has none."""
        total = 0.0
        for model, usage in parts:
            if model not in self.models:
                return None
            total += self.models[model].of(usage)
        return total


load_prices = FileKind(
    Prices,
    noun="a table of prices",
    expected="a table of prices: `currency:` and `models:` by name",
).load
"""Reads the file; one message lists all its mistakes."""
